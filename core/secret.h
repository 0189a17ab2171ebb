// SPDX-License-Identifier: Apache-2.0
// For bindings that compute secrets; the rest of the kit for secrets is in bind.h.
#ifndef EIRUN_SECRET_H
#define EIRUN_SECRET_H

#include "bind.h"

// Pushes an open secret of `length` zero bytes; the caller fills them, before anything else can raise. [-0, +1, m]
char *er_secret_new(lua_State *L, size_t length);

#endif
