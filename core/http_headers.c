// SPDX-License-Identifier: Apache-2.0
#include "http_headers.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

static void trim(const char **text, size_t *length) {
    while (*length && is_blank(**text)) {
        (*text)++;
        (*length)--;
    }
    while (*length &&
           (is_blank((*text)[*length - 1]) || (*text)[*length - 1] == '\r' || (*text)[*length - 1] == '\n')) {
        (*length)--;
    }
}

static enum er_status add_text(struct er_headers *headers, const char *text, size_t length) {
    enum er_status status = er_buf_add(&headers->text, text, length);
    return status == ER_OK ? er_buf_add(&headers->text, "", 1) : status;
}

// RFC 9112 5.2: a folded line continues the value before it, with one space between.
static enum er_status unfold(struct er_headers *headers, const char *line, size_t length) {
    if (!headers->count) {
        return ER_INVALID;
    }
    trim(&line, &length);
    headers->text.length--;
    enum er_status status = er_buf_add(&headers->text, " ", 1);
    return status == ER_OK ? add_text(headers, line, length) : status;
}

enum er_status er_headers_add_line(struct er_headers *headers, const char *line, size_t length) {
    if (length && is_blank(*line)) {
        return unfold(headers, line, length);
    }
    const char *colon = memchr(line, ':', length);
    if (!colon || colon == line || memchr(line, '\0', length)) {
        return ER_INVALID;
    }
    size_t before = headers->text.length;
    const char *value = colon + 1;
    size_t value_length = length - (size_t)(value - line);
    trim(&value, &value_length);
    enum er_status status = add_text(headers, line, (size_t)(colon - line));
    if (status == ER_OK) {
        status = add_text(headers, value, value_length);
    }
    if (status != ER_OK) {
        headers->text.length = before;
        return status;
    }
    headers->count++;
    return ER_OK;
}

bool er_headers_next(const struct er_headers *headers, size_t *cursor, const char **name, const char **value) {
    if (*cursor >= headers->text.length) {
        return false;
    }
    *name = headers->text.data + *cursor;
    *value = *name + strlen(*name) + 1;
    *cursor = (size_t)(*value - headers->text.data) + strlen(*value) + 1;
    return true;
}

const char *er_headers_get(const struct er_headers *headers, const char *name) {
    const char *key = NULL, *value = NULL;
    for (size_t cursor = 0; er_headers_next(headers, &cursor, &key, &value);) {
        if (strcasecmp(key, name) == 0) {
            return value;
        }
    }
    return NULL;
}

void er_headers_clear(struct er_headers *headers) {
    er_buf_clear(&headers->text);
    headers->count = 0;
}

void er_headers_release(struct er_headers *headers) {
    er_buf_release(&headers->text);
    headers->count = 0;
}

bool er_header_name_is_valid(const char *name, size_t length) {
    static const char others[] = "!#$%&'*+-.^_`|~";
    for (size_t i = 0; i < length; i++) {
        if (!name[i] || (!isalnum((unsigned char)name[i]) && !strchr(others, name[i]))) {
            return false;
        }
    }
    return length > 0;
}

bool er_header_value_is_valid(const char *value, size_t length) {
    return !memchr(value, '\r', length) && !memchr(value, '\n', length) && !memchr(value, '\0', length);
}
