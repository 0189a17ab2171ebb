// SPDX-License-Identifier: Apache-2.0
// eirun.core.testing: what the project's own tests need to look at and to break.
#include "bind.h"
#include "modules.h"
#include "runtime.h"

// fail_from(n): from the n-th allocation on all fail; fail_from(0) ends it.
static int l_fail_from(lua_State *L) {
    lua_Integer n = luaL_checkinteger(L, 1);
    luaL_argcheck(L, n >= 0, 1, "not negative");
    er_mem_fail_from((uint64_t)n);
    return 0;
}

static void count_handle(uv_handle_t *handle, void *context) {
    if (!uv_is_closing(handle)) {
        ++*(lua_Integer *)context;
    }
}

// How many libuv handles are open.
static int l_handles(lua_State *L) {
    lua_Integer count = 0;
    uv_walk(er_loop(er_runtime_of(L)), count_handle, &count);
    lua_pushinteger(L, count);
    return 1;
}

// methods(handle): the names, in no order, of a userdata's methods, which its hidden metatable knows.
static int l_methods(lua_State *L) {
    luaL_checktype(L, 1, LUA_TUSERDATA);
    lua_settop(L, 1);
    luaL_argcheck(L, luaL_getmetafield(L, 1, "__index") != LUA_TNIL, 1, "a handle has methods");
    if (lua_iscfunction(L, -1)) {
        luaL_argcheck(L, lua_getupvalue(L, -1, 1) != NULL, 1, "a handle has methods");
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    int methods = lua_gettop(L);
    lua_newtable(L);
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, methods); lua_pop(L, 1)) {
        if (lua_isfunction(L, -1)) {
            lua_pushvalue(L, -2);
            lua_rawseti(L, -4, ++count);
        }
    }
    return 1;
}

int luaopen_eirun_core_testing(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"fail_from", l_fail_from}, {"handles", l_handles}, {"methods", l_methods}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
