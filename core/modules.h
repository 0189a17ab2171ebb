// SPDX-License-Identifier: Apache-2.0
// The openers of the C modules, made from modules.def.
#ifndef EIRUN_MODULES_H
#define EIRUN_MODULES_H

#include <lua.h>

#define ER_MODULE(name, opener) int opener(lua_State *L);
#include "modules.def"
#undef ER_MODULE

#endif
