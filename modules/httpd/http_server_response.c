// SPDX-License-Identifier: Apache-2.0
// Replies: the head, the framing, and when a reply is over.
#include "http_server_impl.h"

#include <string.h>
#include <strings.h>

static const struct er_httpd_bytes nothing;

const char *er_httpd_reason(int status) {
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Entity"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status) {
            return reasons[i].reason;
        }
    }
    return "Unknown";
}

int er_httpd_default_status(const struct er_httpd_req *req) {
    if (req->body != BODY_FAILED) {
        return 500;
    }
    switch (req->body_status) {
    case ER_QUOTA:
        return 413;
    case ER_TIMEOUT:
        return 408;
    case ER_INVALID:
        return 400;
    default:
        return 500;
    }
}

bool er_httpd_reply_started(const struct er_httpd_req *req) { return req->reply != REPLY_NONE; }

bool er_httpd_reply_streaming(const struct er_httpd_req *req) { return req->reply == REPLY_STREAMING; }

bool er_httpd_reply_finished(const struct er_httpd_req *req) {
    return req->reply == REPLY_LAST || req->reply == REPLY_FILE || req->reply == REPLY_FINISHED;
}

bool er_httpd_reply_pending(const struct er_httpd_req *req) {
    return req->conn && (req->conn->sending || req->reply == REPLY_LAST || req->reply == REPLY_FILE) &&
           req->reply != REPLY_FINISHED;
}

enum er_status er_httpd_reply_result(const struct er_httpd_req *req, struct er_error *err) {
    return req->reply_status == ER_OK
               ? ER_OK
               : er_fail(err, req->reply_status, "cannot send the reply: %s", req->reply_message);
}

void er_httpd_reply_fail(struct er_httpd_req *req, enum er_status status, const char *message) {
    if (req->reply != REPLY_FINISHED && req->reply_status == ER_OK) {
        req->reply_status = status;
        req->reply_message = message;
    }
}

enum er_status er_httpd_reply_begin(struct er_httpd_req *req, int status, struct er_error *err) {
    if (req->reply != REPLY_NONE) {
        return er_fail(err, ER_INVALID, "the request has its reply already");
    }
    if (status < 200 || status > 599) {
        return er_fail(err, ER_INVALID, "%d is not a status that a reply can have", status);
    }
    er_buf_clear(&req->server->head);
    req->status = status;
    req->has_date = req->has_length = false;
    req->no_body = req->is_head || status == 204 || status == 304;
    return er_buf_printf(&req->server->head, "HTTP/1.1 %d %s\r\n", status, er_httpd_reason(status)) == ER_OK
               ? ER_OK
               : er_fail(err, ER_NO_MEMORY, "cannot reply: out of memory");
}

static bool is_token(const char *text, size_t length) {
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        bool letter = (c | 32) >= 'a' && (c | 32) <= 'z';
        if (!letter && !(c >= '0' && c <= '9') && (c == 0 || !strchr(others, c))) {
            return false;
        }
    }
    return length > 0;
}

static bool is_value(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < ' ' && c != '\t') || c == 127) {
            return false;
        }
    }
    return true;
}

static bool parse_length(const char *value, size_t length, uint64_t *number) {
    uint64_t sum = 0;
    for (size_t i = 0; i < length; i++) {
        if (value[i] < '0' || value[i] > '9' || sum > (INT64_MAX - 9) / 10) {
            return false;
        }
        sum = sum * 10 + (uint64_t)(value[i] - '0');
    }
    *number = sum;
    return length > 0;
}

static bool equals(const char *text, size_t length, const char *word) {
    return length == strlen(word) && strncasecmp(text, word, length) == 0;
}

