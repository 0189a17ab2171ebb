// SPDX-License-Identifier: Apache-2.0
// JSON text to a tree (jansson) and pieces to JSON text. No Lua here.
#ifndef EIRUN_JSON_H
#define EIRUN_JSON_H

#include "er.h"
#include "sink.h"
#include "text.h"

#include <jansson.h>

#define ER_JSON_MAX_BYTES ((size_t)256 << 20) // of one text, read or written
#define ER_JSON_MAX_DEPTH 2048                // jansson's own limit when it parses

// Hands jansson our allocator. Call it before the first parse of a process; again is harmless.
void er_json_setup(void);

// Any JSON value. An integer beyond 64 bits is a real: the nearest double. Refused: duplicate keys, numbers beyond a
// double, bytes that are not UTF-8, more than ER_JSON_MAX_DEPTH levels, anything after the value. `*root` is the
// caller's (json_decref) and set on success alone; `*place` says where an ER_INVALID is.
enum er_status er_json_parse(const char *text, size_t length, json_t **root, struct er_place *place,
                             struct er_error *err);

// Writes into `text`, whose `max` the caller sets. With `indent` one member a line, two spaces a level.
struct er_json_writer {
    struct er_sink sink;
    struct er_buf text;
    bool indent;
    bool comma; // the next value or key follows another one
    bool after_key;
    size_t depth;
};
// Makes it ready for a document; what `text` held is forgotten, its memory is kept.
void er_json_writer_begin(struct er_json_writer *writer, bool indent);

#endif
