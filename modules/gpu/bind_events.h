// SPDX-License-Identifier: Apache-2.0
#ifndef EIRUN_GPU_BIND_EVENTS_H
#define EIRUN_GPU_BIND_EVENTS_H

#include "bind.h"

void er_gpu_events_open(lua_State *L); // makes the type. [-0, +0, m]
int er_gpu_l_watch(lua_State *L);      // watch({"xid", ...}) -> handle | nil, err

#endif
