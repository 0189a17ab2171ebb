// SPDX-License-Identifier: Apache-2.0
// The parts of the binding, each in its own file.
#ifndef EIRUN_BIND_LOAD_H
#define EIRUN_BIND_LOAD_H

#include <lua.h>

// resolve(host, port) -> address, as text | nil, err. Yields. [-0, +1|2, v]
int er_load_l_resolve(lua_State *L);

#endif
