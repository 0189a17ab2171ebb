// SPDX-License-Identifier: Apache-2.0
// HTTP/2 on a connection, by nghttp2: many requests at one time. What nghttp2 calls only marks; connections close when
// it has returned.
#include "worker.h"

#include <nghttp2/nghttp2.h>
#include <string.h>

enum { OUT_SIZE = 64 * 1024, WINDOW = 1 << 30, STREAM_WINDOW = 1 << 24 };

struct er_load_h2 {
    nghttp2_session *session;
    struct er_buf rest; // what the socket did not take
    size_t rest_at;
    bool greeted;      // the server's settings are in
    const char *fault; // the connection is no good
};

static void mark_dirty(struct er_load_conn *conn) {
    if (!conn->is_dirty) {
        conn->is_dirty = true;
        conn->dirty = conn->worker->dirty;
        conn->worker->dirty = conn;
    }
}

static void retire(struct er_load_conn *conn) {
    conn->leaving = true;
    er_load_unlist(conn);
    mark_dirty(conn);
}

static struct er_load_call *call_of(nghttp2_session *session, int32_t stream) {
    return stream ? nghttp2_session_get_stream_user_data(session, stream) : NULL;
}

static unsigned number_of(const uint8_t *digits, size_t length) {
    unsigned number = 0;
    for (size_t i = 0; i < length && i < 3; i++) {
        number = number * 10 + (unsigned)(digits[i] - '0');
    }
    return number;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                     const uint8_t *value, size_t value_length, uint8_t flags, void *data) {
    (void)flags, (void)data;
    struct er_load_call *call = call_of(session, frame->hd.stream_id);
    if (!call) {
        return 0;
    }
    call->header_bytes += name_length + value_length;
    call->bytes_in += name_length + value_length;
    if (name_length == 7 && memcmp(name, ":status", 7) == 0) {
        call->status = number_of(value, value_length);
    }
    if (call->header_bytes > ER_LOAD_HEADERS_MAX) {
        call->fault = "headers over 64 KiB";
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t length,
                   void *data) {
    (void)flags, (void)data;
    struct er_load_call *call = call_of(session, stream);
    if (!call || call->fault) {
        return 0;
    }
    call->bytes_in += length;
    call->fault = er_load_call_body(call, (const char *)bytes, length);
    if (call->fault) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream, NGHTTP2_CANCEL);
    }
    return 0;
}

static void greet(struct er_load_conn *conn) {
    uint32_t most = nghttp2_session_get_remote_settings(conn->h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    size_t wanted = conn->worker->config.streams;
    conn->limit = most < wanted ? most : wanted;
    if (conn->busy >= conn->limit) {
        er_load_unlist(conn);
    }
    conn->h2->greeted = true;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *data) {
    struct er_load_conn *conn = data;
    struct er_load_call *call = call_of(session, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        greet(conn);
    } else if (frame->hd.type == NGHTTP2_GOAWAY) {
        retire(conn);
    } else if (call && frame->hd.type == NGHTTP2_HEADERS && call->status >= 200) {
        er_load_call_headers_end(call);
    }
    bool ends = frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA;
    if (call && ends && frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        call->complete = true;
    }
    return 0;
}

static void end_stream(struct er_load_call *call, uint32_t code) {
    if (call->complete && !call->fault && code == NGHTTP2_NO_ERROR) {
        er_load_end_answered(call);
    } else if (call->fault) {
        er_load_end(call, ER_LOAD_PROTOCOL, call->fault);
    } else if (code == NGHTTP2_PROTOCOL_ERROR) {
        er_load_end(call, ER_LOAD_PROTOCOL, "the answer breaks the rules of HTTP/2");
    } else {
        er_load_refused(call, code == NGHTTP2_REFUSED_STREAM, nghttp2_http2_strerror(code));
    }
}

static int on_stream_close(nghttp2_session *session, int32_t stream, uint32_t code, void *data) {
    struct er_load_conn *conn = data;
    struct er_load_call *call = call_of(session, stream);
    if (!call) {
        return 0;
    }
    end_stream(call, code);
    conn->served = true;
    if (conn->busy < conn->limit) {
        er_load_list(conn);
    }
    if (conn->leaving) {
        mark_dirty(conn);
    }
    return 0;
}

static nghttp2_session *new_session(struct er_load_conn *conn) {
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_session *session = NULL;
    if (nghttp2_session_callbacks_new(&callbacks) != 0) {
        return NULL;
    }
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    int status = nghttp2_session_client_new(&session, callbacks, conn);
    nghttp2_session_callbacks_del(callbacks);
    return status == 0 ? session : NULL;
}

static bool introduce(nghttp2_session *session) {
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, STREAM_WINDOW}};
    return nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) == 0 &&
           nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, WINDOW) == 0;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *into, size_t size, uint32_t *flags,
                         nghttp2_data_source *source, void *data) {
    (void)session, (void)stream, (void)data;
    struct er_load_call *call = source->ptr;
    size_t left = call->request->length - call->request->body - call->offset;
    size_t length = left < size ? left : size;
    memcpy(into, call->request->bytes + call->request->body + call->offset, length);
    call->offset += length;
    if (length == left) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return (ssize_t)length;
}

static void submit(struct er_load_call *call) {
    const struct er_load_request *request = call->request;
    nghttp2_data_provider body = {.source.ptr = call, .read_callback = read_body};
    bool has_body = request->length > request->body;
    call->stream = nghttp2_submit_request(call->conn->h2->session, NULL, request->fields, request->field_count,
                                          has_body ? &body : NULL, call);
    if (call->stream < 0) { // no stream is left: the numbers have run out
        call->stream = 0;
        retire(call->conn);
        er_load_refused(call, true, "no stream is left");
    }
}

