// SPDX-License-Identifier: Apache-2.0
// What every C file of the host shares: status codes, memory that can be made to fail, and text buffers.
#ifndef EIRUN_ER_H
#define EIRUN_ER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Kinds of failure, the same words as `kind` of an error table in Lua.
enum er_status {
    ER_OK = 0,
    ER_TIMEOUT,
    ER_CANCELLED,
    ER_NETWORK,
    ER_DENIED,
    ER_NOT_FOUND,
    ER_CONFLICT,
    ER_QUOTA,
    ER_THROTTLED,
    ER_INVALID,
    ER_INTERNAL,
    ER_NO_MEMORY,
};

const char *er_status_kind(enum er_status status); // "timeout", "network" ...; ER_NO_MEMORY is "internal"

// A failure on its way to Lua. `message` is one line, lower case, no full stop, cut at the buffer's end.
struct er_error {
    enum er_status status;
    char message[512];
};
// Fills `err` (may be NULL) and returns `status`, so that `return er_fail(err, ER_INVALID, "...")` reads well.
enum er_status er_fail(struct er_error *err, enum er_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

enum er_status er_status_of_errno(int code); // an errno, or libuv's negative one

// malloc and friends, counted, and failing on demand in torture builds (er_mem_fail_from). NULL on failure.
void *er_alloc(size_t size);
void *er_calloc(size_t count, size_t size);
void *er_realloc(void *block, size_t size);
char *er_strdup(const char *text);
char *er_strndup(const char *text, size_t length);
void er_free(void *block);
// Wipes before freeing: for keys and tokens.
void er_free_secret(void *block, size_t size);

// Torture: from the n-th allocation on (counted from this call, 1 is the next one) every allocation fails; 0 ends it.
// Lua's allocator takes part.
void er_mem_fail_from(uint64_t n);
uint64_t er_mem_count(void);

// A growing byte buffer that knows its maximum. Zero-initialise with a maximum: struct er_buf b = {.max = 1 << 20}.
struct er_buf {
    char *data; // NUL-terminated when not NULL; the NUL is not counted
    size_t length;
    size_t capacity;
    size_t max;  // 0: no bytes allowed
    bool secret; // wiped whenever memory is given back
};
enum er_status er_buf_add(struct er_buf *buf, const void *bytes, size_t length); // ER_QUOTA over max
enum er_status er_buf_add_str(struct er_buf *buf, const char *text);
enum er_status er_buf_printf(struct er_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
void er_buf_clear(struct er_buf *buf);   // keeps the memory
void er_buf_release(struct er_buf *buf); // may run twice

#endif
