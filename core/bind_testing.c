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

int luaopen_eirun_core_testing(lua_State *L) {
    static const luaL_Reg functions[] = {{"fail_from", l_fail_from}, {"handles", l_handles}, {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
