// SPDX-License-Identifier: Apache-2.0
// llhttp's callbacks, and what a request's head must be like beyond what llhttp checks.
#include "http_server_impl.h"

#include <string.h>
#include <strings.h>

static struct er_httpd_conn *conn_of(llhttp_t *parser) { return parser->data; }

// Ends the parse; the status is answered when llhttp has returned.
static int refuse(struct er_httpd_conn *conn, int status) {
    conn->refusal = status;
    return -1;
}

static int on_message_begin(llhttp_t *parser) {
    struct er_httpd_conn *conn = conn_of(parser);
    conn->req = er_httpd_req_new(conn);
    conn->phase = CONN_HEAD;
    return conn->req ? 0 : refuse(conn, 503);
}

static int add_text(struct er_httpd_conn *conn, const char *at, size_t length) {
    switch (er_buf_add(&conn->req->text, at, length)) {
    case ER_OK:
        return 0;
    case ER_QUOTA:
        return refuse(conn, 431);
    default:
        return refuse(conn, 503);
    }
}

static int on_url(llhttp_t *parser, const char *at, size_t length) {
    struct er_httpd_conn *conn = conn_of(parser);
    struct er_httpd_req *req = conn->req;
    if (length > conn->server->limits.target - req->target_length) {
        return refuse(conn, 414);
    }
    req->target_length += (uint32_t)length;
    return add_text(conn, at, length);
}

static bool grow_fields(struct er_httpd_req *req) {
    size_t capacity = req->field_capacity ? 2 * req->field_capacity : 16;
    struct er_httpd_field *fields = er_realloc(req->fields, capacity * sizeof *fields);
    if (fields) {
        req->fields = fields;
        req->field_capacity = capacity;
    }
    return fields != NULL;
}

static int begin_field(struct er_httpd_conn *conn) {
    struct er_httpd_req *req = conn->req;
    if (req->head.field_count >= conn->server->limits.header_count) {
        return refuse(conn, 431);
    }
    if (req->head.field_count == req->field_capacity && !grow_fields(req)) {
        return refuse(conn, 503);
    }
    req->fields[req->head.field_count++] = (struct er_httpd_field){.name = (uint32_t)req->text.length};
    req->in_name = true;
    return 0;
}

// Trailers are read over: nobody here asks for them, and they must not pass for headers.
static int skip_trailer(struct er_httpd_conn *conn, size_t length) {
    conn->req->extension_size += length;
    if (conn->req->extension_size > EXTENSION_SIZE) {
        er_httpd_body_fail(conn->req, ER_QUOTA, "the body's chunk extensions or trailers are too long");
        return -1;
    }
    return 0;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t length) {
    struct er_httpd_conn *conn = conn_of(parser);
    struct er_httpd_req *req = conn->req;
    if (conn->phase == CONN_REQUEST) {
        return skip_trailer(conn, length);
    }
    if (!req->in_name && begin_field(conn) != 0) {
        return -1;
    }
    req->fields[req->head.field_count - 1].name_length += (uint32_t)length;
    return add_text(conn, at, length);
}

static int on_header_value(llhttp_t *parser, const char *at, size_t length) {
    struct er_httpd_conn *conn = conn_of(parser);
    struct er_httpd_req *req = conn->req;
    if (conn->phase == CONN_REQUEST) {
        return skip_trailer(conn, length);
    }
    if (!req->in_name) {
        return refuse(conn, 400); // llhttp lets a name be empty
    }
    struct er_httpd_field *field = &req->fields[req->head.field_count - 1];
    if (!req->in_value) {
        field->value = (uint32_t)req->text.length;
        req->in_value = true;
    }
    field->value_length += (uint32_t)length;
    return add_text(conn, at, length);
}

static int on_header_value_complete(llhttp_t *parser) {
    struct er_httpd_conn *conn = conn_of(parser);
    struct er_httpd_req *req = conn->req;
    if (conn->phase == CONN_REQUEST) {
        return 0;
    }
    if (!req->in_name || req->fields[req->head.field_count - 1].name_length == 0) {
        return refuse(conn, 400);
    }
    struct er_httpd_field *field = &req->fields[req->head.field_count - 1];
    if (!req->in_value) {
        field->value = (uint32_t)req->text.length;
    }
    const char *value = req->text.data + field->value;
    while (field->value_length && (value[field->value_length - 1] == ' ' || value[field->value_length - 1] == '\t')) {
        field->value_length--;
    }
    req->in_name = req->in_value = false;
    return 0;
}

