// SPDX-License-Identifier: Apache-2.0
// Lua modules inside the binary, as text and compiled, sorted by path; the last one has no name.
#ifndef EIRUN_EMBEDDED_H
#define EIRUN_EMBEDDED_H

#include <stddef.h>

struct er_embedded {
    const char *module; // "eirun.task"
    const char *chunk;  // "@eirun/task.lua"
    const char *source;
    size_t length;
    const char *compiled; // by the library that er_embedded_lua names
    size_t compiled_length;
};
extern const struct er_embedded er_embedded[];
extern const char er_embedded_lua[];

#endif
