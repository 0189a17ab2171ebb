// SPDX-License-Identifier: Apache-2.0
// YAML streams to trees and pieces to YAML text, on libyaml. No Lua here.
#ifndef EIRUN_YAML_CODEC_H
#define EIRUN_YAML_CODEC_H

#include "er.h"
#include "sink.h"
#include "text.h"

#include <jansson.h>
#include <yaml.h>

#define ER_YAML_MAX_BYTES ((size_t)64 << 20) // of one stream, read or written
#define ER_YAML_MAX_DEPTH 512
#define ER_YAML_MAX_ALIASED                                                                                            \
    ((size_t)4 << 20) // what all aliases of a stream stand for: bytes of text, and 32 for each value

// All documents of a stream, as an array; an empty one is null. Scalars mean what kubectl takes them for. Refused: a
// key said twice, a key that is null, a list or a map, numbers that JSON has not, aliases that expand beyond all
// measure.
// `*documents` is the caller's and set on success alone; `*place` says where an ER_INVALID is.
enum er_status er_yaml_parse(const char *text, size_t length, json_t **documents, struct er_place *place,
                             struct er_error *err);

// Writes a stream into `text`, whose `max` the caller sets. Zero-initialised it is closed.
struct er_yaml_writer {
    struct er_sink sink;
    struct er_buf text;
    bool open;
    yaml_emitter_t emitter;
    enum er_status failed; // why `text` took no more
};
enum er_status er_yaml_writer_open(struct er_yaml_writer *writer);
enum er_status er_yaml_writer_begin_document(struct er_yaml_writer *writer, bool first);
enum er_status er_yaml_writer_end_document(struct er_yaml_writer *writer);
enum er_status er_yaml_writer_finish(struct er_yaml_writer *writer); // afterwards `text` is complete
void er_yaml_writer_close(struct er_yaml_writer *writer);            // may run twice; releases `text` too

#endif
