// SPDX-License-Identifier: Apache-2.0
// HTTP client: libcurl's multi interface on the runtime's loop.
#ifndef EIRUN_HTTP_CLIENT_H
#define EIRUN_HTTP_CLIENT_H

#include "digests.h"
#include "http_headers.h"
#include "http_routes.h"
#include "runtime.h"
#include "task.h"

struct er_bytes {
    const char *data; // NULL: not given
    size_t length;
};

struct er_http_options {
    struct er_bytes ca_pem, cert_pem, key_pem;
    const char *ca_file;         // with ca_pem or ca_file nothing else is trusted
    const char *tls_server_name; // NULL: the URL's host
    const char *proxy;           // NULL: the environment's variables, "": none
    const char *user_agent;
    const char
        *session_folder; // TLS sessions are kept there for the next process; only with ca_pem and proxy "". NULL: no
    bool insecure;       // any certificate will do
    int64_t max_connections; // requests under way; more wait their turn
};

struct er_http_client;
// Copies its options.
enum er_status er_http_client_new(struct er_runtime *rt, const struct er_http_options *options,
                                  struct er_http_client **client, struct er_error *err);
// Fails what is under way, closes every connection and gives up the handle.
void er_http_client_free(struct er_http_client *client);

struct er_http_pair {
    struct er_bytes name, value;
};

// What to send. Everything is copied by er_http_start. Times are nanoseconds, 0 for none.
struct er_http_call {
    const char *method, *url;
    const struct er_http_pair *headers;
    size_t header_count;
    struct er_bytes body;
    const char *body_file;            // instead of body: a range of a file, read while it is sent
    int64_t body_offset, body_length; // length -1: to the end
    const char *sink_file;            // the body of a 2xx answer goes there
    int64_t sink_offset;              // -1: the file is emptied first
    unsigned digests;                 // ER_DIGEST_BITs of what the sink is given
    int64_t timeout, connect_timeout, stall_timeout;
    int64_t max_body;  // of an answer kept in memory
    bool http2;        // over TLS negotiated and only for requests without a body, else by prior knowledge
    bool stream;       // er_http_read instead of a body
    bool feeds;        // the request's body comes by er_http_feed; body_length -1: chunked
    bool expect_close; // the connection is not used again
    bool decompress;   // ask for gzip and undo it
    bool follow;       // tell where a redirect leads
};

// The answer as it comes in. `op` is woken when `finished` turns true; for a stream also when `has_headers` does and
// when bytes arrive. Owned by the caller until er_http_free.
struct er_http_reply {
    struct er_op op;
    bool has_headers, finished;
    int status;          // 200
    const char *version; // "1.1"
    struct er_headers headers;
    struct er_buf body;
    char *redirect;             // where a 3xx leads, NULL: nowhere, or nobody asked
    struct er_digests *digests; // of what the sink got; NULL without one
    int64_t elapsed;
    char remote[128]; // "127.0.0.1:443" or the socket's path
    bool reused;
    // Failure: error.status is not ER_OK.
    struct er_error error;
    bool retryable; // the cause may pass
    bool sent;      // a byte of the request may have reached the server
    bool reads;     // GET and HEAD: sending again changes nothing
};

// A failure here is final; all later ones are in the reply.
enum er_status er_http_start(struct er_http_client *client, const struct er_routes *routes,
                             const struct er_http_call *call, struct er_http_reply **reply, struct er_error *err);
// Closes the connection at once when the transfer is under way. NULL is fine.
void er_http_free(struct er_http_reply *reply);
// Stops the transfer: the reply is finished with ER_CANCELLED.
void er_http_cancel(struct er_http_reply *reply);
// More of the body of a call that feeds; `op` is woken when there is room again. ER_QUOTA: far too much is waiting.
enum er_status er_http_feed(struct er_http_reply *reply, const char *bytes, size_t length);
void er_http_feed_end(struct er_http_reply *reply);
bool er_http_feed_is_full(const struct er_http_reply *reply);
// A stream's reader took the bytes in `body`: empties it and lets more come.
void er_http_consumed(struct er_http_reply *reply);

#endif