// Fields that say something about the framing. Sets `skip` where the line is ours to write.
static enum er_status note_field(struct er_httpd_req *req, const char *name, size_t name_length, const char *value,
                                 size_t value_length, bool *skip, struct er_error *err) {
    if (equals(name, name_length, "date")) {
        req->has_date = true;
    } else if (equals(name, name_length, "content-length")) {
        req->has_length = true;
        *skip = true;
        if (!parse_length(value, value_length, &req->reply_left)) {
            return er_fail(err, ER_INVALID, "Content-Length '%.*s' is not a length",
                           (int)(value_length < 40 ? value_length : 40), value);
        }
    } else if (equals(name, name_length, "connection")) {
        *skip = true;
        req->close_after = req->close_after || equals(value, value_length, "close");
    } else if (equals(name, name_length, "transfer-encoding")) {
        return er_fail(err, ER_INVALID, "Transfer-Encoding is the server's to choose");
    }
    return ER_OK;
}

enum er_status er_httpd_reply_field(struct er_httpd_req *req, const char *name, size_t name_length, const char *value,
                                    size_t value_length, struct er_error *err) {
    if (!is_token(name, name_length)) {
        return er_fail(err, ER_INVALID, "'%.*s' is not a header name", (int)(name_length < 80 ? name_length : 80),
                       name);
    }
    if (!is_value(value, value_length)) {
        return er_fail(err, ER_INVALID, "header %.*s has a control character in its value",
                       (int)(name_length < 80 ? name_length : 80), name);
    }
    bool skip = false;
    enum er_status status = note_field(req, name, name_length, value, value_length, &skip, err);
    if (status != ER_OK || skip) {
        return status;
    }
    struct er_buf *head = &req->server->head;
    bool added = er_buf_add(head, name, name_length) == ER_OK && er_buf_add(head, ": ", 2) == ER_OK &&
                 er_buf_add(head, value, value_length) == ER_OK && er_buf_add(head, "\r\n", 2) == ER_OK;
    return added ? ER_OK : er_fail(err, ER_QUOTA, "the reply's headers are too long");
}

// Whether the connection can serve another request after this one.
static bool must_close(const struct er_httpd_req *req) {
    bool body_held_back = req->body == BODY_UNREAD && (req->expect_continue || req->content_length > DRAIN_SIZE);
    return req->close_after || !req->keep_alive || req->server->closed || req->until_close || body_held_back ||
           req->body == BODY_FAILED;
}

static enum er_status end_head(struct er_httpd_req *req, struct er_error *err) {
    struct er_buf *head = &req->server->head;
    enum er_status status = ER_OK;
    if (!req->has_date) {
        status = er_buf_printf(head, "Date: %s\r\n", er_httpd_date(req->server));
    }
    if (status == ER_OK && req->has_length && req->status != 204) {
        status = er_buf_printf(head, "Content-Length: %llu\r\n", (unsigned long long)req->reply_left);
    }
    if (status == ER_OK && req->reply_chunked) {
        status = er_buf_add_str(head, "Transfer-Encoding: chunked\r\n");
    }
    req->close_after = must_close(req);
    if (status == ER_OK && (req->close_after || req->head.minor == 0)) {
        status = er_buf_add_str(head, req->close_after ? "Connection: close\r\n" : "Connection: keep-alive\r\n");
    }
    if (status == ER_OK) {
        status = er_buf_add(head, "\r\n", 2);
    }
    return status == ER_OK ? ER_OK : er_fail(err, ER_NO_MEMORY, "cannot reply: out of memory");
}

static struct er_httpd_bytes composed_head(const struct er_httpd_req *req) {
    return (struct er_httpd_bytes){req->server->head.data, req->server->head.length};
}

static enum er_status gone(struct er_error *err) {
    return er_fail(err, ER_NETWORK, "cannot send the reply: the connection was closed");
}

enum er_status er_httpd_reply_whole(struct er_httpd_req *req, const char *body, size_t length, struct er_error *err) {
    if (req->has_length && req->reply_left != length && !req->no_body) {
        return er_fail(err, ER_INVALID, "Content-Length is %llu but the body has %zu bytes",
                       (unsigned long long)req->reply_left, length);
    }
    if (!req->has_length) {
        req->has_length = !(req->status == 304 && length == 0);
        req->reply_left = length;
    }
    enum er_status status = end_head(req, err);
    if (status != ER_OK) {
        return status;
    }
    if (!req->conn) {
        req->reply = REPLY_LAST;
        return gone(err);
    }
    req->reply = REPLY_LAST;
    struct er_httpd_bytes content = {body, req->no_body ? 0 : length};
    er_httpd_conn_send(req->conn, composed_head(req), content, nothing);
    return ER_OK;
}

