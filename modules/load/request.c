// SPDX-License-Identifier: Apache-2.0
#include "request.h"

#include <ctype.h>
#include <nghttp2/nghttp2.h>
#include <string.h>
#include <strings.h>

enum { FIELDS_MAX = 104 };

struct span {
    char *at;
    size_t length;
};

// The text up to `stop`, and past it. Its `at` is NULL where there is none.
static struct span cut(char **from, const char *end, const char *stop) {
    size_t length = strlen(stop);
    char *found = memmem(*from, (size_t)(end - *from), stop, length);
    struct span span = {found ? *from : NULL, found ? (size_t)(found - *from) : 0};
    *from = found ? found + length : *from;
    return span;
}

static bool is(struct span name, const char *text) {
    return name.length == strlen(text) && strncasecmp(name.at, text, name.length) == 0;
}

// Fields that HTTP/2 knows in another form, or not at all (RFC 9113 8.2.2).
static bool is_dropped(struct span name) {
    static const char *const names[] = {"host",    "connection",       "keep-alive", "proxy-connection",
                                        "upgrade", "transfer-encoding"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (is(name, names[i])) {
            return true;
        }
    }
    return false;
}

static void add(struct er_load_request *request, struct span name, struct span value) {
    request->fields[request->field_count++] =
        (nghttp2_nv){.name = (uint8_t *)name.at,
                     .namelen = name.length,
                     .value = (uint8_t *)value.at,
                     .valuelen = value.length,
                     .flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static void add_pseudo(struct er_load_request *request, const char *name, struct span value) {
    add(request, (struct span){(char *)name, strlen(name)}, value);
}

static bool add_headers(struct er_load_request *request, char *at, const char *end, struct span *authority) {
    while (at < end && request->field_count < FIELDS_MAX - 1) {
        struct span line = cut(&at, end, "\r\n");
        if (!line.at) {
            return false;
        }
        if (line.length == 0) {
            request->body = (size_t)(at - request->bytes);
            return true;
        }
        char *rest = line.at;
        struct span name = cut(&rest, line.at + line.length, ":");
        if (!name.at) {
            return false;
        }
        rest += rest < line.at + line.length && *rest == ' ';
        struct span value = {rest, (size_t)(line.at + line.length - rest)};
        if (is(name, "host")) {
            *authority = value;
        }
        if (!is_dropped(name)) {
            for (size_t i = 0; i < name.length; i++) {
                name.at[i] = (char)tolower((unsigned char)name.at[i]);
            }
            add(request, name, value);
        }
    }
    return false;
}

static bool find_fields(struct er_load_request *request, enum er_load_protocol protocol) {
    char *at = (char *)request->bytes;
    const char *end = request->bytes + request->length;
    struct span authority = {0};
    struct span method = cut(&at, end, " "), path = cut(&at, end, " "), version = cut(&at, end, "\r\n");
    if (!method.at || !path.at || !version.at) {
        return false;
    }
    const char *scheme = protocol == ER_LOAD_H2_TLS ? "https" : "http";
    add_pseudo(request, ":method", method);
    add_pseudo(request, ":scheme", (struct span){(char *)scheme, strlen(scheme)});
    add_pseudo(request, ":path", path);
    size_t place = request->field_count;
    add_pseudo(request, ":authority", authority);
    bool whole = add_headers(request, at, end, &authority);
    request->fields[place].value = (uint8_t *)authority.at;
    request->fields[place].valuelen = authority.length;
    return whole && authority.length > 0;
}

enum er_status er_load_request_init(struct er_load_request *request, const char *bytes, size_t length, size_t target,
                                    enum er_load_protocol protocol) {
    *request = (struct er_load_request){.bytes = er_strndup(bytes, length), .length = length, .target = target};
    if (!request->bytes) {
        return ER_NO_MEMORY;
    }
    if (protocol == ER_LOAD_HTTP1) {
        return ER_OK;
    }
    request->fields = er_calloc(FIELDS_MAX, sizeof *request->fields);
    enum er_status status = !request->fields ? ER_NO_MEMORY : find_fields(request, protocol) ? ER_OK : ER_INVALID;
    if (status != ER_OK) {
        er_load_request_release(request);
    }
    return status;
}

bool er_load_request_is_idempotent(const struct er_load_request *request) {
    static const char *const methods[] = {"GET ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "TRACE "};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        size_t length = strlen(methods[i]);
        if (request->length > length && memcmp(request->bytes, methods[i], length) == 0) {
            return true;
        }
    }
    return false;
}

bool er_load_request_is_head(const struct er_load_request *request) {
    return request->length > 5 && memcmp(request->bytes, "HEAD ", 5) == 0;
}

void er_load_request_release(struct er_load_request *request) {
    er_free_secret((char *)request->bytes, request->length);
    er_free(request->fields);
    *request = (struct er_load_request){0};
}
