// SPDX-License-Identifier: Apache-2.0
// resolve(host, port): where the route table sends the host, else the first addresses of its name, from libuv's pool,
// so that the virtual clock is held meanwhile.
#include "bind_load.h"

#include "bind.h"
#include "bind_http.h"
#include "http_routes.h"
#include "runtime.h"
#include "task.h"
#include "worker.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

struct lookup {
    struct er_op op;
    uv_getaddrinfo_t request;
    struct er_runtime *rt;
    bool waiting; // false: the userdata is gone, the callback frees
    int status;
    bool done;
    char addresses[ER_LOAD_ADDRESSES][64];
    size_t count;
};

struct lookup_box { // the userdata
    struct lookup *lookup;
};

static const char *const lookup_type = "eirun.load.lookup";

static const void *bytes_of(const struct addrinfo *found) {
    return found->ai_family == AF_INET6 ? (const void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr
                                        : (const void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr;
}

static void read_addresses(struct lookup *lookup, const struct addrinfo *found) {
    for (; found && lookup->status == 0 && lookup->count < ER_LOAD_ADDRESSES; found = found->ai_next) {
        char *into = lookup->addresses[lookup->count];
        lookup->status = uv_inet_ntop(found->ai_family, bytes_of(found), into, sizeof lookup->addresses[0]);
        lookup->count++;
    }
}

static void on_found(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
    struct lookup *lookup = (struct lookup *)((char *)request - offsetof(struct lookup, request));
    er_touch(lookup->rt);
    er_unhold(lookup->rt);
    lookup->status = status;
    lookup->done = true;
    if (status == 0) {
        read_addresses(lookup, found);
        uv_freeaddrinfo(found);
    }
    if (lookup->waiting) {
        er_op_done(&lookup->op);
    } else {
        er_free(lookup);
    }
}

static int l_lookup_close(lua_State *L) {
    struct lookup_box *box = luaL_checkudata(L, 1, lookup_type);
    struct lookup *lookup = box->lookup;
    box->lookup = NULL;
    if (lookup && lookup->done) {
        er_free(lookup);
    } else if (lookup) {
        lookup->waiting = false;
        uv_cancel((uv_req_t *)&lookup->request);
    }
    return 0;
}

static void cancel_lookup(struct er_op *op) { er_op_done(op); } // the box's close does the rest

static void push_port(lua_State *L, lua_Integer port) {
    lua_pushinteger(L, port);
    lua_setfield(L, -2, "port");
}

// {address = the first, addresses = all of them, port}
static void push_places(lua_State *L, const char *const *addresses, size_t count, lua_Integer port) {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, addresses[0]);
    lua_setfield(L, -2, "address");
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_pushstring(L, addresses[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "addresses");
    push_port(L, port);
}

static void push_place(lua_State *L, const char *address, lua_Integer port) { push_places(L, &address, 1, port); }

static void push_found(lua_State *L, const struct lookup *lookup, lua_Integer port) {
    const char *addresses[ER_LOAD_ADDRESSES] = {NULL};
    for (size_t i = 0; i < lookup->count; i++) {
        addresses[i] = lookup->addresses[i];
    }
    push_places(L, addresses, lookup->count, port);
}

static int push_result(lua_State *L, struct lookup *lookup, const char *host) {
    if (lookup->status != 0) {
        return er_push_errno(L, lookup->status, "resolve", host);
    }
    push_found(L, lookup, lua_tointeger(L, 2));
    return 1;
}

// "127.0.0.1:1234", "[::1]:1234"
static void push_address(lua_State *L, const char *address) {
    const char *colon = strrchr(address, ':');
    bool bracket = address[0] == '[';
    size_t length = colon ? (size_t)(colon - address) : strlen(address);
    lua_pushlstring(L, address + bracket, length - 2 * (size_t)bracket);
    push_place(L, lua_tostring(L, -1), colon ? strtol(colon + 1, NULL, 10) : 0);
    lua_remove(L, -2);
}

static int push_route(lua_State *L, const struct er_route *route) {
    if (route->unix_path) {
        lua_createtable(L, 0, 2);
        lua_pushstring(L, route->unix_path);
        lua_setfield(L, -2, "unix");
    } else {
        push_address(L, route->address);
    }
    lua_pushboolean(L, true);
    lua_setfield(L, -2, "routed");
    return 1;
}

static int k_resolve(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    struct lookup *lookup = ((struct lookup_box *)luaL_checkudata(L, 3, lookup_type))->lookup;
    er_task_check(L);
    return push_result(L, lookup, lua_tostring(L, 1));
}

static int begin(struct lookup *lookup, struct er_runtime *rt, const char *host) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    lookup->rt = rt;
    int status = uv_getaddrinfo(er_loop(rt), &lookup->request, on_found, host, NULL, &hints);
    if (status == 0) {
        er_hold(rt);
    }
    return status;
}

static bool literal(const char *host) {
    struct in6_addr any;
    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
}

static int refuse(lua_State *L, const char *host, lua_Integer port) {
    struct er_error err;
    er_fail(&err, ER_DENIED, "%s:%d is outside the sandbox: no route leads there", host, (int)port);
    return er_push_fail(L, &err);
}

static int look_up(lua_State *L, const char *host) {
    er_handle_type(L, lookup_type, NULL, l_lookup_close);
    struct lookup_box *box = er_handle_new(L, sizeof(struct lookup_box), lookup_type);
    struct lookup *lookup = er_calloc(1, sizeof *lookup);
    int status = lookup ? begin(lookup, er_runtime_of(L), host) : UV_ENOMEM;
    if (status != 0) {
        er_free(lookup);
        return er_push_errno(L, status, "resolve", host);
    }
    lookup->waiting = true;
    box->lookup = lookup;
    return er_op_wait(L, &lookup->op, cancel_lookup, k_resolve, 0);
}

int er_load_l_resolve(lua_State *L) {
    const char *host = luaL_checkstring(L, 1);
    lua_Integer port = luaL_checkinteger(L, 2);
    luaL_argcheck(L, port > 0 && port < 65536, 2, "a port is between 1 and 65535");
    lua_settop(L, 2);
    er_task_check_yieldable(L, "load.resolve");
    er_task_check(L);
    const struct er_routes *routes = er_http_routes(L);
    const struct er_route *route = er_routes_find(routes, host, (uint16_t)port);
    if (route) {
        return push_route(L, route);
    }
    if (routes->closed) {
        return refuse(L, host, port);
    }
    if (literal(host)) {
        push_place(L, host, port);
        return 1;
    }
    return look_up(L, host);
}
