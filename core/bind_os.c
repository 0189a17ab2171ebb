// SPDX-License-Identifier: Apache-2.0
// eirun.core.os: facts of the process and the machine.
#include "bind.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

extern char **environ;

// getenv(name) -> string | nil
static int l_getenv(lua_State *L) {
    lua_pushstring(L, getenv(luaL_checkstring(L, 1)));
    return 1;
}

// environ() -> {name = value}
static int l_environ(lua_State *L) {
    lua_newtable(L);
    for (char **entry = environ; *entry; entry++) {
        const char *equals = strchr(*entry, '=');
        if (equals) {
            lua_pushlstring(L, *entry, (size_t)(equals - *entry));
            lua_pushstring(L, equals + 1);
            lua_rawset(L, -3);
        }
    }
    return 1;
}

static int l_hostname(lua_State *L) {
    char name[UV_MAXHOSTNAMESIZE];
    size_t size = sizeof name;
    int code = uv_os_gethostname(name, &size);
    if (code) {
        return er_push_errno(L, code, "read", "the host's name");
    }
    lua_pushlstring(L, name, size);
    return 1;
}

static int l_uid(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)getuid());
    return 1;
}

// cpu_count() -> processors that this process may use
static int l_cpu_count(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)uv_available_parallelism());
    return 1;
}

// rss() -> bytes resident now
static int l_rss(lua_State *L) {
    size_t bytes = 0;
    int code = uv_resident_set_memory(&bytes);
    if (code) {
        return er_push_errno(L, code, "read", "/proc/self/stat");
    }
    lua_pushinteger(L, (lua_Integer)bytes);
    return 1;
}

// monotonic() -> real seconds, for measurements only: nothing may be decided by them
static int l_monotonic(lua_State *L) {
    lua_pushnumber(L, (double)uv_hrtime() / 1e9);
    return 1;
}

int luaopen_eirun_core_os(lua_State *L);
int luaopen_eirun_core_os(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"getenv", l_getenv},       {"environ", l_environ}, {"hostname", l_hostname},   {"uid", l_uid},
        {"cpu_count", l_cpu_count}, {"rss", l_rss},         {"monotonic", l_monotonic}, {NULL, NULL},
    };
    luaL_newlib(L, functions);
    return 1;
}
