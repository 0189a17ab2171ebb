// SPDX-License-Identifier: Apache-2.0
// Lua modules inside the binary, as source text, sorted by path; the last one has no name.
#ifndef EIRUN_EMBEDDED_H
#define EIRUN_EMBEDDED_H

#include <stddef.h>

struct er_embedded {
    const char *module; // "eirun.task"
    const char *chunk;  // "@eirun/task.lua"
    const char *source;
    size_t length;
};
extern const struct er_embedded er_embedded[];

#endif
