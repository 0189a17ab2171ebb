// SPDX-License-Identifier: Apache-2.0
// What the files http_server*.c share; nobody else includes it.
//
// Data goes up by er_httpd_conn_kick: as long as somebody wants input, it takes what has arrived and parses it.
// Data goes down by er_httpd_conn_send: up to three pieces at a time, referenced, not copied.
#ifndef EIRUN_HTTP_SERVER_IMPL_H
#define EIRUN_HTTP_SERVER_IMPL_H

#include "http_server.h"
#include "loopback.h"

#include <llhttp.h>
#include <openssl/ssl.h>

enum {
    INPUT_SIZE = 64 << 10,     // one read of a socket
    PENDING_SIZE = 64 << 10,   // bytes that came before they were wanted; reading stops above
    DRAIN_SIZE = 64 << 10,     // of a body that nobody read, to keep the connection
    EXTENSION_SIZE = 16 << 10, // chunk extensions and trailers of one body
    LINGER_SIZE = 4 << 20,     // read and dropped after the last reply
    BLOCK_SIZE = 256 << 10,    // file bodies and file replies
};

enum conn_phase { CONN_HANDSHAKE, CONN_IDLE, CONN_HEAD, CONN_REQUEST, CONN_REFUSED, CONN_LINGER, CONN_CLOSED };
enum conn_timing { TIMING_NONE, TIMING_IDLE, TIMING_HEAD, TIMING_STALL, TIMING_LINGER };
enum body_state { BODY_UNREAD, BODY_READING, BODY_DONE, BODY_FAILED };
enum body_sink { SINK_MEMORY, SINK_FILE, SINK_DROP };
enum reply_state { REPLY_NONE, REPLY_STREAMING, REPLY_FILE, REPLY_LAST, REPLY_FINISHED };

union socket_handle {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
};

struct er_httpd {
    struct er_runtime *rt;
    size_t refs; // the owner, the listening handle, each connection, each request that was taken
    union socket_handle listener;
    bool closed, owned;
    char *unix_path;
    struct er_listening listening; // over TCP
    struct er_httpd_limits limits;
    int64_t idle_timeout, header_timeout, stall_timeout;
    void (*ready)(void *user);
    void *user;
    SSL_CTX *tls;
    struct er_httpd_conn *conns, *spare;
    size_t conn_count;
    bool starved; // a connection waits in the kernel for a place or for memory
    struct er_httpd_req *queue_head, *queue_tail;
    struct er_httpd_req *pool;
    size_t pool_count;
    struct er_buf head; // the reply head that is being composed
    int64_t date_second;
    char date[40];
    char input[INPUT_SIZE];
};

struct er_httpd_conn {
    union socket_handle io;
    struct er_httpd *server;
    struct er_httpd_conn *prev, *next;
    struct er_httpd_req *req;
    struct er_httpd_peer *peer;
    enum conn_phase phase;
    bool reading, eof, kicking, writing, sending, end_after_send;
    llhttp_t parser;
    size_t head_size; // bytes of this head so far
    char last_byte;   // of the head, across reads
    int refusal;      // status that a callback of the parser asks for

    const char *in; // input that is being taken
    size_t in_length;
    struct er_buf pending;
    size_t pending_taken;

    struct er_httpd_bytes pieces[3]; // what is still to be sent
    struct er_buf kept;              // copies of pieces that do not live long enough
    struct er_buf cipher;            // TLS records on their way to the socket
    uv_write_t write;
    uv_shutdown_t shutdown;

    SSL *ssl;
    BIO *wire; // the network side of the BIO pair

    struct er_timer timer;
    enum conn_timing timing;
    bool progress; // bytes moved since the stall timer was set
    size_t unsent; // what libuv held when the stall timer was set
    size_t lingered;
};

struct er_httpd_req {
    struct er_httpd_head head;
    struct er_httpd *server;
    struct er_httpd_conn *conn; // NULL once the exchange is over
    struct er_httpd_req *prev, *next;
    struct er_httpd_peer *peer;
    bool queued, held, peer_closed;
    void (*wake)(void *user);
    void *user;

    struct er_buf text; // target, then names and values
    struct er_httpd_field *fields;
    size_t field_capacity;
    uint32_t target_length;
    bool in_name, in_value;
    bool keep_alive, expect_continue, is_head;

    enum body_state body;
    enum body_sink sink_kind;
    bool body_taken, body_whole, chunked; // body_whole: all of it came, though it may not be in its file yet
    uint64_t content_length, body_size, body_max;
    size_t extension_size;
    struct er_buf memory;
    struct er_httpd_sink *sink;
    struct er_digests *digests; // of a body that went to a file
    enum er_status body_status;
    const char *body_message; // static
    char *body_object;        // what body_message is about, or NULL

