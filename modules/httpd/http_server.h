// SPDX-License-Identifier: Apache-2.0
// An HTTP/1.1 server on the loop: TCP or Unix sockets, with TLS or without. Knows nothing of Lua.
//
// A connection has one request at a time: its head is parsed, then it waits in the server's queue until
// er_httpd_next takes it; the body is read when asked for; the next request of the connection is parsed after the
// reply.
#ifndef EIRUN_HTTP_SERVER_H
#define EIRUN_HTTP_SERVER_H

#include "digests.h"
#include "er.h"
#include "runtime.h"

struct er_httpd;
struct er_httpd_req;

struct er_httpd_limits {
    size_t target;       // bytes of the request target; 414 above
    size_t header;       // bytes of a request's head; 431 above
    size_t header_count; // 431 above
    uint64_t body;       // bytes of a body; 413 above
    size_t connections;  // more wait in the kernel's queue
};

struct er_httpd_bytes {
    const char *data;
    size_t length;
};

struct er_httpd_tls_opts {
    struct er_httpd_bytes cert_pem; // chain, leaf first
    struct er_httpd_bytes key_pem;
    struct er_httpd_bytes client_ca_pem; // length 0: no client certificates are asked for
    bool client_required;
};

struct er_httpd_opts {
    const char *unix_path; // or NULL, then host and port
    const char *host;      // an IP address or "localhost"
    int port;              // 0: the kernel chooses
    bool tls;
    struct er_httpd_tls_opts tls_opts;
    struct er_httpd_limits limits; // a zero takes the default
    int64_t idle_timeout;          // nanoseconds on the run's clock, 0 for none: between requests
    int64_t header_timeout;        // from a head's first byte to its last
    int64_t stall_timeout;         // without a byte of body or reply moving
    void (*ready)(void *user);     // the queue got a request, or the server was closed
    void *user;
};

// Copies what it needs of `opts`.
enum er_status er_httpd_listen(struct er_runtime *rt, const struct er_httpd_opts *opts, struct er_httpd **server,
                               struct er_error *err);
int er_httpd_port(const struct er_httpd *server); // 0 on a Unix socket
bool er_httpd_closed(const struct er_httpd *server);
bool er_httpd_has_next(const struct er_httpd *server);
// The oldest request that nobody took, or NULL. The caller owns it until er_httpd_req_free.
struct er_httpd_req *er_httpd_next(struct er_httpd *server);
// Stops listening and closes idle connections; requests that were taken finish their reply, the queue is dropped.
void er_httpd_close(struct er_httpd *server);
// Closes, cuts every connection, and lets the memory go when the loop has closed the handles.
void er_httpd_free(struct er_httpd *server);

struct er_httpd_field { // offsets into er_httpd_head.text
    uint32_t name, name_length, value, value_length;
};

// Who is on the other side; lives as long as a request that points to it.
struct er_httpd_peer {
    size_t refs;
    int local_port;
    bool tls;
    char address[64];        // "127.0.0.1:40000", "unix"
    char sni[256];           // "" without
    char cn[256];            // the client certificate's common name, "" without one
    char organizations[512]; // its O entries, one a line
};

struct er_httpd_head {
    const char *method;
    int minor; // HTTP/1.minor
    struct er_httpd_bytes target, path, query;
    const char *text;
    const struct er_httpd_field *fields;
    size_t field_count;
    const struct er_httpd_peer *peer;
};

const struct er_httpd_head *er_httpd_req_head(const struct er_httpd_req *req);
// The first field of that name, whatever its case; false when there is none.
bool er_httpd_req_field(const struct er_httpd_req *req, const char *name, size_t length, struct er_httpd_bytes *value);
// `wake` runs from loop callbacks, whenever a body, a reply or the connection has come further. Set it once.
void er_httpd_req_watch(struct er_httpd_req *req, void (*wake)(void *user), void *user);
bool er_httpd_req_peer_closed(const struct er_httpd_req *req); // the peer ended its side, or the connection is gone
bool er_httpd_req_cut(const struct er_httpd_req *req);         // the connection is gone and the reply was not complete
// Cuts the connection, by a reset where the transport has one.
void er_httpd_req_abort(struct er_httpd_req *req);
// Lets the request go; without a complete reply that cuts the connection.
void er_httpd_req_free(struct er_httpd_req *req);

// Body. One read a request: into memory or into a file. Each answers at once; while er_httpd_body_pending, `wake`
// follows.
void er_httpd_body_to_memory(struct er_httpd_req *req, size_t max);
// A file that is made new (mode 0600), and removed again when the body does not come whole. Over `max` is ER_QUOTA.
void er_httpd_body_to_file(struct er_httpd_req *req, const char *path, unsigned digests,
                           uint64_t max);                 // ER_DIGEST_BITs
bool er_httpd_body_taken(const struct er_httpd_req *req); // a read was started before
bool er_httpd_body_pending(const struct er_httpd_req *req);
enum er_status er_httpd_body_result(const struct er_httpd_req *req, struct er_error *err);
const struct er_buf *er_httpd_body_memory(const struct er_httpd_req *req);
uint64_t er_httpd_body_size(const struct er_httpd_req *req);
const struct er_digests *er_httpd_body_digests(const struct er_httpd_req *req); // finished; NULL without a file
// Gives up a pending read: its result becomes ER_CANCELLED.
void er_httpd_body_cancel(struct er_httpd_req *req);

// Reply: begin, fields, then one of whole, file, stream. The bytes given stay the caller's and must live until
// er_httpd_reply_pending is false or the request was aborted.
enum er_status er_httpd_reply_begin(struct er_httpd_req *req, int status, struct er_error *err);
enum er_status er_httpd_reply_field(struct er_httpd_req *req, const char *name, size_t name_length, const char *value,
                                    size_t value_length, struct er_error *err);
enum er_status er_httpd_reply_whole(struct er_httpd_req *req, const char *body, size_t length, struct er_error *err);
enum er_status er_httpd_reply_file(struct er_httpd_req *req, const char *path, uint64_t offset, uint64_t length,
                                   struct er_error *err);
enum er_status er_httpd_reply_stream(struct er_httpd_req *req, struct er_error *err);
enum er_status er_httpd_reply_write(struct er_httpd_req *req, const char *bytes, size_t length, struct er_error *err);
enum er_status er_httpd_reply_finish(struct er_httpd_req *req, struct er_error *err);
bool er_httpd_reply_started(const struct er_httpd_req *req);
bool er_httpd_reply_streaming(const struct er_httpd_req *req);
bool er_httpd_reply_finished(const struct er_httpd_req *req);
bool er_httpd_reply_pending(const struct er_httpd_req *req);
enum er_status er_httpd_reply_result(const struct er_httpd_req *req, struct er_error *err);
// What a handler that did not answer leaves to say: 413, 408 or 400 after a body that failed, else 500.
int er_httpd_default_status(const struct er_httpd_req *req);

#endif
