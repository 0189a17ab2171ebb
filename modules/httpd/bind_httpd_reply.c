// SPDX-License-Identifier: Apache-2.0
// Replies as Lua gives them.
#include "bind_httpd.h"

#include <string.h>

// What a reply refers to must outlive the sending, even where the task that waits for it does not: while bytes are on
// their way the registry holds them, under the request's address.
static void anchor(lua_State *L, struct httpd_request *request, int index) {
    lua_pushvalue(L, index);
    lua_rawsetp(L, LUA_REGISTRYINDEX, request);
    request->anchored = true;
}

void httpd_release_anchor(lua_State *L, struct httpd_request *request) {
    if (request->anchored) {
        request->anchored = false;
        lua_pushnil(L);
        lua_rawsetp(L, LUA_REGISTRYINDEX, request);
    }
}

static void cancel_reply(struct er_op *op) {
    struct httpd_request *request = (struct httpd_request *)((char *)op - offsetof(struct httpd_request, reply));
    if (request->req) {
        er_httpd_req_abort(request->req); // a reply that stops in the middle must not look whole
    }
    er_op_done(op);
}

static int push_result(lua_State *L, struct httpd_request *request) {
    httpd_release_anchor(L, request);
    struct er_error err;
    if (er_httpd_reply_result(request->req, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int k_reply(lua_State *L, int status, lua_KContext context) {
    (void)status, (void)context;
    er_task_check(L);
    return push_result(L, httpd_check_request(L, 1));
}

// Waits until what was handed over is sent. `bytes` is the index of the value that holds it, 0 for none.
static int wait_reply(lua_State *L, struct httpd_request *request, int bytes) {
    if (!er_httpd_reply_pending(request->req)) {
        return push_result(L, request);
    }
    if (bytes) {
        anchor(L, request, bytes);
    }
    return er_op_wait(L, &request->reply, cancel_reply, k_reply, 0);
}

// Misuse raises, the rest is nil, err.
static int fail(lua_State *L, const struct er_error *err) {
    return err->status == ER_INVALID ? luaL_error(L, "%s", err->message) : er_push_fail(L, err);
}

// A header's value at the top of the stack: a string, a number or a secret. [-0, +0, v]
static const char *check_value(lua_State *L, const char *name, size_t *length) {
    if (lua_type(L, -1) == LUA_TNUMBER) {
        return lua_tolstring(L, -1, length); // a copy on the stack, not a key: may become a string
    }
    const char *value = er_to_bytes(L, -1, length);
    if (!value) {
        luaL_error(L, "header %s: a string expected, got %s", name, luaL_typename(L, -1));
    }
    return value;
}

static void add_field(lua_State *L, struct er_httpd_req *req, const char *name, size_t name_length) {
    size_t length;
    const char *value = check_value(L, name, &length);
    struct er_error err;
    if (er_httpd_reply_field(req, name, name_length, value, length, &err) != ER_OK) {
        luaL_error(L, "%s", err.message);
    }
}

// { {name, value}, ... } in that order.
static void add_pairs(lua_State *L, struct er_httpd_req *req, int table, lua_Integer count) {
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, table, i);
        if (!lua_istable(L, -1)) {
            luaL_error(L, "header %I: a pair of name and value expected, got %s", (LUAI_UACINT)i, luaL_typename(L, -1));
        }
        lua_rawgeti(L, -1, 1);
        size_t length;
        const char *name = lua_tolstring(L, -1, &length);
        if (!name) {
            luaL_error(L, "header %I has no name", (LUAI_UACINT)i);
        }
        lua_rawgeti(L, -2, 2);
        add_field(L, req, name, length);
        lua_pop(L, 3);
    }
}

enum { MAX_NAMES = 64 };

static void insert_sorted(const char **names, size_t count, const char *name) {
    size_t at = count;
    while (at > 0 && strcmp(names[at - 1], name) > 0) {
        names[at] = names[at - 1];
        at--;
    }
    names[at] = name;
}

// { name = value }, sorted by name: the order of pairs differs from run to run.
static void add_map(lua_State *L, struct er_httpd_req *req, int table) {
    const char *names[MAX_NAMES]; // owned by the table's keys
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table);) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING) {
            luaL_error(L, "a header's name must be a string, got %s", luaL_typename(L, -1));
        }
        if (count == MAX_NAMES) {
            luaL_error(L, "more than %d headers: give a list of pairs", MAX_NAMES);
        }
        insert_sorted(names, count++, lua_tostring(L, -1));
    }
    for (size_t i = 0; i < count; i++) {
        lua_getfield(L, table, names[i]);
        add_field(L, req, names[i], strlen(names[i]));
        lua_pop(L, 1);
    }
}