    enum reply_state reply;
    int status;
    bool begun, no_body, reply_chunked, until_close, close_after;
    bool has_date, has_length;
    uint64_t reply_left; // of a reply with a Content-Length
    char chunk_line[24];
    struct er_httpd_source *source;
    enum er_status reply_status;
    const char *reply_message;
};

// http_server.c
void er_httpd_ref(struct er_httpd *server);
void er_httpd_unref(struct er_httpd *server);
void er_httpd_queue(struct er_httpd *server, struct er_httpd_req *req);
void er_httpd_unqueue(struct er_httpd *server, struct er_httpd_req *req);
const char *er_httpd_date(struct er_httpd *server);
void er_httpd_peer_unref(struct er_httpd_peer *peer);

// http_server_conn.c
void er_httpd_conn_accept(struct er_httpd *server);
void er_httpd_conn_kick(struct er_httpd_conn *conn);
void er_httpd_conn_close(struct er_httpd_conn *conn); // at once; a peer that still sends sees a reset
void er_httpd_conn_reset(struct er_httpd_conn *conn);
void er_httpd_conn_end(struct er_httpd_conn *conn); // everything was sent: says goodbye, lingers if it must
// Answers a request that never became one and ends the connection.
void er_httpd_conn_refuse(struct er_httpd_conn *conn, int status);

// http_server_output.c
// Sends pieces (NULL data: none); er_httpd_reply_sent follows, perhaps before this returns. `head` is copied where it
// cannot be sent at once, the others are referenced.
void er_httpd_conn_send(struct er_httpd_conn *conn, struct er_httpd_bytes head, struct er_httpd_bytes body,
                        struct er_httpd_bytes tail);
void er_httpd_conn_flush(struct er_httpd_conn *conn);
bool er_httpd_conn_send_now(struct er_httpd_conn *conn, const char *text, size_t length); // all or false

// http_server_parse.c
bool er_httpd_wants_input(const struct er_httpd_conn *conn);
void er_httpd_feed(struct er_httpd_conn *conn); // takes from conn->in
void er_httpd_parser_init(struct er_httpd_conn *conn);

// http_server_request.c
struct er_httpd_req *er_httpd_req_new(struct er_httpd_conn *conn);
void er_httpd_req_detach(struct er_httpd_req *req); // from its connection
void er_httpd_req_wake(struct er_httpd_req *req);
void er_httpd_body_add(struct er_httpd_req *req, const char *data, size_t length);
void er_httpd_body_end(struct er_httpd_req *req);
void er_httpd_body_drop(struct er_httpd_req *req); // reads on, up to DRAIN_SIZE, keeping nothing
void er_httpd_body_finish(struct er_httpd_req *req);
void er_httpd_body_fail(struct er_httpd_req *req, enum er_status status, const char *message);
size_t er_httpd_body_room(const struct er_httpd_req *req);

// http_server_response.c
void er_httpd_reply_sent(struct er_httpd_conn *conn);
void er_httpd_reply_fail(struct er_httpd_req *req, enum er_status status, const char *message);
const char *er_httpd_reason(int status);

// http_server_sink.c: a body into a file
bool er_httpd_sink_open(struct er_httpd_req *req, const char *path, unsigned digests); // false: the body has failed
size_t er_httpd_sink_room(const struct er_httpd_sink *sink);
void er_httpd_sink_add(struct er_httpd_sink *sink, const char *data, size_t length);
void er_httpd_sink_end(struct er_httpd_sink *sink);   // er_httpd_body_finish or _fail follows
void er_httpd_sink_abandon(struct er_httpd_req *req); // removes the file

// http_server_source.c: a file as a reply
enum er_status er_httpd_source_open(struct er_httpd_req *req, const char *path, uint64_t offset, uint64_t length,
                                    struct er_error *err);
void er_httpd_source_start(struct er_httpd_req *req, struct er_httpd_bytes head);
void er_httpd_source_sent(struct er_httpd_req *req); // the last block is out
void er_httpd_source_abandon(struct er_httpd_req *req);

// http_server_tls.c
enum er_status er_httpd_tls_context(const struct er_httpd_tls_opts *opts, SSL_CTX **context, struct er_error *err);
enum er_status er_httpd_tls_open(struct er_httpd_conn *conn);
void er_httpd_tls_read(struct er_httpd_conn *conn);    // fills conn->in, or sets eof, or closes
bool er_httpd_tls_encrypt(struct er_httpd_conn *conn); // pieces -> cipher, up to a bound; false: broken
size_t er_httpd_tls_room(struct er_httpd_conn *conn, char **at);
void er_httpd_tls_arrived(struct er_httpd_conn *conn, size_t length);
void er_httpd_tls_goodbye(struct er_httpd_conn *conn);

#endif
