// SPDX-License-Identifier: Apache-2.0
// resolve(host) -> the first address of a name, as text. On libuv's pool, so the virtual clock is held meanwhile.
#include "bind.h"
#include "bind_load.h"
#include "runtime.h"
#include "task.h"

#include <string.h>

struct lookup {
    struct er_op op;
    uv_getaddrinfo_t request;
    struct er_runtime *rt;
    struct lookup **owner; // the userdata that waits; NULL: it is gone, the callback frees
    int status;
    bool done;
    char address[64];
};

static const char *const lookup_type = "eirun.load.lookup";

static void read_address(struct lookup *lookup, const struct addrinfo *found) {
    lookup->status = uv_inet_ntop(found->ai_family,
                                  found->ai_family == AF_INET6
                                      ? (const void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr
                                      : (const void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr,
                                  lookup->address, sizeof lookup->address);
}

static void on_found(uv_getaddrinfo_t *request, int status, struct addrinfo *found) {
    struct lookup *lookup = (struct lookup *)((char *)request - offsetof(struct lookup, request));
    er_touch(lookup->rt);
    er_unhold(lookup->rt);
    lookup->status = status;
    lookup->done = true;
    if (status == 0) {
        read_address(lookup, found);
        uv_freeaddrinfo(found);
    }
    if (lookup->owner) {
        er_op_done(&lookup->op);
    } else {
        er_free(lookup);
    }
}

static int l_lookup_close(lua_State *L) {
    struct lookup **box = luaL_checkudata(L, 1, lookup_type);
    struct lookup *lookup = *box;
    *box = NULL;
    if (lookup && lookup->done) {
        er_free(lookup);
    } else if (lookup) {
        lookup->owner = NULL;
        uv_cancel((uv_req_t *)&lookup->request);
    }
    return 0;
}

static void cancel_lookup(struct er_op *op) { er_op_done(op); } // the box's close does the rest

static int push_result(lua_State *L, struct lookup *lookup, const char *host) {
    if (lookup->status == 0) {
        lua_pushstring(L, lookup->address);
        return 1;
    }
    return er_push_errno(L, lookup->status, "resolve", host);
}

static int k_resolve(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    struct lookup *lookup = *(struct lookup **)luaL_checkudata(L, 2, lookup_type);
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

int er_load_l_resolve(lua_State *L) {
    const char *host = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    er_task_check_yieldable(L, "load.resolve");
    er_task_check(L);
    er_handle_type(L, lookup_type, NULL, l_lookup_close);
    struct lookup **box = er_handle_new(L, sizeof *box, lookup_type);
    struct lookup *lookup = er_calloc(1, sizeof *lookup);
    int status = lookup ? begin(lookup, er_runtime_of(L), host) : UV_ENOMEM;
    if (status != 0) {
        er_free(lookup);
        return er_push_errno(L, status, "resolve", host);
    }
    lookup->owner = box;
    *box = lookup;
    return er_op_wait(L, &lookup->op, cancel_lookup, k_resolve, 0);
}
