// SPDX-License-Identifier: Apache-2.0
// The parser of metrics, which is Lua: a hook tells the fuzzer which of its lines ran one after the other. What must
// hold is in gpu_promtext.lua.
#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { COUNTERS = 1 << 14 };
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t counters[COUNTERS];

static void on_line(lua_State *L, lua_Debug *activation) {
    static unsigned last;
    (void)L;
    unsigned line = (unsigned)activation->currentline;
    counters[(last * 131 + line) % COUNTERS]++;
    last = line;
}

static void require(lua_State *L, int status) {
    if (status != LUA_OK) {
        fprintf(stderr, "%s\n", luaL_tolstring(L, -1, NULL));
        abort();
    }
}

static lua_State *start(void) {
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    require(L, luaL_dostring(L, "package.path = 'lua/?.lua'; package.cpath = ''"));
    require(L, luaL_dofile(L, "tests/fuzz/gpu_promtext.lua"));
    lua_setglobal(L, "check");
    lua_sethook(L, on_line, LUA_MASKLINE, 0);
    return L;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static lua_State *L;
    L = L ? L : start();
    lua_getglobal(L, "check");
    lua_pushlstring(L, (const char *)data, size);
    require(L, lua_pcall(L, 1, 0, 0));
    return 0;
}
