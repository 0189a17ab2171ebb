// SPDX-License-Identifier: Apache-2.0
// eirun.core.httpd: HTTP servers.
#include "bind_httpd.h"
#include "modules.h"

#include <string.h>

struct httpd_server *httpd_check_server(lua_State *L, int index) {
    return luaL_checkudata(L, index, HTTPD_SERVER);
}

static void on_ready(void *user) {
    struct httpd_server *server = user;
    er_op_done(&server->accept);
}

static const int64_t second = INT64_C(1000000000);

struct listen_opts {
    const char *unix_path, *host;
    int64_t port, idle_timeout, header_timeout, stall_timeout;
};

static void read_listen_opts(lua_State *L, struct listen_opts *opts) {
    static const struct er_opt table[] = {
        {"unix", ER_OPT_STRING, offsetof(struct listen_opts, unix_path), 0, false},
        {"host", ER_OPT_STRING, offsetof(struct listen_opts, host), 0, false},
        {"port", ER_OPT_INTEGER, offsetof(struct listen_opts, port), 0, false},
        {"tls", ER_OPT_ANY, 0, 0, false},
        {"limits", ER_OPT_ANY, 0, 0, false},
        {"idle_timeout", ER_OPT_SECONDS, offsetof(struct listen_opts, idle_timeout), 0, false},
        {"header_timeout", ER_OPT_SECONDS, offsetof(struct listen_opts, header_timeout), 0, false},
        {"stall_timeout", ER_OPT_SECONDS, offsetof(struct listen_opts, stall_timeout), 0, false},
    };
    *opts =
        (struct listen_opts){.idle_timeout = 75 * second, .header_timeout = 30 * second, .stall_timeout = 60 * second};
    er_read_opts(L, 1, table, sizeof table / sizeof *table, opts);
    if (opts->port < 0 || opts->port > 65535) {
        luaL_error(L, "port %I is not between 0 and 65535", (LUAI_UACINT)opts->port);
    }
}

struct limit_opts {
    int64_t target, header, header_count, body, connections;
};

// Reads the table `limits` of the options, if there is one.
static void read_limits(lua_State *L, struct er_httpd_limits *limits) {
    static const struct er_opt table[] = {
        {"target", ER_OPT_INTEGER, offsetof(struct limit_opts, target), 0, false},
        {"header", ER_OPT_INTEGER, offsetof(struct limit_opts, header), 0, false},
        {"header_count", ER_OPT_INTEGER, offsetof(struct limit_opts, header_count), 0, false},
        {"body", ER_OPT_INTEGER, offsetof(struct limit_opts, body), 0, false},
        {"connections", ER_OPT_INTEGER, offsetof(struct limit_opts, connections), 0, false},
    };
    struct limit_opts read = {0};
    if (lua_getfield(L, 1, "limits") != LUA_TNIL) {
        luaL_checktype(L, -1, LUA_TTABLE);
        er_read_opts(L, lua_gettop(L), table, sizeof table / sizeof *table, &read);
    }
    lua_pop(L, 1);
    const int64_t high = UINT32_MAX / 2; // header offsets are 32 bits wide
    if (read.target < 0 || read.target > high || read.header < 0 || read.header > high || read.header_count < 0 ||
        read.header_count > high || read.body < 0 || read.connections < 0) {
        luaL_error(L, "a limit is out of range");
    }
    *limits = (struct er_httpd_limits){.target = (size_t)read.target,
                                       .header = (size_t)read.header,
                                       .header_count = (size_t)read.header_count,
                                       .body = (uint64_t)read.body,
                                       .connections = (size_t)read.connections};
}

// The bytes of field `key` of the table on top, which stay on the stack. [-0, +1, v]
static struct er_httpd_bytes tls_field(lua_State *L, int table, const char *key, bool required) {
    struct er_httpd_bytes bytes = {0};
    if (lua_getfield(L, table, key) != LUA_TNIL) {
        bytes.data = er_to_bytes(L, -1, &bytes.length);
    }
    if (!bytes.data && (required || !lua_isnil(L, -1))) {
        luaL_error(L, "tls.%s: PEM text expected, got %s", key, luaL_typename(L, -1));
    }
    return bytes;
}

struct tls_opts {
    bool client_required;
};

