// SPDX-License-Identifier: Apache-2.0
// Scripts that are run with every allocation from the n-th on failing, for each n until one succeeds: nothing may
// crash, hang or leak, and a script that fails fails by an error.
#ifndef EIRUN_TORTURE_H
#define EIRUN_TORTURE_H

#include "script.h"

enum { TORTURE_ALLOCATIONS = 6000 };

static bool succeeded;
static const char *torture_place = ""; // a path that the scripts see as `place`

// fail_from(n): allocations fail from the n-th on; 0 ends it
static int l_fail_from(lua_State *L) {
    er_mem_fail_from((uint64_t)luaL_checkinteger(L, 1));
    return 0;
}

static int l_succeeded(lua_State *L) {
    succeeded = lua_toboolean(L, 1);
    return 0;
}

static void torture_prepare(struct er_vm *vm) {
    lua_State *L = vm->L;
    lua_setwarnf(L, NULL, NULL); // Lua warns where it has no memory for a finaliser's call
    lua_register(L, "fail_from", l_fail_from);
    lua_register(L, "succeeded", l_succeeded);
    lua_pushstring(L, torture_place);
    lua_setglobal(L, "place");
}

static bool survives(const char *text, unsigned n) {
    char number[16];
    snprintf(number, sizeof number, "%u", n);
    succeeded = false;
    script_run(&(struct script){.text = text, .prepare = torture_prepare, .argument = number}, false);
    return succeeded;
}

static void torture(const char *script) {
    unsigned n = 1;
    while (n <= TORTURE_ALLOCATIONS && !survives(script, n)) {
        n++;
    }
    CHECK(n > 10);
    CHECK(n <= TORTURE_ALLOCATIONS);
}

// Each body returns true when it got what it asked for; what it requires is loaded before memory runs out.
#define SCRIPT(modules, body)                                                                                          \
    "return function(n) " modules " local function body() " body " end "                                               \
    "fail_from(tonumber(n)) local ok, result = pcall(body) fail_from(0) succeeded(ok and result) end"

#endif
