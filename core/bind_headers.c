// SPDX-License-Identifier: Apache-2.0
#include "bind_http.h"

#include <strings.h>

#define HEADERS "eirun.http.headers"

// The value of row `i` of the array at 1, if its name fits. [-0, +(0|1), -]
static bool push_value(lua_State *L, lua_Integer i, const char *name) {
    lua_rawgeti(L, 1, i);
    lua_rawgeti(L, -1, 1);
    const char *key = lua_tostring(L, -1);
    if (!key || strcasecmp(key, name) != 0) {
        lua_pop(L, 2);
        return false;
    }
    lua_rawgeti(L, -2, 2);
    lua_replace(L, -3);
    lua_pop(L, 1);
    return true;
}

// headers:get(name) -> the first value or nil
static int l_get(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *name = luaL_checkstring(L, 2);
    for (lua_Integer i = 1, count = (lua_Integer)lua_rawlen(L, 1); i <= count; i++) {
        if (push_value(L, i, name)) {
            return 1;
        }
    }
    lua_pushnil(L);
    return 1;
}

// headers:list(name) -> array of values in order
static int l_list(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    const char *name = luaL_checkstring(L, 2);
    lua_newtable(L);
    int found = lua_gettop(L);
    for (lua_Integer i = 1, count = (lua_Integer)lua_rawlen(L, 1); i <= count; i++) {
        if (push_value(L, i, name)) {
            lua_rawseti(L, found, (lua_Integer)lua_rawlen(L, found) + 1);
        }
    }
    return 1;
}

void er_push_headers_metatable(lua_State *L) {
    static const luaL_Reg methods[] = {{"get", l_get}, {"list", l_list}, {NULL, NULL}};
    if (luaL_newmetatable(L, HEADERS)) {
        luaL_newlib(L, methods);
        lua_setfield(L, -2, "__index");
    }
}

void er_push_headers(lua_State *L, const struct er_headers *headers) {
    const char *name = NULL, *value = NULL;
    lua_createtable(L, (int)headers->count, 0);
    lua_Integer i = 0;
    for (size_t cursor = 0; er_headers_next(headers, &cursor, &name, &value);) {
        lua_createtable(L, 2, 0);
        lua_pushstring(L, name);
        lua_rawseti(L, -2, 1);
        lua_pushstring(L, value);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, ++i);
    }
    er_push_headers_metatable(L);
    lua_setmetatable(L, -2);
}