static bool named(const struct er_httpd_req *req, const struct er_httpd_field *field, const char *name) {
    return strncasecmp(req->text.data + field->name, name, field->name_length) == 0;
}

static bool valued(const struct er_httpd_req *req, const struct er_httpd_field *field, const char *value) {
    return field->value_length == strlen(value) &&
           strncasecmp(req->text.data + field->value, value, field->value_length) == 0;
}

struct seen {
    unsigned host, length, coding;
};

// One field's part in the framing of the message; 0 or the status that refuses it.
static int check_field(struct er_httpd_req *req, const struct er_httpd_field *field, struct seen *seen) {
    if (field->name_length == 4 && named(req, field, "host")) {
        seen->host++;
    } else if (field->name_length == 14 && named(req, field, "content-length")) {
        seen->length++;
    } else if (field->name_length == 17 && named(req, field, "transfer-encoding")) {
        seen->coding++;
        return valued(req, field, "chunked") ? 0 : 501;
    } else if (field->name_length == 6 && named(req, field, "expect")) {
        req->expect_continue = valued(req, field, "100-continue");
        return req->expect_continue ? 0 : 417;
    }
    return 0;
}

// A proxy in front of us that read such a head differently would let one client speak in another's name.
static int check_fields(struct er_httpd_req *req) {
    struct seen seen = {0};
    for (size_t i = 0; i < req->head.field_count; i++) {
        int status = check_field(req, &req->fields[i], &seen);
        if (status) {
            return status;
        }
    }
    bool host_missing = seen.host == 0 && req->head.minor > 0;
    if (host_missing || seen.host > 1 || seen.length > 1 || seen.coding > 1 || (seen.length && seen.coding) ||
        (seen.coding && req->head.minor == 0)) {
        return 400;
    }
    return 0;
}

// llhttp also knows the methods of RTSP and ICE.
static int check_request_line(const llhttp_t *parser) {
    if (parser->http_major != 1 || parser->http_minor > 1) {
        return 505;
    }
    bool http = parser->method <= HTTP_UNLINK && parser->method != HTTP_CONNECT;
    return http && parser->method != HTTP_PRI && parser->method != HTTP_SOURCE ? 0 : 501;
}

static void split_target(struct er_httpd_head *head) {
    const char *at = head->text, *end = head->text + head->target.length;
    if (at < end && *at != '/' && *at != '*') { // absolute form: http://host/path
        const char *host = memmem(at, (size_t)(end - at), "://", 3);
        const char *slash = host ? memchr(host + 3, '/', (size_t)(end - host - 3)) : NULL;
        at = slash ? slash : end;
    }
    const char *mark = memchr(at, '?', (size_t)(end - at));
    const char *path_end = mark ? mark : end;
    head->path =
        at == path_end ? (struct er_httpd_bytes){"/", 1} : (struct er_httpd_bytes){at, (size_t)(path_end - at)};
    head->query = mark ? (struct er_httpd_bytes){mark + 1, (size_t)(end - mark - 1)} : (struct er_httpd_bytes){"", 0};
}

static void fill_head(struct er_httpd_req *req, const llhttp_t *parser) {
    struct er_httpd_head *head = &req->head;
    head->method = llhttp_method_name(parser->method);
    head->minor = parser->http_minor;
    head->text = req->text.data;
    head->fields = req->fields;
    head->target = (struct er_httpd_bytes){req->text.data, req->target_length};
    head->peer = req->peer;
    split_target(head);
    req->is_head = parser->method == HTTP_HEAD;
    req->keep_alive = llhttp_should_keep_alive(parser);
    req->chunked = parser->flags & F_CHUNKED;
    req->content_length = req->chunked ? 0 : parser->content_length;
    req->body = req->chunked || req->content_length ? BODY_UNREAD : BODY_DONE;
}

static int on_headers_complete(llhttp_t *parser) {
    struct er_httpd_conn *conn = conn_of(parser);
    struct er_httpd_req *req = conn->req;
    parser->upgrade = 0; // upgrades are not offered, so the request is an ordinary one
    int status = check_request_line(parser);
    if (!status) {
        fill_head(req, parser);
        status = check_fields(req);
    }
    if (!status && req->content_length > conn->server->limits.body) {
        status = 413;
    }
    if (status) {
        return refuse(conn, status);
    }
    return req->body == BODY_UNREAD ? HPE_PAUSED : 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t length) {
    struct er_httpd_req *req = conn_of(parser)->req;
    er_httpd_body_add(req, at, length);
    return req->body == BODY_FAILED ? -1 : 0;
}

