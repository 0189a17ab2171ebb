// SPDX-License-Identifier: Apache-2.0
// eirun.core.http: client(opts) -> c; c:request{...}, c:open{...}, c:close(); routes{...}.
#include "bind_http.h"
#include "bind_digests.h"

#include <string.h>
#include <strings.h>

#define CLIENT "eirun.http.client"
#define REPLY "eirun.http.reply"
#define STREAM "eirun.http.stream"
#define UPLOAD "eirun.http.upload"
#define ROUTES "eirun.http.routes"

static const int64_t SECOND = 1000000000;
enum { MAX_REDIRECTS = 10 };

struct client_box {
    struct er_http_client *client; // NULL: closed
};
struct reply_box {
    struct er_http_reply *reply; // NULL: closed
    bool sink;                   // a good answer went to a file
    int redirects;               // that may still be followed
    struct er_timer timer;       // a stream's read that has a time-out
    bool timed_out;
};

// ---- routes: one table for the whole state, in its registry

static const char routes_key;

static int l_routes_close(lua_State *L) {
    er_routes_release(luaL_checkudata(L, 1, ROUTES));
    return 0;
}

const struct er_routes *er_http_routes(lua_State *L) {
    static const struct er_routes none;
    lua_rawgetp(L, LUA_REGISTRYINDEX, &routes_key);
    const struct er_routes *routes = lua_touserdata(L, -1);
    lua_pop(L, 1); // the registry keeps it
    return routes ? routes : &none;
}

struct route_row {
    const char *host, *unix_path, *address;
    int64_t port;
};

static bool is_address(const char *text) {
    char host[64];
    struct sockaddr_in6 ip;
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host || !colon[1] ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1)) {
        return false;
    }
    bool ipv6 = text[0] == '[' && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - text) - 2 * ipv6, text + ipv6);
    return ipv6 ? uv_ip6_addr(host, 0, &ip) == 0 : uv_ip4_addr(host, 0, (struct sockaddr_in *)&ip) == 0;
}

static void add_route(lua_State *L, struct er_routes *routes, int row) {
    static const struct er_opt opts[] = {
        {.key = "host", .type = ER_OPT_STRING, .offset = offsetof(struct route_row, host), .required = true},
        {.key = "port", .type = ER_OPT_INTEGER, .offset = offsetof(struct route_row, port)},
        {.key = "unix", .type = ER_OPT_STRING, .offset = offsetof(struct route_row, unix_path)},
        {.key = "address", .type = ER_OPT_STRING, .offset = offsetof(struct route_row, address)},
    };
    struct route_row from = {0};
    er_read_opts(L, row, opts, sizeof opts / sizeof *opts, &from);
    if (!from.unix_path == !from.address) {
        luaL_error(L, "route '%s' needs either 'unix' or 'address'", from.host);
    }
    if (from.address && !is_address(from.address)) {
        luaL_error(L, "route '%s': '%s' is not an ip address with a port", from.host, from.address);
    }
    if (from.port < 0 || from.port > 65535) {
        luaL_error(L, "route '%s': the port must be from 1 to 65535", from.host);
    }
    if (er_routes_add(routes, from.host, (uint16_t)from.port, from.unix_path, from.address) != ER_OK) {
        luaL_error(L, "not enough memory");
    }
}

// routes{ {host=, port=, unix=|address=}, ..., closed=bool }: takes the place of the table before. Raises on misuse.
static int l_routes(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    struct er_routes *routes = er_handle_new(L, sizeof *routes, ROUTES);
    for (lua_Integer i = 1; lua_geti(L, 1, i) != LUA_TNIL; i++) {
        luaL_checktype(L, -1, LUA_TTABLE);
        add_route(L, routes, lua_gettop(L));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    lua_getfield(L, 1, "closed");
    routes->closed = lua_toboolean(L, -1);
    lua_pop(L, 1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &routes_key);
    return 0;
}

// ---- client

struct client_options {
    struct er_http_options to;
    bool verify;
};
#define OPTION(field) offsetof(struct client_options, to.field)

static const struct er_opt client_opts[] = {
    {.key = "ca_file", .type = ER_OPT_STRING, .offset = OPTION(ca_file)},
    {.key = "ca_pem", .type = ER_OPT_ANY},
    {.key = "cert_pem", .type = ER_OPT_ANY},
    {.key = "key_pem", .type = ER_OPT_ANY},
    {.key = "tls_server_name", .type = ER_OPT_STRING, .offset = OPTION(tls_server_name)},
    {.key = "verify", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct client_options, verify)},
    {.key = "proxy", .type = ER_OPT_STRING, .offset = OPTION(proxy)},
    {.key = "user_agent", .type = ER_OPT_STRING, .offset = OPTION(user_agent)},
    {.key = "session_folder", .type = ER_OPT_STRING, .offset = OPTION(session_folder)},
    {.key = "max_connections", .type = ER_OPT_INTEGER, .offset = OPTION(max_connections)},
};

