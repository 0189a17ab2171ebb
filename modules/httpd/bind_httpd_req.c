// SPDX-License-Identifier: Apache-2.0
// Requests as Lua sees them: fields, headers, query, body.
#include "bind_digests.h"
#include "bind_http.h"
#include "bind_httpd.h"

#include <limits.h>
#include <string.h>

static const int64_t default_body_max = INT64_C(64) << 20;

struct httpd_request *httpd_check_request(lua_State *L, int index) {
    struct httpd_request *request = luaL_checkudata(L, index, HTTPD_REQUEST);
    if (!request->req) {
        luaL_error(L, "the request is over");
    }
    return request;
}

// Wakes whoever waits for something that has come to pass.
static void on_wake(void *user) {
    struct httpd_request *request = user;
    if (!er_httpd_body_pending(request->req)) {
        er_op_done(&request->body);
    }
    if (!er_httpd_reply_pending(request->req)) {
        er_op_done(&request->reply);
    }
    if (er_httpd_req_peer_closed(request->req)) {
        er_op_done(&request->closed);
    }
}

struct httpd_request *httpd_push_request(lua_State *L, struct er_httpd *server) {
    struct httpd_request *request = er_handle_new(L, sizeof *request, HTTPD_REQUEST);
    request->req = er_httpd_next(server);
    er_httpd_req_watch(request->req, on_wake, request);
    return request;
}

void httpd_close_request(lua_State *L, struct httpd_request *request) {
    struct er_httpd_req *req = request->req;
    request->req = NULL;
    if (req) {
        er_httpd_req_free(req);
        er_op_done(&request->body);
        er_op_done(&request->reply);
        er_op_done(&request->closed);
        httpd_release_anchor(L, request);
    }
}

static int l_request_close(lua_State *L) {
    httpd_close_request(L, luaL_checkudata(L, 1, HTTPD_REQUEST));
    return 0;
}

static void push_bytes(lua_State *L, struct er_httpd_bytes bytes) { lua_pushlstring(L, bytes.data, bytes.length); }

