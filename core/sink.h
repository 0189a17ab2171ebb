// SPDX-License-Identifier: Apache-2.0
// Where a walk over a document puts its pieces: one implementation writes JSON, another YAML.
#ifndef EIRUN_SINK_H
#define EIRUN_SINK_H

#include "er.h"

struct er_sink;
// Each answers ER_OK, ER_INVALID (this piece cannot be written: bytes that are not UTF-8, a number that is not finite),
// ER_QUOTA (the text would be too long) or ER_NO_MEMORY. An object's pieces come as key, value, key, value.
struct er_sink_ops {
    enum er_status (*null)(struct er_sink *sink);
    enum er_status (*boolean)(struct er_sink *sink, bool value);
    enum er_status (*integer)(struct er_sink *sink, int64_t value);
    enum er_status (*number)(struct er_sink *sink, double value);
    enum er_status (*string)(struct er_sink *sink, const char *bytes, size_t length);
    enum er_status (*key)(struct er_sink *sink, const char *bytes, size_t length);
    enum er_status (*begin_array)(struct er_sink *sink, bool empty);
    enum er_status (*end_array)(struct er_sink *sink);
    enum er_status (*begin_object)(struct er_sink *sink, bool empty);
    enum er_status (*end_object)(struct er_sink *sink);
};
struct er_sink {
    const struct er_sink_ops *ops;
};

#endif
