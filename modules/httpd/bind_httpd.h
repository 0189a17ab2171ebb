// SPDX-License-Identifier: Apache-2.0
// What bind_httpd.c (servers), bind_httpd_serve.c, bind_httpd_req.c (requests) and bind_httpd_reply.c share.
#ifndef EIRUN_BIND_HTTPD_H
#define EIRUN_BIND_HTTPD_H

#include "bind.h"
#include "http_server.h"
#include "task.h"

#define HTTPD_SERVER "eirun.httpd.server"
#define HTTPD_REQUEST "eirun.httpd.request"

// The userdata of a request. Its user value is the table of headers, once it was asked for.
struct httpd_request {
    struct er_httpd_req *req; // NULL: closed
    struct er_op body, reply, closed;
    bool body_to_file;
    bool anchored; // the registry holds the bytes that are being sent
};

struct httpd_server {
    struct er_httpd *httpd; // NULL: closed for good
    struct er_op accept;
};
struct httpd_server *httpd_check_server(lua_State *L, int index);

static inline bool httpd_server_open(const struct httpd_server *server) {
    return server->httpd && !er_httpd_closed(server->httpd);
}
static inline bool httpd_server_has_next(const struct httpd_server *server) {
    return server->httpd && er_httpd_has_next(server->httpd);
}

int httpd_serve(lua_State *L);

// Makes the metatable of requests. [-0, +0, m]
void httpd_request_type(lua_State *L);
// The oldest request of the queue, which must have one. [-0, +1, m]
struct httpd_request *httpd_push_request(lua_State *L, struct er_httpd *server);
// Raises when it is not a request or was closed. [-0, +0, v]
struct httpd_request *httpd_check_request(lua_State *L, int index);
// Lets go of the request; may run twice. [-0, +0, -]
void httpd_close_request(lua_State *L, struct httpd_request *request);
void httpd_release_anchor(lua_State *L, struct httpd_request *request);

extern const luaL_Reg httpd_reply_methods[];

#endif