// Reads the table `tls` of the options; its values stay on the stack. [-0, +0 or 4, v]
static void read_tls(lua_State *L, struct er_httpd_opts *opts) {
    static const struct er_opt table[] = {
        {"cert_pem", ER_OPT_ANY, 0, 0, true},
        {"key_pem", ER_OPT_ANY, 0, 0, true},
        {"client_ca_pem", ER_OPT_ANY, 0, 0, false},
        {"client_required", ER_OPT_BOOLEAN, offsetof(struct tls_opts, client_required), 0, false},
    };
    if (lua_getfield(L, 1, "tls") == LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    luaL_checktype(L, -1, LUA_TTABLE);
    int index = lua_gettop(L);
    struct tls_opts read = {0};
    er_read_opts(L, index, table, sizeof table / sizeof *table, &read);
    opts->tls = true;
    opts->tls_opts.client_required = read.client_required;
    opts->tls_opts.cert_pem = tls_field(L, index, "cert_pem", true);
    opts->tls_opts.key_pem = tls_field(L, index, "key_pem", true);
    opts->tls_opts.client_ca_pem = tls_field(L, index, "client_ca_pem", false);
}

// listen(options) -> server | nil, err
static int l_listen(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    struct listen_opts read;
    read_listen_opts(L, &read);
    struct er_httpd_opts opts = {.unix_path = read.unix_path,
                                 .host = read.host,
                                 .port = (int)read.port,
                                 .idle_timeout = read.idle_timeout,
                                 .header_timeout = read.header_timeout,
                                 .stall_timeout = read.stall_timeout,
                                 .ready = on_ready};
    read_limits(L, &opts.limits);
    read_tls(L, &opts);
    struct httpd_server *server = er_handle_new(L, sizeof *server, HTTPD_SERVER);
    opts.user = server;
    struct er_error err;
    if (er_httpd_listen(er_runtime_of(L), &opts, &server->httpd, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    return 1;
}

static int push_next(lua_State *L, struct httpd_server *server) {
    if (httpd_server_has_next(server)) {
        httpd_push_request(L, server->httpd);
    } else {
        lua_pushnil(L);
    }
    return 1;
}

static bool must_wait(const struct httpd_server *server) {
    return httpd_server_open(server) && !httpd_server_has_next(server);
}

static int k_accept(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct httpd_server *server = (struct httpd_server *)context;
    er_task_check(L);
    if (must_wait(server)) {
        return er_op_wait(L, &server->accept, er_op_done, k_accept, context);
    }
    return push_next(L, server);
}

static void check_alone(lua_State *L, const struct httpd_server *server) {
    if (er_op_waiting(&server->accept)) {
        luaL_error(L, "another task waits for this server's requests");
    }
}

// server:accept() -> request | nil when the server was closed
static int l_accept(lua_State *L) {
    struct httpd_server *server = httpd_check_server(L, 1);
    lua_settop(L, 1);
    er_task_check_yieldable(L, "accept");
    check_alone(L, server);
    return must_wait(server) ? er_op_wait(L, &server->accept, er_op_done, k_accept, (lua_KContext)server)
                             : push_next(L, server);
}

// server:close(): no more requests; those that were accepted may finish.
static int l_close(lua_State *L) {
    struct httpd_server *server = httpd_check_server(L, 1);
    if (server->httpd) {
        er_httpd_close(server->httpd);
    }
    return 0;
}

// server:abort(), __gc, __close: cuts every connection.
static int l_abort(lua_State *L) {
    struct httpd_server *server = httpd_check_server(L, 1);
    struct er_httpd *httpd = server->httpd;
    server->httpd = NULL;
    er_httpd_free(httpd);
    er_op_done(&server->accept);
    return 0;
}

static int l_server_index(lua_State *L) {
    struct httpd_server *server = httpd_check_server(L, 1);
    const char *key = luaL_checkstring(L, 2);
    if (strcmp(key, "port") == 0) {
        lua_pushinteger(L, server->httpd ? er_httpd_port(server->httpd) : 0);
        return 1;
    }
    lua_getfield(L, lua_upvalueindex(1), key);
    return 1;
}

static const luaL_Reg server_methods[] = {
    {"accept", l_accept},
    {"close", l_close},
    {"abort", l_abort},
    {NULL, NULL},
};

static void server_type(lua_State *L) {
    er_handle_type(L, HTTPD_SERVER, NULL, l_abort);
    luaL_getmetatable(L, HTTPD_SERVER);
    luaL_newlib(L, server_methods);
    lua_pushcclosure(L, l_server_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
}

static const luaL_Reg functions[] = {
    {"listen", l_listen},
    {"serve", httpd_serve},
    {NULL, NULL},
};

int luaopen_eirun_core_httpd(lua_State *L) {
    server_type(L);
    httpd_request_type(L);
    luaL_requiref(L, "eirun.core.task", luaopen_eirun_core_task, 0); // serve makes scopes
    lua_pop(L, 1);
    luaL_newlib(L, functions);
    return 1;
}