static void add_headers(lua_State *L, struct er_httpd_req *req, int index) {
    if (lua_isnoneornil(L, index)) {
        return;
    }
    luaL_checktype(L, index, LUA_TTABLE);
    lua_Integer count = (lua_Integer)lua_rawlen(L, index);
    if (count > 0) {
        add_pairs(L, req, index, count);
    } else {
        add_map(L, req, index);
    }
}

// Checks and begins: the request at 1, the status at 2, the headers at 3. [-0, +0, v]
static struct httpd_request *begin(lua_State *L, const char *what) {
    struct httpd_request *request = httpd_check_request(L, 1);
    lua_Integer status = luaL_checkinteger(L, 2);
    er_task_check_yieldable(L, what);
    struct er_error err;
    int narrow = status < 0 || status > 999 ? 0 : (int)status;
    if (er_httpd_reply_begin(request->req, narrow, &err) != ER_OK) {
        luaL_error(L, "%s", err.message);
    }
    add_headers(L, request->req, 3);
    return request;
}

// req:respond(status, headers, body) -> true | nil, err
static int l_respond(lua_State *L) {
    lua_settop(L, 4);
    size_t length = 0;
    const char *body = lua_isnil(L, 4) ? "" : er_check_bytes(L, 4, &length);
    struct httpd_request *request = begin(L, "respond");
    struct er_error err;
    if (er_httpd_reply_whole(request->req, body, length, &err) != ER_OK) {
        return fail(L, &err);
    }
    return wait_reply(L, request, 4);
}

// req:respond_file(status, headers, path, offset, length) -> true | nil, err
static int l_respond_file(lua_State *L) {
    lua_settop(L, 6);
    const char *path = luaL_checkstring(L, 4);
    lua_Integer offset = luaL_checkinteger(L, 5), length = luaL_checkinteger(L, 6);
    luaL_argcheck(L, offset >= 0, 5, "not an offset");
    luaL_argcheck(L, length >= 0, 6, "not a length");
    struct httpd_request *request = begin(L, "respond_file");
    struct er_error err;
    if (er_httpd_reply_file(request->req, path, (uint64_t)offset, (uint64_t)length, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    return wait_reply(L, request, 0);
}

// req:start(status, headers) -> true | nil, err
static int l_start(lua_State *L) {
    lua_settop(L, 3);
    struct httpd_request *request = begin(L, "start");
    struct er_error err;
    if (er_httpd_reply_stream(request->req, &err) != ER_OK) {
        return fail(L, &err);
    }
    return wait_reply(L, request, 0);
}

static struct httpd_request *check_streaming(lua_State *L, const char *what) {
    struct httpd_request *request = httpd_check_request(L, 1);
    er_task_check_yieldable(L, what);
    if (!er_httpd_reply_streaming(request->req)) {
        luaL_error(L, "%s: no reply was started, or it is finished", what);
    }
    if (er_httpd_reply_pending(request->req)) {
        luaL_error(L, "%s: another task is writing this reply", what);
    }
    return request;
}

// req:write(bytes) -> true | nil, err, once they are sent
static int l_write(lua_State *L) {
    size_t length;
    const char *bytes = er_check_bytes(L, 2, &length);
    struct httpd_request *request = check_streaming(L, "write");
    struct er_error err;
    if (er_httpd_reply_write(request->req, bytes, length, &err) != ER_OK) {
        return fail(L, &err);
    }
    return wait_reply(L, request, 2);
}

// req:finish() -> true | nil, err
static int l_finish(lua_State *L) {
    struct httpd_request *request = check_streaming(L, "finish");
    struct er_error err;
    if (er_httpd_reply_finish(request->req, &err) != ER_OK) {
        return fail(L, &err);
    }
    return wait_reply(L, request, 0);
}

const luaL_Reg httpd_reply_methods[] = {
    {"finish", l_finish}, {"respond", l_respond}, {"respond_file", l_respond_file},
    {"start", l_start},   {"write", l_write},     {NULL, NULL},
};