enum er_status er_httpd_reply_stream(struct er_httpd_req *req, struct er_error *err) {
    if (!req->has_length && !req->no_body) {
        req->reply_chunked = req->head.minor > 0;
        req->until_close = !req->reply_chunked;
    }
    enum er_status status = end_head(req, err);
    if (status != ER_OK) {
        return status;
    }
    req->reply = REPLY_STREAMING;
    if (!req->conn) {
        return gone(err);
    }
    er_httpd_conn_send(req->conn, composed_head(req), nothing, nothing);
    return ER_OK;
}

enum er_status er_httpd_reply_write(struct er_httpd_req *req, const char *bytes, size_t length, struct er_error *err) {
    if (!req->conn) {
        return gone(err);
    }
    if (length == 0 || req->no_body) {
        return ER_OK;
    }
    if (req->has_length) {
        if (length > req->reply_left) {
            return er_fail(err, ER_INVALID, "more bytes than Content-Length announced");
        }
        req->reply_left -= length;
    }
    struct er_httpd_bytes head = nothing, tail = nothing;
    if (req->reply_chunked) {
        int digits = snprintf(req->chunk_line, sizeof req->chunk_line, "%zx\r\n", length);
        head = (struct er_httpd_bytes){req->chunk_line, (size_t)digits};
        tail = (struct er_httpd_bytes){"\r\n", 2};
    }
    er_httpd_conn_send(req->conn, head, (struct er_httpd_bytes){bytes, length}, tail);
    return ER_OK;
}

enum er_status er_httpd_reply_finish(struct er_httpd_req *req, struct er_error *err) {
    if (!req->conn) {
        return gone(err);
    }
    if (req->has_length && req->reply_left > 0 && !req->no_body) {
        unsigned long long missing = req->reply_left;
        er_httpd_req_abort(req); // the peer must not take the cut for the end
        return er_fail(err, ER_INVALID, "%llu bytes fewer than Content-Length announced", missing);
    }
    req->reply = REPLY_LAST;
    struct er_httpd_bytes last = {"0\r\n\r\n", 5};
    er_httpd_conn_send(req->conn, nothing, nothing, req->reply_chunked ? last : nothing);
    return ER_OK;
}

enum er_status er_httpd_reply_file(struct er_httpd_req *req, const char *path, uint64_t offset, uint64_t length,
                                   struct er_error *err) {
    if (req->has_length && req->reply_left != length) {
        return er_fail(err, ER_INVALID, "Content-Length is %llu but the range has %llu bytes",
                       (unsigned long long)req->reply_left, (unsigned long long)length);
    }
    enum er_status status = req->conn ? er_httpd_source_open(req, path, offset, length, err) : gone(err);
    if (status != ER_OK) {
        return status;
    }
    req->has_length = true;
    req->reply_left = length;
    status = end_head(req, err);
    if (status != ER_OK) {
        er_httpd_source_abandon(req);
        return status;
    }
    if (req->no_body || length == 0) {
        er_httpd_source_abandon(req);
        req->reply = REPLY_LAST;
        er_httpd_conn_send(req->conn, composed_head(req), nothing, nothing);
    } else {
        req->reply = REPLY_FILE;
        er_httpd_source_start(req, composed_head(req));
    }
    return ER_OK;
}

void er_httpd_reply_sent(struct er_httpd_conn *conn) {
    struct er_httpd_req *req = conn->req;
    if (req->reply == REPLY_FILE) {
        er_httpd_source_sent(req); // a last block that goes out now tells its own end
        er_httpd_conn_kick(conn);
        return;
    }
    if (req->reply == REPLY_LAST) {
        req->reply = REPLY_FINISHED;
        er_event("reply sent");
    }
    er_httpd_req_wake(req);
    er_httpd_conn_kick(conn);
}
