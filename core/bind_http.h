// SPDX-License-Identifier: Apache-2.0
// What the files of the HTTP binding share.
#ifndef EIRUN_BIND_HTTP_H
#define EIRUN_BIND_HTTP_H

#include "bind.h"
#include "http_client.h"

// The state's route table; empty and open where routes{} was never called. [-0, +0, -]
const struct er_routes *er_http_routes(lua_State *L);

// A header as Lua sees it: an array of {name, value} with t:get(name) and t:list(name), whatever the name's case. [-0,
// +1, m]
void er_push_headers(lua_State *L, const struct er_headers *headers);
// The metatable of such arrays, for those who fill one by themselves. [-0, +1, m]
void er_push_headers_metatable(lua_State *L);

// Options of request() and open() from the table at `index`. Leaves values on the stack that `call` points into.
// [-0, +n, v]
void er_read_call(lua_State *L, int index, struct er_http_call *call);
// Bytes of an option that may be a string or a secret; nothing when it is nil. Leaves the value on the stack. [-0, +1,
// v]
struct er_bytes er_read_bytes(lua_State *L, int table, const char *key);

#endif
