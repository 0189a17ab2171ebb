// SPDX-License-Identifier: Apache-2.0
#include "bind.h"

#include <stdio.h>
#include <string.h>
#include <uv.h>

#define ERROR "eirun.error"

void er_handle_type(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction close) {
    if (!luaL_newmetatable(L, name)) {
        lua_pop(L, 1);
        return;
    }
    lua_newtable(L);
    if (methods) {
        luaL_setfuncs(L, methods, 0);
    }
    lua_setfield(L, -2, "__index");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__gc");
    lua_pushcfunction(L, close);
    lua_setfield(L, -2, "__close");
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}

void *er_handle_new(lua_State *L, size_t size, const char *name) {
    void *handle = lua_newuserdatauv(L, size, 1);
    memset(handle, 0, size);
    luaL_setmetatable(L, name);
    return handle;
}

// ---- errors

static int error_tostring(lua_State *L) {
    if (lua_getfield(L, 1, "message") != LUA_TSTRING) {
        lua_pushliteral(L, "error without a message");
    }
    return 1;
}

void er_push_error_metatable(lua_State *L) {
    if (luaL_newmetatable(L, ERROR)) {
        lua_pushcfunction(L, error_tostring);
        lua_setfield(L, -2, "__tostring");
    }
}

void er_push_error(lua_State *L, const struct er_error *err) {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, er_status_kind(err->status));
    lua_setfield(L, -2, "kind");
    lua_pushstring(L, err->message);
    lua_setfield(L, -2, "message");
    er_push_error_metatable(L);
    lua_setmetatable(L, -2);
}

int er_push_fail(lua_State *L, const struct er_error *err) {
    lua_pushnil(L);
    er_push_error(L, err);
    return 2;
}

int er_push_errno(lua_State *L, int code, const char *action, const char *object) {
    code = code > 0 ? -code : code; // libuv's codes are negative errnos
    struct er_error err;
    char text[128];
    uv_strerror_r(code, text, sizeof text);
    er_fail(&err, er_status_of_errno(code), "cannot %s '%s': %s", action, object, text);
    return er_push_fail(L, &err);
}

// ---- option tables

static size_t distance(const char *a, const char *b) {
    enum { MOST = 40 };
    size_t la = strlen(a), lb = strlen(b), row[MOST + 1];
    if (la > MOST || lb > MOST) {
        return MOST;
    }
    for (size_t j = 0; j <= lb; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            best = above + 1 < best ? above + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            diagonal = above;
            row[j] = best;
        }
    }
    return row[lb];
}

static const char *nearest(const char *key, const struct er_opt *opts, size_t count) {
    const char *best = NULL;
    size_t least = 3;
    for (size_t i = 0; i < count; i++) {
        size_t d = distance(key, opts[i].key);
        if (d < least) {
            least = d;
            best = opts[i].key;
        }
    }
    return best;
}

static void check_known(lua_State *L, int table, const struct er_opt *opts, size_t count) {
    lua_pushnil(L);
    while (lua_next(L, table)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING) {
            luaL_error(L, "options have names, this one is a %s", luaL_typename(L, -1));
        }
        const char *key = lua_tostring(L, -1);
        bool known = false;
        for (size_t i = 0; i < count && !known; i++) {
            known = strcmp(opts[i].key, key) == 0;
        }
        if (!known) {
            const char *near = nearest(key, opts, count);
            luaL_error(L, near ? "unknown option '%s' (did you mean '%s'?)" : "unknown option '%s'", key, near);
        }
    }
}

static void wrong_type(lua_State *L, const struct er_opt *opt, const char *expected) {
    luaL_error(L, "option '%s' must be %s, not %s", opt->key, expected, luaL_typename(L, -1));
}

static void read_string(lua_State *L, const struct er_opt *opt, char *into) {
    size_t length;
    if (lua_type(L, -1) != LUA_TSTRING) {
        wrong_type(L, opt, "a string");
    }
    const char *text = lua_tolstring(L, -1, &length);
    memcpy(into + opt->offset, &text, sizeof text);
    if (opt->length_offset) {
        memcpy(into + opt->length_offset, &length, sizeof length);
    } else if (strlen(text) != length) {
        luaL_error(L, "option '%s' contains a NUL byte", opt->key);
    }
}

static void read_number(lua_State *L, const struct er_opt *opt, char *into) {
    int is_number;
    lua_Number number = lua_tonumberx(L, -1, &is_number);
    if (!is_number || lua_type(L, -1) != LUA_TNUMBER) {
        wrong_type(L, opt, "a number");
    }
    if (opt->type == ER_OPT_NUMBER) {
        double value = number;
        memcpy(into + opt->offset, &value, sizeof value);
        return;
    }
    if (!(number >= 0) || number > 9e9) {
        luaL_error(L, "option '%s' must be seconds from 0 to 9e9", opt->key);
    }
    int64_t ns = (int64_t)(number * 1e9);
    memcpy(into + opt->offset, &ns, sizeof ns);
}

static void read_integer(lua_State *L, const struct er_opt *opt, char *into) {
    int is_integer;
    int64_t value = lua_tointegerx(L, -1, &is_integer);
    if (!is_integer || lua_type(L, -1) != LUA_TNUMBER) {
        wrong_type(L, opt, "an integer");
    }
    memcpy(into + opt->offset, &value, sizeof value);
}

static void read_boolean(lua_State *L, const struct er_opt *opt, char *into) {
    if (!lua_isboolean(L, -1)) {
        wrong_type(L, opt, "true or false");
    }
    bool value = lua_toboolean(L, -1);
    memcpy(into + opt->offset, &value, sizeof value);
}

static void read_opt(lua_State *L, const struct er_opt *opt, char *into) {
    switch (opt->type) {
    case ER_OPT_STRING:
        read_string(L, opt, into);
        break;
    case ER_OPT_INTEGER:
        read_integer(L, opt, into);
        break;
    case ER_OPT_NUMBER:
    case ER_OPT_SECONDS:
        read_number(L, opt, into);
        break;
    case ER_OPT_BOOLEAN:
        read_boolean(L, opt, into);
        break;
    case ER_OPT_ANY:
        break;
    }
}

void er_read_opts(lua_State *L, int table, const struct er_opt *opts, size_t count, void *into) {
    table = lua_absindex(L, table);
    luaL_checktype(L, table, LUA_TTABLE);
    luaL_checkstack(L, 4, NULL);
    check_known(L, table, opts, count);
    for (size_t i = 0; i < count; i++) {
        if (lua_getfield(L, table, opts[i].key) != LUA_TNIL) {
            read_opt(L, &opts[i], into);
        } else if (opts[i].required) {
            luaL_error(L, "option '%s' is missing", opts[i].key);
        }
        lua_pop(L, 1);
    }
}
