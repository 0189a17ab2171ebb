// SPDX-License-Identifier: Apache-2.0
// Sending: at once when the socket takes it, else through libuv, without copying bodies.
#include "http_server_impl.h"

#include <string.h>

static size_t left(const struct er_httpd_conn *conn) {
    return conn->pieces[0].length + conn->pieces[1].length + conn->pieces[2].length;
}

static unsigned gather(const struct er_httpd_conn *conn, uv_buf_t bufs[3]) {
    unsigned count = 0;
    for (size_t i = 0; i < 3; i++) {
        size_t length = conn->pieces[i].length;
        if (length > 0) {
            bufs[count++] = (uv_buf_t){.base = (char *)conn->pieces[i].data, .len = length};
        }
    }
    return count;
}

static void advance(struct er_httpd_conn *conn, size_t sent) {
    for (size_t i = 0; i < 3; i++) {
        struct er_httpd_bytes *piece = &conn->pieces[i];
        size_t step = sent < piece->length ? sent : piece->length;
        piece->data += step;
        piece->length -= step;
        sent -= step;
    }
}

// The head lives in the server's scratch buffer: what is left of it needs a place of its own.
static bool keep_head(struct er_httpd_conn *conn) {
    struct er_httpd_bytes *head = &conn->pieces[0];
    if (head->length == 0 || head->data == conn->kept.data) {
        return true;
    }
    er_buf_clear(&conn->kept);
    if (er_buf_add(&conn->kept, head->data, head->length) != ER_OK) {
        return false;
    }
    head->data = conn->kept.data;
    return true;
}

static void sent_all(struct er_httpd_conn *conn) {
    conn->sending = false;
    conn->progress = true;
    if (conn->phase == CONN_REFUSED) {
        er_httpd_conn_end(conn);
    } else if (conn->phase == CONN_REQUEST && conn->req) {
        er_httpd_reply_sent(conn);
    }
}

static void on_write(uv_write_t *write, int status) {
    struct er_httpd_conn *conn = write->data;
    er_touch(conn->server->rt);
    conn->writing = false;
    if (conn->phase == CONN_CLOSED) {
        return;
    }
    if (status != 0) {
        er_httpd_conn_close(conn);
        return;
    }
    if (conn->ssl) {
        er_buf_clear(&conn->cipher);
    } else {
        advance(conn, left(conn));
    }
    er_httpd_conn_flush(conn);
    er_httpd_conn_kick(conn);
}

static void write_later(struct er_httpd_conn *conn, const uv_buf_t *bufs, unsigned count) {
    conn->write.data = conn;
    conn->writing = true;
    if (uv_write(&conn->write, &conn->io.stream, bufs, count, on_write) != 0) {
        conn->writing = false;
        er_httpd_conn_close(conn);
    }
}

static size_t try_write(struct er_httpd_conn *conn, const uv_buf_t *bufs, unsigned count) {
    int sent = uv_try_write(&conn->io.stream, bufs, count);
    if (sent < 0 && sent != UV_EAGAIN) {
        er_httpd_conn_close(conn);
    }
    return sent < 0 ? 0 : (size_t)sent;
}

static void flush_plain(struct er_httpd_conn *conn) {
    uv_buf_t bufs[3];
    unsigned count = gather(conn, bufs);
    if (count > 0) {
        advance(conn, try_write(conn, bufs, count));
    }
    if (conn->phase == CONN_CLOSED) {
        return;
    }
    if (left(conn) == 0) {
        sent_all(conn);
    } else if (keep_head(conn)) {
        count = gather(conn, bufs);
        write_later(conn, bufs, count);
    } else {
        er_httpd_conn_close(conn);
    }
}

// Sends one load of records; true while there is more to do now.
static bool flush_cipher(struct er_httpd_conn *conn) {
    struct er_buf *cipher = &conn->cipher;
    if (!er_httpd_tls_encrypt(conn)) {
        er_httpd_conn_close(conn);
        return false;
    }
    if (cipher->length == 0) {
        return false;
    }
    uv_buf_t buf = {.base = cipher->data, .len = cipher->length};
    size_t sent = try_write(conn, &buf, 1);
    if (conn->phase == CONN_CLOSED) {
        return false;
    }
    if (sent < cipher->length) {
        buf = (uv_buf_t){.base = cipher->data + sent, .len = cipher->length - sent};
        if (!keep_head(conn)) {
            er_httpd_conn_close(conn);
            return false;
        }
        write_later(conn, &buf, 1);
        return false;
    }
    er_buf_clear(cipher);
    return true;
}

static void flush_tls(struct er_httpd_conn *conn) {
    while (flush_cipher(conn)) {
    }
    if (conn->phase == CONN_CLOSED || conn->writing || left(conn) > 0) {
        return;
    }
    if (conn->cipher.capacity > 4096) {
        er_buf_release(&conn->cipher);
    }
    if (conn->sending) {
        sent_all(conn);
    }
}

void er_httpd_conn_flush(struct er_httpd_conn *conn) {
    if (conn->writing || conn->phase == CONN_CLOSED) {
        return;
    }
    if (conn->ssl) {
        flush_tls(conn);
    } else if (conn->sending) {
        flush_plain(conn);
    }
}

void er_httpd_conn_send(struct er_httpd_conn *conn, struct er_httpd_bytes head, struct er_httpd_bytes body,
                        struct er_httpd_bytes tail) {
    conn->pieces[0] = head;
    conn->pieces[1] = body;
    conn->pieces[2] = tail;
    conn->sending = true;
    if (conn->writing && !keep_head(conn)) {
        er_httpd_conn_close(conn);
        return;
    }
    er_httpd_conn_flush(conn);
    if (conn->sending) {
        er_httpd_conn_kick(conn); // from now on the peer has a deadline
    }
}

bool er_httpd_conn_send_now(struct er_httpd_conn *conn, const char *text, size_t length) {
    if (conn->ssl) {
        conn->pieces[0] = (struct er_httpd_bytes){text, length};
        er_httpd_conn_flush(conn);
        return conn->phase != CONN_CLOSED && left(conn) == 0;
    }
    uv_buf_t buf = {.base = (char *)text, .len = length};
    return try_write(conn, &buf, 1) == length;
}
