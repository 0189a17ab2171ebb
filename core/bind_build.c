// SPDX-License-Identifier: Apache-2.0
// eirun.core.build: what the program is and what it runs with.
#include "bind.h"
#include "curl_dl.h"
#include "modules.h"

#include <jansson.h>
#include <llhttp.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <uv.h>
#include <yaml.h>

static void add(lua_State *L, const char *name, const char *version) {
    lua_pushfstring(L, "%s %s", name, version);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
}

// Asking them opens them, so nobody does it but who shows them.
static int l_libraries(lua_State *L) {
    lua_newtable(L);
    add(L, "Lua", LUA_VERSION_MAJOR "." LUA_VERSION_MINOR "." LUA_VERSION_RELEASE);
    add(L, "libuv", uv_version_string());
    lua_pushfstring(L, "llhttp %d.%d.%d", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR, LLHTTP_VERSION_PATCH);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    const char *curl = er_curl_version();
    add(L, "libcurl", curl ? curl : "is missing");
    add(L, "OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING));
    add(L, "SQLite", sqlite3_libversion());
    add(L, "jansson", JANSSON_VERSION);
    add(L, "libyaml", yaml_get_version_string());
    return 1;
}

int luaopen_eirun_core_build(lua_State *L) {
    static const luaL_Reg functions[] = {{"libraries", l_libraries}, {NULL, NULL}};
    luaL_newlib(L, functions);
    lua_pushliteral(L, EIRUN_VERSION);
    lua_setfield(L, -2, "version");
    return 1;
}
