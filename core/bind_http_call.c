// SPDX-License-Identifier: Apache-2.0
// Options of one request, from the Lua stack into a struct er_http_call.
#include "bind_digests.h"
#include "bind_http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct er_bytes er_read_bytes(lua_State *L, int table, const char *key) {
    struct er_bytes bytes = {0};
    if (lua_getfield(L, table, key) != LUA_TNIL) {
        bytes.data = er_to_bytes(L, -1, &bytes.length);
        if (!bytes.data) {
            luaL_error(L, "option '%s' must be a string or a secret, not %s", key, luaL_typename(L, -1));
        }
    }
    return bytes;
}

// ---- headers

static struct er_bytes header_name(lua_State *L, int index) {
    struct er_bytes name = {0};
    if (lua_type(L, index) != LUA_TSTRING) {
        luaL_error(L, "the name of a header must be a string, not %s", luaL_typename(L, index));
    }
    name.data = lua_tolstring(L, index, &name.length);
    return name;
}

static struct er_bytes header_value(lua_State *L, int index, const char *name) {
    struct er_bytes value = {0};
    value.data = er_to_bytes(L, index, &value.length);
    if (!value.data) {
        luaL_error(L, "the value of header '%s' must be a string or a secret, not %s", name, luaL_typename(L, index));
    }
    return value;
}

static int compare_names(const void *a, const void *b) {
    const struct er_http_pair *left = a, *right = b;
    return strcasecmp(left->name.data, right->name.data);
}

// {name = value}: sent in the order of the names, since the order of a Lua table differs from run to run.
static size_t read_map(lua_State *L, int table, struct er_http_pair *pairs) {
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        pairs[count].name = header_name(L, -2);
        pairs[count].value = header_value(L, -1, pairs[count].name.data);
        count++;
    }
    qsort(pairs, count, sizeof *pairs, compare_names);
    return count;
}

// {{name, value}, ...}
static size_t read_list(lua_State *L, int table, struct er_http_pair *pairs) {
    size_t count = lua_rawlen(L, table);
    for (size_t i = 0; i < count; i++) {
        if (lua_rawgeti(L, table, (lua_Integer)i + 1) != LUA_TTABLE) {
            luaL_error(L, "header %d must be a table {name, value}, not %s", (int)i + 1, luaL_typename(L, -1));
        }
        lua_rawgeti(L, -1, 1);
        lua_rawgeti(L, -2, 2);
        pairs[i].name = header_name(L, -2);
        pairs[i].value = header_value(L, -1, pairs[i].name.data);
        lua_pop(L, 3);
    }
    return count;
}

static size_t count_fields(lua_State *L, int table) {
    size_t count = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        count++;
    }
    return count;
}

// The strings live as long as the table, which stays on the stack with the array of pairs.
static void read_headers(lua_State *L, int index, struct er_http_call *call) {
    if (lua_getfield(L, index, "headers") == LUA_TNIL) {
        return;
    }
    if (!lua_istable(L, -1)) {
        luaL_error(L, "option 'headers' must be a table, not %s", luaL_typename(L, -1));
    }
    int table = lua_gettop(L);
    size_t most = count_fields(L, table);
    struct er_http_pair *pairs = lua_newuserdatauv(L, (most + 1) * sizeof *pairs, 0);
    call->header_count = lua_rawlen(L, table) ? read_list(L, table, pairs) : read_map(L, table, pairs);
    call->headers = pairs;
}

// ---- body and sink

struct file_range {
    const char *file;
    int64_t offset, length;
};

static void check_range(lua_State *L, const char *what, int64_t number, int64_t least) {
    if (number < least) {
        luaL_error(L, "option '%s' cannot be negative", what);
    }
}

