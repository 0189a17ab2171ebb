// SPDX-License-Identifier: Apache-2.0
#include "reply.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HEADERS_MAX = 64 * 1024, BODY_MAX = 16 * 1024 };

static size_t add(char *into, size_t size, size_t at, const char *bytes, size_t length) {
    size_t room = size - 1 - at;
    length = length < room ? length : room;
    memcpy(into + at, bytes, length);
    into[at + length] = '\0';
    return at + length;
}

static void copy(char into[ER_OSS_WORD], const char *value) { add(into, ER_OSS_WORD, 0, value, strlen(value)); }

static void on_etag(struct er_oss_reply *reply, const char *value) { copy(reply->etag, value); }
static void on_request_id(struct er_oss_reply *reply, const char *value) { copy(reply->request_id, value); }
static void on_ec(struct er_oss_reply *reply, const char *value) { copy(reply->ec, value); }

static void on_location(struct er_oss_reply *reply, const char *value) {
    add(reply->location, sizeof reply->location, 0, value, strlen(value));
}

static void on_crc(struct er_oss_reply *reply, const char *value) {
    char *end;
    reply->crc = strtoull(value, &end, 10);
    reply->has_crc = *value && !*end;
}

static void on_qos(struct er_oss_reply *reply, const char *value) { reply->qos_delay_ms = strtol(value, NULL, 10); }

static void on_date(struct er_oss_reply *reply, const char *value) {
    struct tm parts = {0};
    const char *end = strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &parts);
    reply->date = end ? timegm(&parts) : 0;
}

static void on_range(struct er_oss_reply *reply, const char *value) {
    reply->range_start = strncmp(value, "bytes ", 6) == 0 ? strtoll(value + 6, NULL, 10) : -1;
}

static const struct {
    const char *name;
    void (*take)(struct er_oss_reply *reply, const char *value);
} wanted[] = {
    {"etag", on_etag},           {"x-oss-hash-crc64ecma", on_crc}, {"x-oss-request-id", on_request_id},
    {"x-oss-ec", on_ec},         {"x-oss-qos-delay-time", on_qos}, {"date", on_date},
    {"content-range", on_range}, {"location", on_location},
};

static int refuse(llhttp_t *parser, const char *reason) {
    llhttp_set_error_reason(parser, reason);
    return HPE_USER;
}

static int count_header(struct er_oss_reply *reply, size_t length) {
    reply->header_bytes += length;
    return reply->header_bytes > HEADERS_MAX ? refuse(&reply->parser, "headers over 64 KiB") : HPE_OK;
}

static int on_name(llhttp_t *parser, const char *at, size_t length) {
    struct er_oss_reply *reply = parser->data;
    reply->name_length = add(reply->name, sizeof reply->name, reply->name_length, at, length);
    return count_header(reply, length);
}

static int on_value(llhttp_t *parser, const char *at, size_t length) {
    struct er_oss_reply *reply = parser->data;
    reply->value_length = add(reply->value, sizeof reply->value, reply->value_length, at, length);
    return count_header(reply, length);
}

static int on_header(llhttp_t *parser) {
    struct er_oss_reply *reply = parser->data;
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        if (strcasecmp(reply->name, wanted[i].name) == 0) {
            wanted[i].take(reply, reply->value);
        }
    }
    reply->name_length = reply->value_length = 0;
    reply->name[0] = reply->value[0] = '\0';
    return HPE_OK;
}

static int on_body(llhttp_t *parser, const char *at, size_t length) {
    struct er_oss_reply *reply = parser->data;
    if (reply->sink && (parser->status_code == 200 || parser->status_code == 206)) {
        reply->sink_status = reply->sink(reply->owner, at, length);
        return reply->sink_status == ER_OK ? HPE_OK : refuse(parser, "the body cannot be kept");
    }
    size_t room = reply->body.max - reply->body.length;
    return er_buf_add(&reply->body, at, length < room ? length : room) == ER_OK ? HPE_OK : refuse(parser, "no memory");
}

static int on_headers_complete(llhttp_t *parser) {
    struct er_oss_reply *reply = parser->data;
    reply->status = parser->status_code;
    return 0;
}

static int on_complete(llhttp_t *parser) {
    struct er_oss_reply *reply = parser->data;
    if (parser->status_code < 200) {
        return HPE_OK; // 100, 103: the answer proper follows
    }
    reply->complete = true;
    reply->keep_alive = llhttp_should_keep_alive(parser);
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_name,
    .on_header_value = on_value,
    .on_header_value_complete = on_header,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

void er_oss_reply_begin(struct er_oss_reply *reply) {
    struct er_buf body = reply->body;
    void *owner = reply->owner;
    enum er_status (*sink)(void *, const char *, size_t) = reply->sink;
    *reply = (struct er_oss_reply){.body = body, .owner = owner, .sink = sink, .range_start = -1};
    reply->body.max = BODY_MAX;
    er_buf_clear(&reply->body);
    llhttp_init(&reply->parser, HTTP_RESPONSE, &settings);
    reply->parser.data = reply;
}

static enum er_status broken(const struct er_oss_reply *reply, const struct er_oss_conn *conn, struct er_error *err) {
    if (reply->sink_status != ER_OK) {
        return reply->sink_status; // it has said why
    }
    const char *reason = llhttp_get_error_reason(&reply->parser);
    return er_fail(err, ER_NETWORK, "%s: the answer is no HTTP: %s", conn->peer->name, reason ? reason : "");
}

enum er_status er_oss_reply_read(struct er_oss_reply *reply, struct er_oss_conn *conn, char *buffer, size_t size,
                                 struct er_error *err) {
    while (!reply->complete) {
        size_t got;
        enum er_status status = er_oss_conn_receive(conn, buffer, size, &got, err);
        if (status != ER_OK) {
            return status;
        }
        enum llhttp_errno error = got ? llhttp_execute(&reply->parser, buffer, got) : llhttp_finish(&reply->parser);
        if (got == 0 && !reply->complete) {
            return er_fail(err, ER_NETWORK, "%s: the connection ended before the answer did", conn->peer->name);
        }
        if (error != HPE_OK && !reply->complete) {
            return broken(reply, conn, err);
        }
        if (reply->complete && got && llhttp_get_error_pos(&reply->parser) != buffer + got) {
            reply->keep_alive = false; // nobody asked for what follows
        }
    }
    return ER_OK;
}

void er_oss_reply_release(struct er_oss_reply *reply) { er_buf_release(&reply->body); }
