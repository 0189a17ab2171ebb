// SPDX-License-Identifier: Apache-2.0
// eirun.core.task
#include "bind.h"
#include "modules.h"
#include "runtime_internal.h"

static int l_now(lua_State *L) {
    lua_pushnumber(L, (lua_Number)er_now(er_runtime_of(L)) / 1e9);
    return 1;
}

static int l_now_ns(lua_State *L) {
    lua_pushinteger(L, er_now(er_runtime_of(L)));
    return 1;
}

static int l_sleep(lua_State *L) {
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds == seconds && seconds < 9e9, 1, "seconds, less than 9e9");
    int64_t ns = seconds > 0 ? (int64_t)(seconds * 1e9) : 0;
    return er_task_sleep_until(L, er_now(er_runtime_of(L)) + ns);
}

static int l_sleep_until(lua_State *L) {
    lua_Number at = luaL_checknumber(L, 1);
    luaL_argcheck(L, at == at && at < 9e9, 1, "seconds since the epoch");
    return er_task_sleep_until(L, (int64_t)(at * 1e9));
}

int luaopen_eirun_core_task(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"now", l_now}, {"now_ns", l_now_ns}, {"sleep", l_sleep}, {"sleep_until", l_sleep_until}, {NULL, NULL},
    };
    luaL_newlib(L, functions);
    er_task_register(L);
    er_scope_register(L);
    er_signal_register(L);
    return 1;
}