static void read_body(lua_State *L, int index, struct er_http_call *call) {
    static const struct er_opt opts[] = {
        {.key = "file", .type = ER_OPT_STRING, .offset = offsetof(struct file_range, file), .required = true},
        {.key = "offset", .type = ER_OPT_INTEGER, .offset = offsetof(struct file_range, offset)},
        {.key = "length", .type = ER_OPT_INTEGER, .offset = offsetof(struct file_range, length)},
    };
    if (lua_getfield(L, index, "body") == LUA_TTABLE) {
        struct file_range range = {.length = -1};
        er_read_opts(L, -1, opts, sizeof opts / sizeof *opts, &range);
        check_range(L, "offset", range.offset, 0);
        check_range(L, "length", range.length, -1);
        call->body_file = range.file;
        call->body_offset = range.offset;
        call->body_length = range.length;
    } else if (!lua_isnil(L, -1)) {
        call->body.data = er_to_bytes(L, -1, &call->body.length);
        if (!call->body.data) {
            luaL_error(L, "option 'body' must be a string, a secret or {file=...}, not %s", luaL_typename(L, -1));
        }
    }
}

static void read_sink(lua_State *L, int index, struct er_http_call *call) {
    static const struct er_opt opts[] = {
        {.key = "file", .type = ER_OPT_STRING, .offset = offsetof(struct file_range, file), .required = true},
        {.key = "offset", .type = ER_OPT_INTEGER, .offset = offsetof(struct file_range, offset)},
        {.key = "digest", .type = ER_OPT_ANY},
    };
    if (lua_getfield(L, index, "sink") == LUA_TNIL) {
        return;
    }
    int sink = lua_gettop(L);
    struct file_range range = {.offset = -1};
    er_read_opts(L, sink, opts, sizeof opts / sizeof *opts, &range);
    check_range(L, "offset", range.offset, -1);
    call->sink_file = range.file;
    call->sink_offset = range.offset;
    if (lua_getfield(L, sink, "digest") != LUA_TNIL) {
        call->digests = er_check_digests(L, lua_gettop(L));
    }
}

// ---- all

struct options {
    struct er_http_call call;
    const char *http_version;
};
#define CALL(field) offsetof(struct options, call.field)

static const struct er_opt call_opts[] = {
    {.key = "method", .type = ER_OPT_STRING, .offset = CALL(method)},
    {.key = "url", .type = ER_OPT_STRING, .offset = CALL(url), .required = true},
    {.key = "headers", .type = ER_OPT_ANY},
    {.key = "body", .type = ER_OPT_ANY},
    {.key = "sink", .type = ER_OPT_ANY},
    {.key = "timeout", .type = ER_OPT_SECONDS, .offset = CALL(timeout)},
    {.key = "connect_timeout", .type = ER_OPT_SECONDS, .offset = CALL(connect_timeout)},
    {.key = "stall_timeout", .type = ER_OPT_SECONDS, .offset = CALL(stall_timeout)},
    {.key = "max_body", .type = ER_OPT_INTEGER, .offset = CALL(max_body)},
    {.key = "http_version", .type = ER_OPT_STRING, .offset = offsetof(struct options, http_version)},
    {.key = "expect_close", .type = ER_OPT_BOOLEAN, .offset = CALL(expect_close)},
    {.key = "decompress", .type = ER_OPT_BOOLEAN, .offset = CALL(decompress)},
    {.key = "follow", .type = ER_OPT_BOOLEAN, .offset = CALL(follow)},
};

void er_read_call(lua_State *L, int index, struct er_http_call *call) {
    luaL_checkstack(L, 12, NULL);
    struct options options = {.call = *call};
    options.call.method = "GET";
    er_read_opts(L, index, call_opts, sizeof call_opts / sizeof *call_opts, &options);
    const char *version = options.http_version;
    if (version && strcmp(version, "1.1") != 0 && strcmp(version, "2") != 0) {
        luaL_error(L, "option 'http_version' must be '1.1' or '2', not '%s'", version);
    }
    options.call.http2 = version && version[0] == '2';
    check_range(L, "max_body", options.call.max_body, 0);
    if (options.call.stream && options.call.follow) {
        luaL_error(L, "option 'follow' is for request, not for open");
    }
    if (options.call.feeds && options.call.follow) {
        luaL_error(L, "option 'follow' is for request, not for upload");
    }
    *call = options.call;
    read_headers(L, index, call);
    read_body(L, index, call);
    if (call->feeds && (call->body.data || call->body_file)) {
        luaL_error(L, "an upload has no option 'body': it is written");
    }
    read_sink(L, index, call);
}
