// SPDX-License-Identifier: Apache-2.0
// Runs a Lua script in a runtime and a state of its own, with the library's modules from the source tree.
#ifndef EIRUN_SCRIPT_H
#define EIRUN_SCRIPT_H

#include "check.h"
#include "embedded.h"
#include "runtime_internal.h"
#include "vm.h"

#include <lauxlib.h>

const struct er_embedded er_embedded[] = {{0}}; // modules come from EIRUN_LUA_DIR
const char er_embedded_lua[] = "";

struct script {
    const char *text;                // a module that returns a function
    int64_t virtual_now;             // nanoseconds; 0: the real clock
    void (*prepare)(struct er_vm *); // may be NULL
    const char *argument;
};

static bool script_is_finished(void *vm) { return er_vm_finished(vm); }

static void script_preload(lua_State *L, const char *text) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    if (luaL_loadstring(L, text) != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        check_failures++;
    }
    lua_setfield(L, -2, "script");
    lua_settop(L, 0);
}

// True when the function returned; its error is shown if `loud`. Ends failing allocations.
static bool script_run(const struct script *script, bool loud) {
    struct er_runtime *rt;
    struct er_vm *vm;
    CHECK(er_runtime_new(&rt) == ER_OK);
    if (script->virtual_now) {
        er_clock_use_virtual(rt, script->virtual_now);
    }
    CHECK(er_vm_new(rt, EIRUN_LUA_DIR, &vm) == ER_OK);
    script_preload(vm->L, script->text);
    if (script->prepare) {
        script->prepare(vm);
    }
    const char *argv[] = {script->argument ? script->argument : ""};
    CHECK(er_vm_start(vm, "script", 1, argv) == ER_OK);
    CHECK(er_runtime_run(rt, script_is_finished, vm));
    er_mem_fail_from(0);
    bool returned = er_vm_result(vm);
    if (!returned && loud) {
        fprintf(stderr, "%s\n", luaL_tolstring(vm->L, -1, NULL));
    }
    lua_settop(vm->L, 0);
    er_vm_free(vm);
    er_runtime_free(rt);
    return returned;
}

#endif