static int on_chunk_extension(llhttp_t *parser, const char *at, size_t length) {
    (void)at;
    return skip_trailer(conn_of(parser), length);
}

static int on_message_complete(llhttp_t *parser) {
    struct er_httpd_conn *conn = conn_of(parser);
    if (conn->phase == CONN_REQUEST) {
        er_httpd_body_end(conn->req);
    }
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_extension_name = on_chunk_extension,
    .on_chunk_extension_value = on_chunk_extension,
    .on_message_complete = on_message_complete,
};

void er_httpd_parser_init(struct er_httpd_conn *conn) {
    llhttp_init(&conn->parser, HTTP_REQUEST, &settings);
    conn->parser.data = conn;
    conn->head_size = 0;
    conn->last_byte = '\0';
    conn->refusal = 0;
}

// llhttp lets lines end in a bare LF and be folded; both have been used to make two parsers disagree.
static bool lines_are_plain(struct er_httpd_conn *conn, const char *data, size_t length) {
    const char *end = data + length;
    if (conn->last_byte == '\n' && (*data == ' ' || *data == '\t')) {
        return false;
    }
    for (const char *lf = data; (lf = memchr(lf, '\n', (size_t)(end - lf))); lf++) {
        char before = lf > data ? lf[-1] : conn->last_byte;
        bool folded = lf + 1 < end && (lf[1] == ' ' || lf[1] == '\t');
        if (before != '\r' || folded) {
            return false;
        }
    }
    conn->last_byte = end[-1];
    return true;
}

static int parse_error_status(llhttp_errno_t code) { return code == HPE_INVALID_VERSION ? 505 : 400; }

// Parses `length` bytes of the input and answers how many were used: all, but where a callback paused the parser.
static size_t execute(struct er_httpd_conn *conn, size_t length, llhttp_errno_t *code) {
    llhttp_resume(&conn->parser);
    *code = llhttp_execute(&conn->parser, conn->in, length);
    size_t used = *code == HPE_PAUSED ? (size_t)(llhttp_get_error_pos(&conn->parser) - conn->in) : length;
    conn->in += used;
    conn->in_length -= used;
    return used;
}

static void feed_head(struct er_httpd_conn *conn) {
    llhttp_errno_t code;
    const char *data = conn->in;
    size_t used = execute(conn, conn->in_length, &code);
    conn->head_size += used;
    if (code != HPE_OK && code != HPE_PAUSED) {
        er_httpd_conn_refuse(conn, conn->refusal ? conn->refusal : parse_error_status(code));
    } else if (conn->head_size > conn->server->limits.header) {
        er_httpd_conn_refuse(conn, 431);
    } else if (used && !lines_are_plain(conn, data, used)) {
        er_httpd_conn_refuse(conn, 400);
    } else if (code == HPE_PAUSED) {
        conn->phase = CONN_REQUEST;
        er_httpd_queue(conn->server, conn->req);
    }
}

static void feed_body(struct er_httpd_conn *conn) {
    llhttp_errno_t code;
    size_t room = er_httpd_body_room(conn->req);
    execute(conn, conn->in_length < room ? conn->in_length : room, &code);
    if (code != HPE_OK && code != HPE_PAUSED) {
        er_httpd_body_fail(conn->req, ER_INVALID, "the body is malformed"); // unless it has failed before
    }
}

void er_httpd_feed(struct er_httpd_conn *conn) {
    switch (conn->phase) {
    case CONN_IDLE:
    case CONN_HEAD:
        feed_head(conn);
        break;
    case CONN_REQUEST:
        feed_body(conn);
        break;
    default: // after the last reply: read over
        conn->lingered += conn->in_length;
        conn->in_length = 0;
        if (conn->lingered > LINGER_SIZE) {
            er_httpd_conn_close(conn);
        }
    }
}

bool er_httpd_wants_input(const struct er_httpd_conn *conn) {
    switch (conn->phase) {
    case CONN_HANDSHAKE:
    case CONN_IDLE:
    case CONN_HEAD:
    case CONN_LINGER:
        return true;
    case CONN_REQUEST:
        return conn->req->body == BODY_READING && !conn->req->body_whole && er_httpd_body_room(conn->req) > 0;
    case CONN_REFUSED:
    case CONN_CLOSED:
        break;
    }
    return false;
}
