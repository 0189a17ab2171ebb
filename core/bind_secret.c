// SPDX-License-Identifier: Apache-2.0
// eirun.core.secret: bytes that Lua may pass on but not read. The bytes lie inside the userdata, so a secret is one
// allocation, made by Lua, and cannot leak when a later one fails.
#include "secret.h"

#include <string.h>

#define SECRET "eirun.secret"

struct er_secret {
    bool open;
    size_t length;
    char bytes[];
};

static int l_close(lua_State *L) {
    struct er_secret *secret = luaL_checkudata(L, 1, SECRET);
    if (secret->open) {
        explicit_bzero(secret->bytes, secret->length);
        secret->length = 0;
        secret->open = false;
    }
    return 0;
}

static int l_tostring(lua_State *L) {
    lua_pushliteral(L, "<secret>");
    return 1;
}

static int l_refuse_concat(lua_State *L) {
    return luaL_error(L, "a secret cannot be joined with '..': use secret.concat");
}

static void make_type(lua_State *L) {
    static const luaL_Reg methods[] = {{"close", l_close}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__tostring", l_tostring}, {"__concat", l_refuse_concat}, {NULL, NULL}};
    er_handle_type(L, SECRET, methods, l_close);
    luaL_getmetatable(L, SECRET);
    luaL_setfuncs(L, meta, 0);
    lua_pop(L, 1);
}

char *er_secret_new(lua_State *L, size_t length) {
    luaL_checkstack(L, 4, "secret");
    if (luaL_getmetatable(L, SECRET) == LUA_TNIL) { // pushed by C before Lua required the module
        make_type(L);
    }
    lua_pop(L, 1);
    struct er_secret *secret = er_handle_new(L, sizeof *secret + length, SECRET);
    secret->length = length;
    secret->open = true;
    return secret->bytes;
}

void er_push_secret(lua_State *L, const char *bytes, size_t length) {
    char *copy = er_secret_new(L, length);
    if (length) {
        memcpy(copy, bytes, length);
    }
}

bool er_is_secret(lua_State *L, int index) { return luaL_testudata(L, index, SECRET) != NULL; }

const char *er_to_bytes(lua_State *L, int index, size_t *length) {
    if (lua_type(L, index) == LUA_TSTRING) {
        return lua_tolstring(L, index, length);
    }
    const struct er_secret *secret = luaL_testudata(L, index, SECRET);
    if (!secret || !secret->open) {
        return NULL;
    }
    *length = secret->length;
    return secret->bytes;
}

const char *er_check_bytes(lua_State *L, int index, size_t *length) {
    const char *bytes = er_to_bytes(L, index, length);
    if (!bytes) {
        luaL_argerror(L, index,
                      er_is_secret(L, index)
                          ? "secret is closed"
                          : lua_pushfstring(L, "string or secret expected, got %s", luaL_typename(L, index)));
    }
    return bytes;
}

static int l_new(lua_State *L) {
    size_t length = 0;
    const char *bytes = er_check_bytes(L, 1, &length);
    er_push_secret(L, bytes, length);
    return 1;
}

static int l_concat(lua_State *L) {
    int count = lua_gettop(L);
    size_t total = 0, length = 0;
    for (int i = 1; i <= count; i++) {
        er_check_bytes(L, i, &length);
        if (length > (size_t)LUA_MAXINTEGER - sizeof(struct er_secret) - total) {
            return luaL_error(L, "secret is too long");
        }
        total += length;
    }
    char *end = er_secret_new(L, total);
    for (int i = 1; i <= count; i++) {
        const char *bytes = er_check_bytes(L, i, &length);
        memcpy(end, bytes, length);
        end += length;
    }
    return 1;
}

static int l_is(lua_State *L) {
    luaL_checkany(L, 1);
    lua_pushboolean(L, er_is_secret(L, 1));
    return 1;
}

int luaopen_eirun_core_secret(lua_State *L);
int luaopen_eirun_core_secret(lua_State *L) {
    static const luaL_Reg functions[] = {{"new", l_new}, {"concat", l_concat}, {"is", l_is}, {NULL, NULL}};
    make_type(L);
    luaL_newlib(L, functions);
    return 1;
}
