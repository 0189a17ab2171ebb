// SPDX-License-Identifier: Apache-2.0
// The kit that bindings are made with: handles, option tables, errors, secrets. Stack effects are [-popped, +pushed,
// raises] with raises one of - (never), m (memory), v (misuse).
#ifndef EIRUN_BIND_H
#define EIRUN_BIND_H

#include "er.h"

#include <lauxlib.h>
#include <lua.h>

// Makes the metatable `name` once: methods (may be NULL) become __index; `close` becomes __gc and __close and must be
// able to run twice; __metatable is false. [-0, +0, m]
void er_handle_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close);
// A zeroed userdata of that type: the handle in its *closed* state. Acquire only afterwards. [-0, +1, m]
void *er_handle_new(lua_State *L, size_t size, const char *name);

// nil, err with err = {kind, message} and metatable "eirun.error". Returns 2, so `return er_push_fail(L, &err)`. [-0,
// +2, m]
int er_push_fail(lua_State *L, const struct er_error *err);
// The error table alone; add fields with lua_setfield. [-0, +1, m]
void er_push_error(lua_State *L, const struct er_error *err);
// The metatable that all error tables share. [-0, +1, m]
void er_push_error_metatable(lua_State *L);
// nil, err for an errno or libuv code (negative): "cannot open 'x': no such file or directory". [-0, +2, m]
int er_push_errno(lua_State *L, int code, const char *action, const char *object);

// One row per option of a table argument; unknown keys raise with the nearest known one and the caller's place.
enum er_opt_type { ER_OPT_STRING, ER_OPT_INTEGER, ER_OPT_NUMBER, ER_OPT_BOOLEAN, ER_OPT_SECONDS, ER_OPT_ANY };
struct er_opt {
    const char *key;
    enum er_opt_type type;
    size_t offset;        // into the C struct; ER_OPT_ANY has none: fetch it yourself with lua_getfield
    size_t length_offset; // ER_OPT_STRING: where its size_t length goes, 0 for none
    bool required;
};
// STRING: const char * (owned by Lua: the table must stay on the stack), INTEGER: int64_t, NUMBER: double, BOOLEAN:
// bool, SECONDS: int64_t nanoseconds, not negative. Absent options leave the struct as it is. [-0, +0, v]
void er_read_opts(lua_State *L, int table, const struct er_opt *opts, size_t count, void *into);

// Bytes from a string or a secret. Raises on anything else. The pointer lives as long as the value at `index`. [-0, +0,
// v]
const char *er_check_bytes(lua_State *L, int index, size_t *length);
// The same, NULL when it is neither. [-0, +0, -]
const char *er_to_bytes(lua_State *L, int index, size_t *length);
// Pushes a secret userdata that owns a copy of the bytes, wiped when closed. [-0, +1, m]
void er_push_secret(lua_State *L, const char *bytes, size_t length);
bool er_is_secret(lua_State *L, int index);

// Lua's `print` in one write, whose failure the program does not forget. A lua_CFunction.
int er_print(lua_State *L);

#endif
