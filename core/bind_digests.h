// SPDX-License-Identifier: Apache-2.0
// Sets of digests as Lua names and sees them.
#ifndef EIRUN_BIND_DIGESTS_H
#define EIRUN_BIND_DIGESTS_H

#include "digests.h"

#include <lua.h>

// The set of a list of names at `index`; raises on an unknown one. [-0, +0, v]
unsigned er_check_digests(lua_State *L, int index);
// Adds the finished digests to the table on top: raw bytes, but crc64 as an integer. NULL adds nothing. [-0, +0, m]
void er_set_digests(lua_State *L, const struct er_digests *digests);

#endif