static void make_headers(lua_State *L, const struct er_httpd_head *head) {
    lua_createtable(L, head->field_count < INT_MAX ? (int)head->field_count : 0, 0);
    for (size_t i = 0; i < head->field_count; i++) {
        const struct er_httpd_field *field = &head->fields[i];
        lua_createtable(L, 2, 0);
        lua_pushlstring(L, head->text + field->name, field->name_length);
        lua_rawseti(L, -2, 1);
        lua_pushlstring(L, head->text + field->value, field->value_length);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    er_push_headers_metatable(L);
    lua_setmetatable(L, -2);
}

// Made when first asked for, then kept in the request's user value. [-0, +1, m]
static void push_headers(lua_State *L, const struct er_httpd_head *head) {
    if (lua_getiuservalue(L, 1, 1) == LUA_TNIL) {
        lua_pop(L, 1);
        make_headers(L, head);
        lua_pushvalue(L, -1);
        lua_setiuservalue(L, 1, 1);
    }
}

// req:header(name) -> the first value | nil, without making the table of all
static int l_header(lua_State *L) {
    const struct httpd_request *request = httpd_check_request(L, 1);
    size_t length;
    const char *name = luaL_checklstring(L, 2, &length);
    struct er_httpd_bytes value;
    if (er_httpd_req_field(request->req, name, length, &value)) {
        push_bytes(L, value);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// Percent and plus decoding; a stray percent sign stays as it is. [-0, +1, m]
static void push_decoded(lua_State *L, const char *text, size_t length) {
    luaL_Buffer buffer;
    char *out = luaL_buffinitsize(L, &buffer, length);
    size_t used = 0;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '+') {
            c = ' ';
        } else if (c == '%' && i + 2 < length && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
            c = (char)(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
            i += 2;
        }
        out[used++] = c;
    }
    luaL_pushresultsize(&buffer, used);
}

// Splits the next pair off; key and value are pushed decoded. [-0, +2 or 0, m]
static bool push_pair(lua_State *L, struct er_httpd_bytes *query) {
    while (query->length > 0 && *query->data == '&') {
        query->data++;
        query->length--;
    }
    if (query->length == 0) {
        return false;
    }
    const char *end = memchr(query->data, '&', query->length);
    size_t length = end ? (size_t)(end - query->data) : query->length;
    const char *equals = memchr(query->data, '=', length);
    size_t key = equals ? (size_t)(equals - query->data) : length;
    push_decoded(L, query->data, key);
    push_decoded(L, query->data + (equals ? key + 1 : length), equals ? length - key - 1 : 0);
    query->data += length;
    query->length -= length;
    return true;
}

// req:query() -> { key = value }, decoded; the last of several wins
static int l_query(lua_State *L) {
    struct er_httpd_bytes query = er_httpd_req_head(httpd_check_request(L, 1)->req)->query;
    lua_newtable(L);
    while (push_pair(L, &query)) {
        lua_rawset(L, -3);
    }
    return 1;
}

// req:query_list() -> { {key, value}... }, decoded, in order
static int l_query_list(lua_State *L) {
    struct er_httpd_bytes query = er_httpd_req_head(httpd_check_request(L, 1)->req)->query;
    lua_newtable(L);
    for (lua_Integer i = 1; push_pair(L, &query); i++) {
        lua_createtable(L, 2, 0);
        lua_insert(L, -3);
        lua_rawseti(L, -3, 2);
        lua_rawseti(L, -2, 1);
        lua_rawseti(L, -2, i);
    }
    return 1;
}

static void cancel_body(struct er_op *op) {
    struct httpd_request *request = (struct httpd_request *)((char *)op - offsetof(struct httpd_request, body));
    if (request->req) {
        er_httpd_body_cancel(request->req);
    }
    er_op_done(op);
}

static int push_file_result(lua_State *L, const struct er_httpd_req *req) {
    lua_newtable(L);
    lua_pushinteger(L, (lua_Integer)er_httpd_body_size(req));
    lua_setfield(L, -2, "size");
    er_set_digests(L, er_httpd_body_digests(req));
    return 1;
}

static int push_body(lua_State *L, const struct httpd_request *request) {
    struct er_error err;
    if (er_httpd_body_result(request->req, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    if (request->body_to_file) {
        return push_file_result(L, request->req);
    }
    const struct er_buf *memory = er_httpd_body_memory(request->req);
    lua_pushlstring(L, memory->data ? memory->data : "", memory->length);
    return 1;
}

static int k_body(lua_State *L, int status, lua_KContext context) {
    (void)status, (void)context;
    er_task_check(L);
    return push_body(L, httpd_check_request(L, 1));
}

static int wait_body(lua_State *L, struct httpd_request *request) {
    return er_httpd_body_pending(request->req) ? er_op_wait(L, &request->body, cancel_body, k_body, 0)
                                               : push_body(L, request);
}

static void check_body_free(lua_State *L, const struct httpd_request *request, bool to_file) {
    if (er_op_waiting(&request->body)) {
        luaL_error(L, "another task reads this body");
    }
    if (er_httpd_body_taken(request->req) && (to_file || request->body_to_file)) {
        luaL_error(L, "the body was read before");
    }
}

// req:body([max]) -> string | nil, err. A second call gives the same string.
static int l_body(lua_State *L) {
    struct httpd_request *request = httpd_check_request(L, 1);
    lua_Integer max = luaL_optinteger(L, 2, default_body_max);
    luaL_argcheck(L, max >= 0, 2, "not a size");
    er_task_check_yieldable(L, "body");
    check_body_free(L, request, false);
    if (!er_httpd_body_taken(request->req)) {
        er_httpd_body_to_memory(request->req, (size_t)max);
    }
    return wait_body(L, request);
}

struct file_opts {
    int64_t max;
};

static void read_file_opts(lua_State *L, int index, struct file_opts *opts, unsigned *digests) {
    static const struct er_opt table[] = {
        {"digest", ER_OPT_ANY, 0, 0, false},
        {"max", ER_OPT_INTEGER, offsetof(struct file_opts, max), 0, false},
    };
    if (lua_isnoneornil(L, index)) {
        return;
    }
    luaL_checktype(L, index, LUA_TTABLE);
    er_read_opts(L, index, table, sizeof table / sizeof *table, opts);
    luaL_argcheck(L, opts->max >= 0, index, "max is not a size");
    if (lua_getfield(L, index, "digest") != LUA_TNIL) {
        *digests = er_check_digests(L, lua_gettop(L));
    }
    lua_pop(L, 1);
}

// req:body_to_file(path, { digest = {...}, max = }) -> { size=, md5=, sha256=, crc64= } | nil, err
static int l_body_to_file(lua_State *L) {
    struct httpd_request *request = httpd_check_request(L, 1);
    const char *path = luaL_checkstring(L, 2);
    struct file_opts opts = {.max = INT64_MAX};
    unsigned digests = 0;
    read_file_opts(L, 3, &opts, &digests);
    er_task_check_yieldable(L, "body_to_file");
    check_body_free(L, request, true);
    request->body_to_file = true;
    er_httpd_body_to_file(request->req, path, digests, (uint64_t)opts.max);
    return wait_body(L, request);
}

// req:closed() -> the peer has ended its side, or the connection is gone
static int l_closed(lua_State *L) {
    lua_pushboolean(L, er_httpd_req_peer_closed(httpd_check_request(L, 1)->req));
    return 1;
}

static int k_closed(lua_State *L, int status, lua_KContext context) {
    (void)status, (void)context;
    er_task_check(L);
    lua_pushboolean(L, 1);
    return 1;
}

// req:wait_closed() -> true, once closed() is
static int l_wait_closed(lua_State *L) {
    struct httpd_request *request = httpd_check_request(L, 1);
    er_task_check_yieldable(L, "wait_closed");
    if (er_httpd_req_peer_closed(request->req)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    if (er_op_waiting(&request->closed)) {
        return luaL_error(L, "another task waits for the end of this connection");
    }
    return er_op_wait(L, &request->closed, er_op_done, k_closed, 0);
}

// req:abort(): cuts the connection
static int l_abort(lua_State *L) {
    er_httpd_req_abort(httpd_check_request(L, 1)->req);
    return 0;
}

enum field {
    FIELD_METHOD = 1,
    FIELD_TARGET,
    FIELD_PATH,
    FIELD_QUERY_STRING,
    FIELD_HEADERS,
    FIELD_HOST,
    FIELD_VERSION,
    FIELD_PEER,
    FIELD_PEER_CN,
    FIELD_PEER_ORGANIZATIONS,
    FIELD_TLS,
    FIELD_SNI,
    FIELD_LOCAL_PORT,
};

static const char *const field_names[] = {
    [FIELD_METHOD] = "method",
    [FIELD_TARGET] = "target",
    [FIELD_PATH] = "path",
    [FIELD_QUERY_STRING] = "query_string",
    [FIELD_HEADERS] = "headers",
    [FIELD_HOST] = "host",
    [FIELD_VERSION] = "version",
    [FIELD_PEER] = "peer",
    [FIELD_PEER_CN] = "peer_cn",
    [FIELD_PEER_ORGANIZATIONS] = "peer_organizations",
    [FIELD_TLS] = "tls",
    [FIELD_SNI] = "sni",
    [FIELD_LOCAL_PORT] = "local_port",
};

static void push_or_nil(lua_State *L, const char *text) {
    if (*text) {
        lua_pushstring(L, text);
    } else {
        lua_pushnil(L);
    }
}

static void push_lines(lua_State *L, const char *text) {
    lua_newtable(L);
    for (lua_Integer i = 1; *text; i++) {
        size_t length = strcspn(text, "\n");
        lua_pushlstring(L, text, length);
        lua_rawseti(L, -2, i);
        text += length + (text[length] == '\n');
    }
}

static void push_host(lua_State *L, const struct er_httpd_req *req) {
    struct er_httpd_bytes host = {"", 0};
    er_httpd_req_field(req, "host", 4, &host);
    push_bytes(L, host);
}

static void push_field(lua_State *L, const struct er_httpd_req *req, enum field field) {
    const struct er_httpd_head *head = er_httpd_req_head(req);
    switch (field) {
    case FIELD_METHOD:
        lua_pushstring(L, head->method);
        break;
    case FIELD_TARGET:
        push_bytes(L, head->target);
        break;
    case FIELD_PATH:
        push_bytes(L, head->path);
        break;
    case FIELD_QUERY_STRING:
        push_bytes(L, head->query);
        break;
    case FIELD_HEADERS:
        push_headers(L, head);
        break;
    case FIELD_HOST:
        push_host(L, req);
        break;
    case FIELD_VERSION:
        lua_pushstring(L, head->minor ? "1.1" : "1.0");
        break;
    case FIELD_PEER:
        lua_pushstring(L, head->peer->address);
        break;
    case FIELD_PEER_CN:
        push_or_nil(L, head->peer->cn);
        break;
    case FIELD_PEER_ORGANIZATIONS:
        push_lines(L, head->peer->organizations);
        break;
    case FIELD_TLS:
        lua_pushboolean(L, head->peer->tls);
        break;
    case FIELD_SNI:
        push_or_nil(L, head->peer->sni);
        break;
    case FIELD_LOCAL_PORT:
        lua_pushinteger(L, head->peer->local_port);
        break;
    }
}

// Methods are functions in the first upvalue, fields are numbers there.
static int l_request_index(lua_State *L) {
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1));
    if (lua_type(L, -1) == LUA_TNUMBER) {
        enum field field = (enum field)lua_tointeger(L, -1);
        push_field(L, httpd_check_request(L, 1)->req, field);
    }
    return 1;
}

static const luaL_Reg methods[] = {
    {"abort", l_abort},   {"body", l_body},   {"body_to_file", l_body_to_file}, {"closed", l_closed},
    {"header", l_header}, {"query", l_query}, {"query_list", l_query_list},     {"wait_closed", l_wait_closed},
    {NULL, NULL},
};

void httpd_request_type(lua_State *L) {
    er_handle_type(L, HTTPD_REQUEST, NULL, l_request_close);
    luaL_getmetatable(L, HTTPD_REQUEST);
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    luaL_setfuncs(L, httpd_reply_methods, 0);
    for (size_t i = 1; i < sizeof field_names / sizeof *field_names; i++) {
        lua_pushinteger(L, (lua_Integer)i);
        lua_setfield(L, -2, field_names[i]);
    }
    lua_pushcclosure(L, l_request_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}