static void read_client_options(lua_State *L, struct client_options *options) {
    *options = (struct client_options){.verify = true, .to = {.user_agent = "eirun", .max_connections = 128}};
    if (lua_isnoneornil(L, 1)) {
        return;
    }
    er_read_opts(L, 1, client_opts, sizeof client_opts / sizeof *client_opts, options);
    options->to.insecure = !options->verify;
    luaL_argcheck(L, options->to.max_connections >= 1 && options->to.max_connections <= 100000, 1,
                  "max_connections must be from 1 to 100000");
    options->to.ca_pem = er_read_bytes(L, 1, "ca_pem");
    options->to.cert_pem = er_read_bytes(L, 1, "cert_pem");
    options->to.key_pem = er_read_bytes(L, 1, "key_pem");
}

// client([opts]) -> client | nil, err
static int l_client(lua_State *L) {
    struct client_options options;
    struct er_error err;
    read_client_options(L, &options);
    struct client_box *box = er_handle_new(L, sizeof *box, CLIENT);
    if (er_http_client_new(er_runtime_of(L), &options.to, &box->client, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    return 1;
}

static int l_client_close(lua_State *L) {
    struct client_box *box = luaL_checkudata(L, 1, CLIENT);
    struct er_http_client *client = box->client;
    box->client = NULL;
    if (client) {
        er_http_client_free(client);
    }
    return 0;
}

static struct er_http_client *check_client(lua_State *L) {
    struct client_box *box = luaL_checkudata(L, 1, CLIENT);
    luaL_argcheck(L, box->client, 1, "the client is closed");
    return box->client;
}

// ---- replies

static int l_reply_close(lua_State *L) {
    struct reply_box *box = luaL_testudata(L, 1, REPLY);
    box = box ? box : luaL_testudata(L, 1, UPLOAD);
    box = box ? box : luaL_checkudata(L, 1, STREAM);
    struct er_http_reply *reply = box->reply;
    er_timer_stop(er_runtime_of(L), &box->timer);
    box->reply = NULL;
    er_http_free(reply);
    return 0;
}

// `retryable`: true when trying again is safe, false when it is useless, nil when only the caller can know: the cause
// may pass, but a request that writes may already have arrived.
static int push_failure(lua_State *L, const struct er_http_reply *reply) {
    er_push_fail(L, &reply->error);
    if (!reply->retryable || !reply->sent || reply->reads) {
        lua_pushboolean(L, reply->retryable);
        lua_setfield(L, -2, "retryable");
    }
    lua_pushboolean(L, reply->sent);
    lua_setfield(L, -2, "sent");
    return 2;
}

// What request and open have in common, into the table on top. [-0, +0, m]
static void set_head(lua_State *L, const struct er_http_reply *reply) {
    lua_pushinteger(L, reply->status);
    lua_setfield(L, -2, "status");
    er_push_headers(L, &reply->headers);
    lua_setfield(L, -2, "headers");
    lua_pushstring(L, reply->version);
    lua_setfield(L, -2, "version");
    lua_pushstring(L, reply->remote);
    lua_setfield(L, -2, "remote");
    lua_pushboolean(L, reply->reused);
    lua_setfield(L, -2, "reused");
}

static int push_answer(lua_State *L, const struct reply_box *box) {
    const struct er_http_reply *reply = box->reply;
    lua_createtable(L, 0, 8);
    set_head(L, reply);
    lua_pushnumber(L, (double)reply->elapsed / 1e9);
    lua_setfield(L, -2, "seconds");
    if (box->sink && reply->status >= 200 && reply->status < 300) {
        lua_createtable(L, 0, 3);
        er_set_digests(L, reply->digests);
        lua_setfield(L, -2, "digests");
        return 1;
    }
    lua_pushlstring(L, reply->body.length ? reply->body.data : "", reply->body.length);
    lua_setfield(L, -2, "body");
    return 1;
}

static void cancel_reply(struct er_op *op) { er_http_cancel((struct er_http_reply *)op); } // op is its first member

// False: nil, err are on top. [-0, +(0|2), m]
static bool launch(lua_State *L, struct er_http_client *client, const struct er_http_call *call,
                   struct reply_box *box) {
    struct er_error err;
    if (er_http_start(client, er_http_routes(L), call, &box->reply, &err) == ER_OK) {
        return true;
    }
    er_push_fail(L, &err);
    lua_pushboolean(L, false);
    lua_setfield(L, -2, "sent");
    return false;
}

// Starts the call whose options are at 2 and leaves its box on top. NULL: nil, err are on top. [-0, +n, v]
static struct reply_box *start(lua_State *L, struct er_http_call *call, const char *type) {
    struct er_http_client *client = check_client(L);
    er_task_check_yieldable(L, "a request");
    er_task_check(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    er_read_call(L, 2, call);
    struct reply_box *box = er_handle_new(L, sizeof *box, type);
    return launch(L, client, call, box) ? box : NULL;
}

// ---- request

static const struct er_http_call request_defaults = {
    .connect_timeout = 15 * SECOND, .stall_timeout = 60 * SECOND, .max_body = 64 << 20, .sink_offset = -1};

static int k_request(lua_State *L, int status, lua_KContext place);
static int finish_request(lua_State *L, int place);

static int wait_for_answer(lua_State *L, int place, struct reply_box *box) {
    return box->reply->finished ? finish_request(L, place)
                                : er_op_wait(L, &box->reply->op, cancel_reply, k_request, place);
}

static bool same_origin(const char *a, const char *b) {
    struct er_url from, to;
    return er_url_parse(a, &from, NULL) == ER_OK && er_url_parse(b, &to, NULL) == ER_OK && from.tls == to.tls &&
           from.port == to.port && strcmp(from.host, to.host) == 0;
}

// What opens one house is not shown at another's door. The pairs are the call's own copy.
static void drop_credentials(struct er_http_call *call) {
    static const char *const names[] = {"authorization", "cookie"};
    struct er_http_pair *pairs = (struct er_http_pair *)call->headers;
    size_t kept = 0;
    for (size_t i = 0; i < call->header_count; i++) {
        bool credential = false;
        for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
            credential = credential || (pairs[i].name.length == strlen(names[k]) &&
                                        strncasecmp(pairs[i].name.data, names[k], pairs[i].name.length) == 0);
        }
        if (!credential) {
            pairs[kept++] = pairs[i];
        }
    }
    call->header_count = kept;
}

// The same call again at the place that the answer names; its options are still at 2.
static int follow(lua_State *L, int place, struct reply_box *box) {
    struct er_http_client *client = check_client(L);
    struct er_http_call call = request_defaults;
    lua_settop(L, place);
    er_read_call(L, 2, &call);
    const char *to = lua_pushstring(L, box->reply->redirect);
    if (!same_origin(call.url, to)) {
        drop_credentials(&call);
    }
    call.url = to;
    box->redirects--;
    er_http_free(box->reply);
    box->reply = NULL;
    return launch(L, client, &call, box) ? wait_for_answer(L, place, box) : 2;
}

static int finish_request(lua_State *L, int place) {
    struct reply_box *box = lua_touserdata(L, place);
    if (box->reply->redirect && box->reply->reads && box->redirects > 0) {
        return follow(L, place, box);
    }
    int results = box->reply->error.status == ER_OK ? push_answer(L, box) : push_failure(L, box->reply);
    er_http_free(box->reply);
    box->reply = NULL;
    return results;
}

static int k_request(lua_State *L, int status, lua_KContext place) {
    (void)status;
    er_task_check(L);
    return finish_request(L, (int)place);
}

// client:request{...} -> answer | nil, err
static int l_request(lua_State *L) {
    struct er_http_call call = request_defaults;
    struct reply_box *box = start(L, &call, REPLY);
    if (!box) {
        return 2;
    }
    box->sink = call.sink_file != NULL;
    box->redirects = MAX_REDIRECTS;
    return wait_for_answer(L, lua_gettop(L), box);
}

// ---- streams

// The stream's fields and its client, which must outlive it, are its user value. [-0, +0, m]
static void fill_stream(lua_State *L, int place, const struct er_http_reply *reply) {
    lua_createtable(L, 0, 6);
    set_head(L, reply);
    lua_pushvalue(L, 1);
    lua_rawseti(L, -2, 1);
    lua_setiuservalue(L, place, 1);
}

static int finish_open(lua_State *L, int place) {
    struct reply_box *box = lua_touserdata(L, place);
    if (box->reply->error.status != ER_OK && !box->reply->has_headers) {
        return push_failure(L, box->reply);
    }
    fill_stream(L, place, box->reply);
    lua_pushvalue(L, place);
    return 1;
}

static int k_open(lua_State *L, int status, lua_KContext context) {
    (void)status;
    er_task_check(L);
    return finish_open(L, (int)context);
}

// client:open{...} -> stream | nil, err
static int l_open(lua_State *L) {
    struct er_http_call call = {.connect_timeout = 15 * SECOND, .stream = true};
    struct reply_box *box = start(L, &call, STREAM);
    if (!box) {
        return 2;
    }
    if (box->reply->finished) {
        return finish_open(L, lua_gettop(L));
    }
    return er_op_wait(L, &box->reply->op, cancel_reply, k_open, lua_gettop(L));
}

static struct reply_box *check_stream(lua_State *L) {
    struct reply_box *box = luaL_checkudata(L, 1, STREAM);
    luaL_argcheck(L, box->reply, 1, "the stream is closed");
    return box;
}

static void on_read_timeout(struct er_timer *timer) {
    struct reply_box *box = (struct reply_box *)((char *)timer - offsetof(struct reply_box, timer));
    box->timed_out = true;
    er_op_done(&box->reply->op);
}

static void cancel_read(struct er_op *op) { er_op_done(op); } // the stream itself goes on

static int k_read(lua_State *L, int status, lua_KContext context);

static int read_stream(lua_State *L, struct reply_box *box) {
    struct er_http_reply *reply = box->reply;
    if (reply->body.length) {
        lua_pushlstring(L, reply->body.data, reply->body.length);
        er_http_consumed(reply);
        return 1;
    }
    if (reply->finished) {
        return reply->error.status == ER_OK ? 0 : push_failure(L, reply);
    }
    if (box->timed_out) {
        struct er_error err;
        er_fail(&err, ER_TIMEOUT, "nothing to read in time");
        return er_push_fail(L, &err);
    }
    return er_op_wait(L, &reply->op, cancel_read, k_read, 0);
}

static int k_read(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    struct reply_box *box = luaL_checkudata(L, 1, STREAM);
    if (box->timer.slot && (box->reply == NULL || box->reply->body.length || box->reply->finished)) {
        er_timer_stop(er_runtime_of(L), &box->timer);
    }
    er_task_check(L);
    return read_stream(L, check_stream(L));
}

// stream:read([timeout]) -> chunk | nil at the end | nil, err
static int l_read(lua_State *L) {
    struct reply_box *box = check_stream(L);
    double timeout = luaL_optnumber(L, 2, -1);
    luaL_argcheck(L, !er_op_waiting(&box->reply->op), 1, "another task is reading this stream");
    er_task_check_yieldable(L, "read");
    er_task_check(L);
    box->timed_out = false;
    bool waits = !box->reply->body.length && !box->reply->finished;
    if (waits && timeout >= 0) {
        struct er_runtime *rt = er_runtime_of(L);
        if (er_timer_start(rt, &box->timer, er_now(rt) + (int64_t)(timeout * 1e9), on_read_timeout) != ER_OK) {
            return luaL_error(L, "not enough memory");
        }
    }
    return read_stream(L, box);
}

static int l_stream_index(lua_State *L) {
    luaL_checkudata(L, 1, STREAM);
    if (lua_getiuservalue(L, 1, 1) == LUA_TTABLE) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, -2) != LUA_TNIL) {
            return 1;
        }
    }
    lua_pushvalue(L, 2);
    lua_rawget(L, lua_upvalueindex(1)); // methods
    return 1;
}

