// SPDX-License-Identifier: Apache-2.0
// httpd.serve: a task for each request, in one scope.
#include "bind_httpd.h"

// The stack of a task that handles one request.
enum { HANDLER = 1, ON_ERROR, REQUEST, TRACEBACK };

static int l_traceback(lua_State *L) {
    if (lua_type(L, 1) == LUA_TSTRING) {
        luaL_traceback(L, L, lua_tostring(L, 1), 1);
    }
    return 1;
}

static int l_check(lua_State *L) {
    er_task_check(L);
    return 0;
}

// Whether the task itself was stopped, for whatever reason; then that reason is on top. [-0, +0 or 1, m]
static bool was_cancelled(lua_State *L) {
    lua_pushcfunction(L, l_check);
    return lua_pcall(L, 0, 0, 0) != LUA_OK;
}

// The error is on top: on_error(err, req) hears of it, else it becomes a warning. [-1, +0, m]
static void report(lua_State *L) {
    int error = lua_gettop(L);
    if (lua_isfunction(L, ON_ERROR)) {
        lua_pushvalue(L, ON_ERROR);
        lua_pushvalue(L, error);
        lua_pushvalue(L, REQUEST);
        if (lua_pcall(L, 2, 0, 0) == LUA_OK) {
            lua_settop(L, error - 1);
            return;
        }
    }
    lua_warning(L, "http handler: ", 1);
    lua_warning(L, luaL_tolstring(L, error, NULL), 0);
    lua_settop(L, error - 1);
}

static void cancel_last(struct er_op *op) { er_op_done(op); } // k_last closes the request, and that cuts it

static int k_last(lua_State *L, int status, lua_KContext context) {
    (void)status;
    httpd_close_request(L, (struct httpd_request *)context);
    er_task_check(L);
    return 0;
}

// A reply for a handler that gave none.
static int answer(lua_State *L, struct httpd_request *request) {
    static const char type[] = "text/plain", text[] = "the request could not be handled\n";
    struct er_httpd_req *req = request->req;
    bool begun = er_httpd_reply_begin(req, er_httpd_default_status(req), NULL) == ER_OK &&
                 er_httpd_reply_field(req, "Content-Type", 12, type, sizeof type - 1, NULL) == ER_OK &&
                 er_httpd_reply_whole(req, text, sizeof text - 1, NULL) == ER_OK;
    if (begun && er_httpd_reply_pending(req)) {
        return er_op_wait(L, &request->reply, cancel_last, k_last, (lua_KContext)request);
    }
    return k_last(L, LUA_OK, (lua_KContext)request);
}

// After the handler; its error, if any, is on top.
static int k_handle(lua_State *L, int status, lua_KContext context) {
    (void)context;
    struct httpd_request *request = lua_touserdata(L, REQUEST);
    bool failed = status != LUA_OK && status != LUA_YIELD;
    if (failed && was_cancelled(L)) {
        httpd_close_request(L, request);
        return lua_error(L);
    }
    if (!request->req) {
        return 0;
    }
    // Nobody is left to miss a reply on a connection that was cut.
    bool answered = er_httpd_reply_finished(request->req) || er_httpd_req_cut(request->req);
    if (!failed && !answered) {
        lua_pushliteral(L, "the handler returned without a complete reply");
    }
    if (failed || !answered) {
        report(L);
    }
    if (request->req && !answered && !er_httpd_reply_started(request->req)) {
        return answer(L, request);
    }
    httpd_close_request(L, request); // cuts a reply that is not complete
    return 0;
}

static int handle(lua_State *L) {
    lua_pushcfunction(L, l_traceback);
    lua_pushvalue(L, HANDLER);
    lua_pushvalue(L, REQUEST);
    int status = lua_pcallk(L, 1, 0, TRACEBACK, 0, k_handle);
    return k_handle(L, status, 0);
}

// The stack of the task that accepts.
enum { SCOPE = 1, SERVER, ACCEPTED_HANDLER, ACCEPTED_ON_ERROR, SPAWN };

static void spawn_handler(lua_State *L, struct er_httpd *server) {
    lua_pushvalue(L, SPAWN);
    lua_pushvalue(L, SCOPE);
    lua_pushcfunction(L, handle);
    lua_pushvalue(L, ACCEPTED_HANDLER);
    lua_pushvalue(L, ACCEPTED_ON_ERROR);
    httpd_push_request(L, server);
    lua_call(L, 5, 0);
}

static int k_accept_all(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct httpd_server *server = (struct httpd_server *)context;
    er_task_check(L);
    while (httpd_server_has_next(server)) {
        spawn_handler(L, server->httpd);
    }
    return httpd_server_open(server) ? er_op_wait(L, &server->accept, er_op_done, k_accept_all, context) : 0;
}

static int accept_all(lua_State *L) {
    struct httpd_server *server = httpd_check_server(L, SERVER);
    lua_getfield(L, SCOPE, "spawn");
    return k_accept_all(L, LUA_OK, (lua_KContext)server);
}

static int k_serve(lua_State *L, int status, lua_KContext context) {
    (void)L, (void)status, (void)context;
    return 0;
}

// Pushes the option on_error, or nil. [-0, +1, v]
static void push_on_error(lua_State *L, int options) {
    static const struct er_opt table[] = {{"on_error", ER_OPT_ANY, 0, 0, false}};
    if (lua_isnoneornil(L, options)) {
        lua_pushnil(L);
        return;
    }
    er_read_opts(L, options, table, 1, NULL);
    if (lua_getfield(L, options, "on_error") != LUA_TNIL) {
        luaL_checktype(L, -1, LUA_TFUNCTION);
    }
}

// httpd.serve(server, handler, { on_error = function(err, req) }): returns when the server was closed and every request
// is answered. A handler that fails or does not reply gives 500.
int httpd_serve(lua_State *L) {
    struct httpd_server *server = httpd_check_server(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 3);
    er_task_check_yieldable(L, "serve");
    if (er_op_waiting(&server->accept)) {
        return luaL_error(L, "another task waits for this server's requests");
    }
    push_on_error(L, 3);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_getfield(L, -1, "eirun.core.task");
    lua_getfield(L, -1, "scope");
    lua_call(L, 0, 1);
    int scope = lua_gettop(L);
    lua_toclose(L, scope);
    lua_getfield(L, scope, "spawn");
    lua_pushvalue(L, scope);
    lua_pushcfunction(L, accept_all);
    lua_pushvalue(L, scope);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 2);
    lua_pushvalue(L, 4);
    lua_call(L, 6, 0);
    lua_getfield(L, scope, "join");
    lua_pushvalue(L, scope);
    lua_callk(L, 1, 0, 0, k_serve);
    return 0;
}
