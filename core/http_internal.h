// SPDX-License-Identifier: Apache-2.0
// What the client's own files know of each other and nobody else may.
#ifndef EIRUN_HTTP_INTERNAL_H
#define EIRUN_HTTP_INTERNAL_H

#include "curl_dl.h"
#include "deadline.h"
#include "http_client.h"

enum { ER_HTTP_IDLE_EASY = 16 };

enum er_transfer_state { ER_TRANSFER_WAITS, ER_TRANSFER_RUNS, ER_TRANSFER_DONE };

// Connections that requests share. Those of HTTP/2 are apart: curl would give a kept 1.1 connection to a request for 2.
enum { ER_HTTP_POOL_1, ER_HTTP_POOL_2, ER_HTTP_POOLS };
struct er_http_pool {
    struct er_http_client *client;
    CURLM *multi;     // NULL before the first transfer, and after memory ran out
    uv_timer_t timer; // curl's own timers, in real time
    uv_idle_t soon;   // curl's timer of zero: the next turn of the loop
};

struct er_transfer {
    struct er_http_reply reply; // first: the caller's pointer is ours
    struct er_http_client *client;
    struct er_http_pool *pool;
    enum er_transfer_state state;
    struct er_transfer *prev, *next; // of the client's list for that state
    CURL *easy;                      // NULL unless it runs
    struct er_deadline deadline;
    // copied from the call
    char *method, *url, *sink_file, *body;
    size_t body_length;
    int64_t body_offset, sink_offset;
    int64_t timeout, connect_timeout, stall_timeout;
    bool has_body, http2, stream, expect_close, decompress, follow;
    // where it goes
    struct er_url place;
    char *unix_path, *tls_url; // tls_url: with the client's tls_server_name in the host's place
    bool routed, outside;      // outside: the peer may be another process, the clock is held
    bool loopback;             // connected over TCP to a listener of this program
    char connect_to_text[sizeof(((struct er_url *)0)->host) + 16];
    struct curl_slist connect_to;
    struct curl_slist *headers; // nodes and lines in one block, wiped when freed
    size_t headers_size;
    // progress; times are the deadline's
    int64_t started, began, active;
    int64_t asked; // the run's clock when it started
    bool connected, paused, send_paused;
    bool feeds, feed_ended;
    struct er_buf feed; // what the caller gave and curl has not taken, from feed_at on
    size_t feed_at;
    int body_fd, sink_fd; // -1
    int64_t body_file_length, body_sent;
    char curl_error[CURL_ERROR_SIZE];
};

struct er_transfers {
    struct er_transfer *first, *last;
};

// What cert_pem and key_pem hold, once it was read.
struct er_http_identity {
    bool was_read, bad;
    struct x509_st *certificate;
    struct stack_st_X509 *chain;
    struct evp_pkey_st *key;
};

// The TLS session with the client's first server.
struct er_http_session {
    char *folder; // NULL: none is kept
    char host[sizeof(((struct er_url *)0)->host)];
    uint16_t port;                  // 0: no connection yet
    char *path;                     // of its file
    struct ssl_session_st *session; // to resume
    bool is_new;                    // of a handshake of this process
    bool bad_ca;                    // ca_pem is no PEM
};

struct er_http_client {
    struct er_runtime *rt;
    const struct er_curl *curl;
    struct er_http_pool pools[ER_HTTP_POOLS];
    int closing; // uv handles that still have to close
    struct er_transfers waiting, running;
    int64_t running_count, max_running;
    bool starting; // somebody further out begins those that wait
    CURL *idle[ER_HTTP_IDLE_EASY];
    size_t idle_count;
    char *ca_file, *tls_server_name, *proxy, *user_agent;
    char *ca_pem, *cert_pem, *key_pem;
    size_t ca_pem_length, cert_pem_length, key_pem_length;
    struct er_http_identity identity;
    uv_idle_t spare_time; // to read it in
    struct er_http_session session;
    bool insecure;
};

// http_identity.c
struct ssl_ctx_st;
void er_http_identity_init(struct er_http_client *client);
bool er_http_identity_is_ours(const struct er_transfer *t); // else curl gets the PEM texts
// `soon`: it will most likely be asked for.
void er_http_identity_offer(struct er_transfer *t, struct ssl_ctx_st *context, bool soon);
void er_http_identity_release(struct er_http_identity *identity);

// http_session.c
bool er_http_session_is_ours(const struct er_transfer *t);                     // else curl gets ca_pem
bool er_http_session_offer(struct er_transfer *t, struct ssl_ctx_st *context); // true: there is one to resume
void er_http_session_refused(struct er_http_session *kept);                    // no connection came of it
void er_http_session_release(struct er_http_session *kept);

// http_pool.c
void er_http_pool_init(struct er_http_client *client, struct er_http_pool *pool);
enum er_status er_http_pool_open(struct er_http_pool *pool);            // ER_NO_MEMORY; may be open already
void er_http_pool_close(struct er_http_pool *pool, uv_close_cb closed); // `closed` is called twice, with data = pool
// http_setup.c
enum er_status er_http_build_headers(struct er_transfer *t, const struct er_http_call *call);
enum er_status er_http_set_options(struct er_transfer *t);
// http_body.c: curl's callbacks on the bytes of one transfer
size_t er_http_on_header(char *line, size_t size, size_t count, void *transfer);
size_t er_http_on_body(char *bytes, size_t size, size_t count, void *transfer);
size_t er_http_on_send(char *into, size_t size, size_t count, void *transfer);
int er_http_on_rewind(void *transfer, curl_off_t offset, int origin);
enum er_status er_http_end_body(struct er_transfer *t);
enum er_status er_http_open_body(struct er_transfer *t, const char *path, int64_t length, struct er_error *err);
// http_transfer.c
void er_http_begin_waiting(struct er_http_client *client);
void er_http_finish(struct er_transfer *t, CURLcode code);
void er_http_fail(struct er_transfer *t, enum er_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
// Notes a failure inside one of curl's callbacks, which then makes curl stop the transfer.
enum er_status er_http_note(struct er_transfer *t, enum er_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
int er_http_on_connected(void *transfer, char *peer, char *local, int peer_port, int local_port);
// http_error.c
void er_http_explain(struct er_transfer *t, CURLcode code);

#endif