static void register_stream(lua_State *L) {
    static const luaL_Reg methods[] = {{"read", l_read}, {"close", l_reply_close}, {NULL, NULL}};
    er_handle_type(L, STREAM, methods, l_reply_close);
    luaL_getmetatable(L, STREAM);
    lua_getfield(L, -1, "__index");
    lua_pushcclosure(L, l_stream_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

// ---- uploads

static struct reply_box *check_upload(lua_State *L) {
    struct reply_box *box = luaL_checkudata(L, 1, UPLOAD);
    luaL_argcheck(L, box->reply, 1, "the upload is closed");
    luaL_argcheck(L, !er_op_waiting(&box->reply->op), 1, "another task waits for this upload");
    return box;
}

// client:upload{...} -> upload | nil, err: a request whose body is written piece by piece, in chunks on the wire.
static int l_upload(lua_State *L) {
    struct er_http_call call = request_defaults;
    call.feeds = true;
    struct reply_box *box = start(L, &call, UPLOAD);
    if (!box) {
        return 2;
    }
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, 1); // the client must outlive it
    return 1;
}

static int write_result(lua_State *L, const struct er_http_reply *reply) {
    if (reply->error.status != ER_OK) {
        return push_failure(L, reply);
    }
    lua_pushboolean(L, !reply->finished);
    return 1;
}

static int k_write(lua_State *L, int status, lua_KContext context) {
    (void)status;
    er_task_check(L);
    struct er_http_reply *reply = check_upload(L)->reply;
    if (!reply->finished && er_http_feed_is_full(reply)) {
        return er_op_wait(L, &reply->op, cancel_read, k_write, context);
    }
    return write_result(L, reply);
}

// upload:write(bytes) -> true | false when the answer has come already | nil, err. Waits while too much is on its way.
static int l_write(lua_State *L) {
    struct er_http_reply *reply = check_upload(L)->reply;
    size_t length;
    const char *bytes = er_check_bytes(L, 2, &length);
    er_task_check_yieldable(L, "write");
    er_task_check(L);
    if (reply->finished) {
        return write_result(L, reply);
    }
    enum er_status status = er_http_feed(reply, bytes, length);
    if (status != ER_OK) {
        return luaL_error(L, status == ER_QUOTA ? "a piece of a body may have 64 MiB" : "not enough memory");
    }
    return k_write(L, LUA_OK, 0);
}

static int k_finish(lua_State *L, int status, lua_KContext context) {
    (void)status;
    er_task_check(L);
    struct reply_box *box = check_upload(L);
    if (!box->reply->finished) {
        return er_op_wait(L, &box->reply->op, cancel_reply, k_finish, context);
    }
    int results = box->reply->error.status == ER_OK ? push_answer(L, box) : push_failure(L, box->reply);
    er_http_free(box->reply);
    box->reply = NULL;
    return results;
}

// upload:finish() -> answer | nil, err, as request does.
static int l_finish(lua_State *L) {
    struct reply_box *box = check_upload(L);
    er_task_check_yieldable(L, "finish");
    er_task_check(L);
    er_http_feed_end(box->reply);
    return k_finish(L, LUA_OK, 0);
}

int luaopen_eirun_core_http(lua_State *L);
int luaopen_eirun_core_http(lua_State *L) {
    static const luaL_Reg client_methods[] = {
        {"request", l_request}, {"open", l_open}, {"upload", l_upload}, {"close", l_client_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"client", l_client}, {"routes", l_routes}, {NULL, NULL}};
    er_handle_type(L, CLIENT, client_methods, l_client_close);
    er_handle_type(L, REPLY, NULL, l_reply_close);
    static const luaL_Reg upload_methods[] = {
        {"write", l_write}, {"finish", l_finish}, {"close", l_reply_close}, {NULL, NULL}};
    er_handle_type(L, UPLOAD, upload_methods, l_reply_close);
    er_handle_type(L, ROUTES, NULL, l_routes_close);
    register_stream(L);
    luaL_newlib(L, functions);
    return 1;
}
