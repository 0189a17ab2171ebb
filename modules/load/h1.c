// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 on a connection: one request, then its answer.
#include "worker.h"

static int refuse(llhttp_t *parser, const char *reason) {
    llhttp_set_error_reason(parser, reason);
    return HPE_USER;
}

static struct er_load_call *call_of(llhttp_t *parser) { return &((struct er_load_conn *)parser->data)->call; }

static int on_header_bytes(llhttp_t *parser, const char *at, size_t length) {
    struct er_load_call *call = call_of(parser);
    (void)at;
    call->header_bytes += length;
    return call->header_bytes > ER_LOAD_HEADERS_MAX ? refuse(parser, "headers over 64 KiB") : HPE_OK;
}

// What has no body may tell a length all the same: that of the answer to a GET (RFC 9110 8.6).
static bool is_bodiless(const struct er_load_call *call) {
    return er_load_request_is_head(call->request) || call->status == 204 || call->status == 304;
}

static int on_headers_complete(llhttp_t *parser) {
    struct er_load_call *call = call_of(parser);
    call->status = parser->status_code;
    er_load_call_headers_end(call);
    return is_bodiless(call) ? 1 : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t length) {
    const char *fault = er_load_call_body(call_of(parser), at, length);
    return fault ? refuse(parser, fault) : HPE_OK;
}

static int on_message_complete(llhttp_t *parser) {
    if (parser->status_code < 200) {
        return HPE_OK; // 100, 103: the answer proper follows
    }
    call_of(parser)->complete = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_status = on_header_bytes,
    .on_header_field = on_header_bytes,
    .on_header_value = on_header_bytes,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

void er_load_h1_flush(struct er_load_conn *conn) {
    struct er_load_call *call = &conn->call;
    const struct er_load_request *request = call->request;
    while (call->offset < request->length) {
        ssize_t sent = er_load_transmit(conn, request->bytes + call->offset, request->length - call->offset);
        if (sent < 0 && er_load_would_block()) {
            conn->state = ER_CONN_SENDING;
            conn->worker->io->want_write(conn, true);
            return;
        }
        if (sent < 0) {
            break; // the peer may have answered before it closed: what is read next tells
        }
        call->offset += (size_t)sent;
        conn->worker->stats.bytes_out += (uint64_t)sent;
    }
    if (conn->state != ER_CONN_WAITING) {
        conn->worker->io->want_write(conn, false);
    }
    conn->state = ER_CONN_WAITING;
}

void er_load_h1_send(struct er_load_conn *conn) {
    llhttp_init(&conn->parser, HTTP_RESPONSE, &settings);
    conn->parser.data = conn;
    conn->state = ER_CONN_WAITING;
    er_load_h1_flush(conn);
}

// `rest` bytes came after the end of the answer: nobody asked for them, so the connection is out of step.
static void answered(struct er_load_conn *conn, size_t rest) {
    struct er_load_call *call = &conn->call;
    bool in_step = rest == 0 && (!conn->ssl || er_tls_silent(conn->ssl));
    bool reusable = conn->worker->config.keep_alive && in_step && call->offset == call->request->length &&
                    llhttp_should_keep_alive(&conn->parser);
    er_load_end_answered(call);
    if (reusable) {
        conn->state = ER_CONN_IDLE;
        conn->served = true;
        er_load_list(conn);
    } else {
        er_load_conn_close(conn);
    }
}

void er_load_h1_feed(struct er_load_conn *conn, const char *bytes, size_t length) {
    struct er_load_call *call = &conn->call;
    call->bytes_in += length;
    enum llhttp_errno error = llhttp_execute(&conn->parser, bytes, length);
    if (call->complete) {
        answered(conn, length - (size_t)(llhttp_get_error_pos(&conn->parser) - bytes));
    } else if (error != HPE_OK) {
        call->status = conn->parser.status_code;
        er_load_end(call, ER_LOAD_PROTOCOL,
                    error == HPE_PAUSED_UPGRADE ? "the server has left HTTP: it switches protocols"
                                                : llhttp_get_error_reason(&conn->parser));
        er_load_conn_close(conn);
    }
}

// An answer without a length ends with the connection; anything else that ends so is cut short.
void er_load_h1_end_of_stream(struct er_load_conn *conn) {
    llhttp_finish(&conn->parser);
    if (conn->call.complete) {
        answered(conn, 0);
    } else {
        er_load_conn_broke(conn, ER_LOAD_RESET,
                           conn->call.bytes_in ? "the answer was cut short"
                                               : "the server closed the connection without an answer");
    }
}
