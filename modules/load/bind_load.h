// SPDX-License-Identifier: Apache-2.0
// The parts of the binding, each in its own file.
#ifndef EIRUN_BIND_LOAD_H
#define EIRUN_BIND_LOAD_H

#include <lua.h>

// resolve(host, port) -> {unix=} or {address=, port=}, with routed=true where the route table says so | nil, err. May
// yield.
// [-0, +1|2, v]
int er_load_l_resolve(lua_State *L);

#endif
