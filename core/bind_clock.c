// SPDX-License-Identifier: Apache-2.0
// eirun.core.clock: which clock the run has. Chosen once, before anything sleeps.
#include "bind.h"
#include "modules.h"
#include "runtime_internal.h"

#include <string.h>

static const char *const kinds[] = {"real", "virtual", "scaled", NULL};

// A clock at real pace that shows another date is "real", too: what a program on a serving sandbox has.
static int l_kind(lua_State *L) {
    struct er_runtime *rt = er_runtime_of(L);
    enum er_clock_kind kind = er_clock_kind(rt);
    bool real_pace = kind == ER_CLOCK_SCALED && rt->factor >= 1 && rt->factor <= 1;
    lua_pushstring(L, kinds[real_pace ? ER_CLOCK_REAL : kind]);
    return 1;
}

// use("virtual", start_seconds) | use("scaled", factor [, start_seconds]) | use("real")
static int l_use(lua_State *L) {
    struct er_runtime *rt = er_runtime_of(L);
    enum er_clock_kind kind = (enum er_clock_kind)luaL_checkoption(L, 1, NULL, kinds);
    if (rt->heap_length) {
        return luaL_error(L, "the clock cannot change while timers run");
    }
    if (kind == ER_CLOCK_VIRTUAL) {
        er_clock_use_virtual(rt, (int64_t)(luaL_checknumber(L, 2) * 1e9));
    } else if (kind == ER_CLOCK_SCALED) {
        lua_Number factor = luaL_checknumber(L, 2);
        luaL_argcheck(L, factor > 0 && factor <= 1e6, 2, "a factor from 0 (excluded) to 1e6");
        int64_t now = lua_isnoneornil(L, 3) ? er_now(rt) : (int64_t)(luaL_checknumber(L, 3) * 1e9);
        er_clock_use_scaled(rt, factor, now);
    } else if (!lua_isnoneornil(L, 2)) {
        er_clock_use_scaled(rt, 1, (int64_t)(luaL_checknumber(L, 2) * 1e9)); // real pace, another date
    }
    return 0;
}

// How fast it runs: clock seconds in a real one; nil for the virtual clock.
static int l_factor(lua_State *L) {
    struct er_runtime *rt = er_runtime_of(L);
    if (rt->kind == ER_CLOCK_VIRTUAL) {
        lua_pushnil(L);
    } else {
        lua_pushnumber(L, rt->kind == ER_CLOCK_SCALED ? rt->factor : 1);
    }
    return 1;
}

// Seconds of the machine's monotonic clock: for measuring the program itself, never for a decision.
static int l_monotonic(lua_State *L) {
    lua_pushnumber(L, (lua_Number)er_monotonic() / 1e9);
    return 1;
}

int luaopen_eirun_core_clock(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"kind", l_kind}, {"use", l_use}, {"factor", l_factor}, {"monotonic", l_monotonic}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