void er_load_h2_send(struct er_load_call *call) {
    if (call->conn->h2) {
        submit(call);
        mark_dirty(call->conn);
    } else if (call->conn->state == ER_CONN_IDLE && er_load_h2_open(call->conn) != ER_OK) {
        er_load_conn_broke(call->conn, ER_LOAD_CONNECT, "not enough memory for HTTP/2");
    }
}

// What waits on the connection goes out in the order of its planned times.
static void submit_waiting(struct er_load_conn *conn) {
    struct er_load_call *call = conn->worker->oldest;
    while (call) {
        struct er_load_call *next = call->next;
        if (call->conn == conn && call->request && !call->stream) {
            submit(call);
        }
        call = next;
    }
}

enum er_status er_load_h2_open(struct er_load_conn *conn) {
    struct er_load_h2 *h2 = er_calloc(1, sizeof *h2);
    if (!h2) {
        return ER_NO_MEMORY;
    }
    conn->h2 = h2;
    conn->state = ER_CONN_WAITING;
    h2->rest.max = SIZE_MAX;
    h2->session = new_session(conn);
    if (!h2->session || !introduce(h2->session)) {
        return ER_NO_MEMORY;
    }
    submit_waiting(conn);
    mark_dirty(conn);
    return ER_OK;
}

void er_load_h2_forget(struct er_load_call *call) {
    struct er_load_conn *conn = call->conn;
    if (conn->h2 && call->stream) {
        nghttp2_session_set_stream_user_data(conn->h2->session, call->stream, NULL);
        nghttp2_submit_rst_stream(conn->h2->session, NGHTTP2_FLAG_NONE, call->stream, NGHTTP2_CANCEL);
        mark_dirty(conn);
    }
    if (conn->heard_at < call->planned) { // nothing was heard since: whether it lives is not known
        retire(conn);
    }
}

void er_load_h2_feed(struct er_load_conn *conn, const char *bytes, size_t length) {
    struct er_load_h2 *h2 = conn->h2;
    conn->heard_at = er_load_worker_elapsed(conn->worker);
    if (!h2->greeted && length >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        h2->fault = "the server answers in HTTP/1.1, not HTTP/2";
    } else {
        ssize_t taken = nghttp2_session_mem_recv(h2->session, (const uint8_t *)bytes, length);
        h2->fault = taken < 0 ? nghttp2_strerror((int)taken) : NULL;
        if (!h2->fault && !nghttp2_session_want_read(h2->session)) {
            h2->fault = conn->busy ? "the server breaks the rules of HTTP/2" : NULL;
            retire(conn);
        }
    }
    if (h2->fault) {
        er_load_conn_broke(conn, ER_LOAD_PROTOCOL, h2->fault);
    } else if (h2->greeted && conn->worker->phase == ER_LOAD_CONNECTING) {
        er_load_worker_connected(conn->worker, conn, 0, NULL);
    } else if (nghttp2_session_want_write(h2->session)) {
        mark_dirty(conn);
    }
}

static bool send_rest(struct er_load_conn *conn) {
    struct er_load_h2 *h2 = conn->h2;
    while (h2->rest_at < h2->rest.length) {
        ssize_t sent = er_load_transmit(conn, h2->rest.data + h2->rest_at, h2->rest.length - h2->rest_at);
        if (sent < 0) {
            return !er_load_would_block(); // a broken one: what is read next tells
        }
        h2->rest_at += (size_t)sent;
        conn->worker->stats.bytes_out += (uint64_t)sent;
    }
    er_buf_release(&h2->rest);
    h2->rest_at = 0;
    return true;
}

// Frames are small: as many as fit go out in one call.
static size_t gather(struct er_load_h2 *h2, char *out) {
    size_t length = 0;
    while (length < OUT_SIZE / 2) {
        const uint8_t *frame;
        ssize_t size = nghttp2_session_mem_send(h2->session, &frame);
        if (size <= 0) {
            break;
        }
        if ((size_t)size > OUT_SIZE - length) {
            er_buf_add(&h2->rest, out, length);
            er_buf_add(&h2->rest, frame, (size_t)size);
            return 0;
        }
        memcpy(out + length, frame, (size_t)size);
        length += (size_t)size;
    }
    return length;
}

static bool send_all(struct er_load_conn *conn) {
    char out[OUT_SIZE];
    size_t length;
    while (send_rest(conn)) {
        length = gather(conn->h2, out);
        if (length == 0 && conn->h2->rest.length == 0) {
            return true;
        }
        ssize_t sent = length ? er_load_transmit(conn, out, length) : 0;
        if (sent < 0 && !er_load_would_block()) {
            return true;
        }
        size_t done = sent > 0 ? (size_t)sent : 0;
        conn->worker->stats.bytes_out += done;
        er_buf_add(&conn->h2->rest, out + done, length - done);
    }
    return false;
}

void er_load_h2_flush(struct er_load_conn *conn) {
    if (conn->leaving && conn->busy == 0) {
        er_load_conn_close(conn);
        return;
    }
    if (!conn->h2) {
        return; // it is still connecting
    }
    bool blocked = !send_all(conn);
    if (blocked || conn->state == ER_CONN_SENDING) {
        conn->worker->io->want_write(conn, blocked);
        conn->state = blocked ? ER_CONN_SENDING : ER_CONN_WAITING;
    }
}

void er_load_h2_close(struct er_load_conn *conn) {
    if (conn->h2) {
        nghttp2_session_del(conn->h2->session);
        er_buf_release(&conn->h2->rest);
        er_free(conn->h2);
        conn->h2 = NULL;
    }
}
