// SPDX-License-Identifier: Apache-2.0
#include "er.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kinds[] = {
    [ER_OK] = "ok",
    [ER_TIMEOUT] = "timeout",
    [ER_CANCELLED] = "cancelled",
    [ER_NETWORK] = "network",
    [ER_DENIED] = "denied",
    [ER_NOT_FOUND] = "not_found",
    [ER_CONFLICT] = "conflict",
    [ER_QUOTA] = "quota",
    [ER_THROTTLED] = "throttled",
    [ER_INVALID] = "invalid",
    [ER_INTERNAL] = "internal",
    [ER_NO_MEMORY] = "internal",
};

const char *er_status_kind(enum er_status status) { return kinds[status]; }

enum er_status er_fail(struct er_error *err, enum er_status status, const char *format, ...) {
    if (err) {
        err->status = status;
        va_list args;
        va_start(args, format);
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return status;
}

// Threads allocate too. Relaxed and not one atomic step: a count lost between threads harms nobody, a locked add would
// cost every allocation of Lua's.
static _Atomic uint64_t allocations;
static _Atomic uint64_t failing_from; // 0: never

static uint64_t relaxed(_Atomic uint64_t *counter) { return atomic_load_explicit(counter, memory_order_relaxed); }

void er_mem_fail_from(uint64_t n) { failing_from = n ? relaxed(&allocations) + n : 0; }

uint64_t er_mem_count(void) { return relaxed(&allocations); }

static bool out_of_memory(void) {
    uint64_t count = relaxed(&allocations) + 1;
    atomic_store_explicit(&allocations, count, memory_order_relaxed);
    uint64_t from = relaxed(&failing_from);
    return from && count >= from;
}

void *er_alloc(size_t size) { return out_of_memory() ? NULL : malloc(size ? size : 1); }

void *er_calloc(size_t count, size_t size) {
    return out_of_memory() ? NULL : calloc(count ? count : 1, size ? size : 1);
}

void *er_realloc(void *block, size_t size) { return out_of_memory() ? NULL : realloc(block, size ? size : 1); }

void er_free(void *block) { free(block); }

void er_free_secret(void *block, size_t size) {
    if (block) {
        explicit_bzero(block, size);
    }
    free(block);
}

char *er_strndup(const char *text, size_t length) {
    char *copy = er_alloc(length + 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *er_strdup(const char *text) { return er_strndup(text, strlen(text)); }

static enum er_status resize(struct er_buf *buf, size_t capacity) {
    char *data = er_realloc(buf->data, capacity);
    if (!data) {
        return ER_NO_MEMORY;
    }
    buf->data = data;
    buf->capacity = capacity;
    return ER_OK;
}

// realloc would leave the old bytes behind.
static enum er_status move_wiped(struct er_buf *buf, size_t capacity) {
    char *data = er_alloc(capacity);
    if (!data) {
        return ER_NO_MEMORY;
    }
    if (buf->data) {
        memcpy(data, buf->data, buf->length + 1);
        er_free_secret(buf->data, buf->capacity);
    }
    buf->data = data;
    buf->capacity = capacity;
    return ER_OK;
}

static enum er_status reserve(struct er_buf *buf, size_t more) {
    if (more > buf->max || buf->length > buf->max - more) {
        return ER_QUOTA;
    }
    size_t need = buf->length + more + 1;
    if (need <= buf->capacity) {
        return ER_OK;
    }
    size_t capacity = buf->capacity ? buf->capacity : 64;
    while (capacity < need) {
        capacity *= 2;
    }
    return buf->secret ? move_wiped(buf, capacity) : resize(buf, capacity);
}

enum er_status er_buf_add(struct er_buf *buf, const void *bytes, size_t length) {
    enum er_status status = reserve(buf, length);
    if (status != ER_OK) {
        return status;
    }
    if (length) {
        memcpy(buf->data + buf->length, bytes, length);
    }
    buf->length += length;
    buf->data[buf->length] = '\0';
    return ER_OK;
}

enum er_status er_buf_add_str(struct er_buf *buf, const char *text) { return er_buf_add(buf, text, strlen(text)); }

enum er_status er_buf_printf(struct er_buf *buf, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    enum er_status status = length < 0 ? ER_INTERNAL : reserve(buf, (size_t)length);
    if (status == ER_OK) {
        vsnprintf(buf->data + buf->length, (size_t)length + 1, format, again);
        buf->length += (size_t)length;
    }
    va_end(again);
    return status;
}

void er_buf_clear(struct er_buf *buf) {
    buf->length = 0;
    if (buf->data) {
        buf->data[0] = '\0';
    }
}

void er_buf_release(struct er_buf *buf) {
    if (buf->secret) {
        er_free_secret(buf->data, buf->capacity);
    } else {
        er_free(buf->data);
    }
    buf->data = NULL;
    buf->length = buf->capacity = 0;
}

enum er_status er_status_of_errno(int code) {
    switch (code < 0 ? -code : code) {
    case ENOENT:
    case ENOTDIR:
        return ER_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return ER_DENIED;
    case EEXIST:
    case ENOTEMPTY:
    case EBUSY:
        return ER_CONFLICT;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
        return ER_QUOTA;
    case ENOMEM:
        return ER_NO_MEMORY;
    default:
        return ER_INTERNAL;
    }
}
