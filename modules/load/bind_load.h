// SPDX-License-Identifier: Apache-2.0
// The parts of the binding, each in its own file.
#ifndef EIRUN_BIND_LOAD_H
#define EIRUN_BIND_LOAD_H

#include <lua.h>

// resolve(host, port) -> {unix=} or {address=, addresses=, port=}, with routed=true where the route table says so |
// nil, err. May yield.
// [-0, +1|2, v]
int er_load_l_resolve(lua_State *L);

struct er_load;
struct er_load *er_load_check_run(lua_State *L); // argument 1; raises when it is closed
int er_load_l_state(lua_State *L);
int er_load_l_series(lua_State *L);
int er_load_l_histogram(lua_State *L);

#endif
