// SPDX-License-Identifier: Apache-2.0
#include "scan.h"
#include "text.h"

#include <string.h>

// What the API sends has no blanks: the first look says so.
static inline void skip_space(struct er_scan *scan) {
    const unsigned char *at = scan->at;
    while (at < scan->end && *at <= ' ' && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) {
        at++;
    }
    scan->at = at;
}

void er_scan_space(struct er_scan *scan) { skip_space(scan); }

static inline bool scan_byte(struct er_scan *scan, char byte) {
    skip_space(scan);
    if (scan->at == scan->end || *scan->at != (unsigned char)byte) {
        return false;
    }
    scan->at++;
    skip_space(scan);
    return true;
}

bool er_scan_byte(struct er_scan *scan, char byte) { return scan_byte(scan, byte); }

#ifdef __SSE2__
#include <emmintrin.h>
// Sixteen bytes at a time: the first that is a quote, a backslash, a control byte or not ASCII.
static inline const unsigned char *skip_plain(const unsigned char *at, const unsigned char *end) {
    while (end - at >= 16) {
        __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
        __m128i hit =
            _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
        // As signed bytes, what is not ASCII lies below the blank, too.
        int mask = _mm_movemask_epi8(_mm_or_si128(hit, _mm_cmplt_epi8(bytes, _mm_set1_epi8(' '))));
        if (mask) {
            return at + __builtin_ctz((unsigned)mask);
        }
        at += 16;
    }
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') {
        at++;
    }
    return at;
}
#else
#define EACH(byte) (0x0101010101010101u * (uint64_t)(byte))

// Eight bytes at a time: the first that is a quote, a backslash, a control byte or not ASCII. A borrow can only mark
// bytes above a true hit, so the lowest mark is right.
static const unsigned char *skip_plain(const unsigned char *at, const unsigned char *end) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    while (end - at >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        uint64_t quote = word ^ EACH('"'), slash = word ^ EACH('\\');
        uint64_t hit =
            ((word - EACH(0x20)) | ((quote - EACH(1)) & ~quote) | ((slash - EACH(1)) & ~slash) | word) & EACH(0x80);
        if (hit) {
            return at + (__builtin_ctzll(hit) >> 3);
        }
        at += 8;
    }
#endif
    while (at < end && *at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') {
        at++;
    }
    return at;
}
#endif

static int hex_digit(unsigned char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The four digits behind \u; -1 when they are none.
static int32_t code_unit(const unsigned char *at, const unsigned char *end) {
    int32_t unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = at + i < end ? hex_digit(at[i]) : -1;
        if (digit < 0) {
            return -1;
        }
        unit = unit * 16 + digit;
    }
    return unit;
}

// `at` behind a backslash. A surrogate must have its other half.
static const unsigned char *skip_escape(const unsigned char *at, const unsigned char *end) {
    if (at == end) {
        return NULL;
    }
    if (*at != 'u') {
        return *at && strchr("\"\\/bfnrt", *at) ? at + 1 : NULL;
    }
    int32_t unit = code_unit(at + 1, end);
    if (unit < 0 || (unit >= 0xdc00 && unit <= 0xdfff)) {
        return NULL;
    }
    at += 5;
    if (unit < 0xd800 || unit > 0xdbff) {
        return at;
    }
    int32_t low = end - at >= 6 && at[0] == '\\' && at[1] == 'u' ? code_unit(at + 2, end) : -1;
    return low >= 0xdc00 && low <= 0xdfff ? at + 6 : NULL;
}

static inline bool scan_string(struct er_scan *scan, bool *plain) {
    const unsigned char *at = scan->at, *end = scan->end;
    *plain = true;
    if (at == end || *at++ != '"') {
        return false;
    }
    for (;;) {
        at = skip_plain(at, end);
        if (at == end || *at < 0x20) {
            return false;
        }
        if (*at == '"') {
            scan->at = at + 1;
            return true;
        }
        if (*at == '\\') {
            *plain = false;
            at = skip_escape(at + 1, end);
            if (!at) {
                return false;
            }
        } else {
            size_t step = er_utf8_step(at, end);
            if (!step) {
                return false;
            }
            at += step;
        }
    }
}

bool er_scan_string(struct er_scan *scan, bool *plain) { return scan_string(scan, plain); }

static const unsigned char *skip_digits(const unsigned char *at, const unsigned char *end) {
    while (at < end && *at >= '0' && *at <= '9') {
        at++;
    }
    return at;
}

static bool scan_number(struct er_scan *scan) {
    const unsigned char *at = scan->at, *end = scan->end, *digits;
    at += at < end && *at == '-';
    digits = at;
    at = skip_digits(at, end);
    if (at == digits || (*digits == '0' && at - digits > 1)) {
        return false;
    }
    if (at < end && *at == '.') {
        digits = ++at;
        at = skip_digits(at, end);
        if (at == digits) {
            return false;
        }
    }
    if (at < end && (*at | 0x20) == 'e') {
        at++;
        at += at < end && (*at == '+' || *at == '-');
        digits = at;
        at = skip_digits(at, end);
        if (at == digits) {
            return false;
        }
    }
    scan->at = at;
    return true;
}

static bool scan_word(struct er_scan *scan, const char *word, size_t length) {
    if ((size_t)(scan->end - scan->at) < length || memcmp(scan->at, word, length) != 0) {
        return false;
    }
    scan->at += length;
    return true;
}

static bool scan_member(struct er_scan *scan) {
    bool plain;
    return scan_string(scan, &plain) && scan_byte(scan, ':') && er_scan_value(scan);
}

// Members up to the closing bracket; `at` behind the opening one. Recursion: as deep as ER_SCAN_MAX_DEPTH.
static bool scan_members(struct er_scan *scan, char close,
                         bool (*member)(struct er_scan *)) { // NOLINT(misc-no-recursion)
    if (++scan->depth > ER_SCAN_MAX_DEPTH) {
        return false;
    }
    skip_space(scan);
    if (scan->at < scan->end && *scan->at == (unsigned char)close) {
        scan->at++;
        scan->depth--;
        return true;
    }
    for (;;) {
        if (!member(scan)) {
            return false;
        }
        skip_space(scan);
        if (scan->at == scan->end) {
            return false;
        }
        unsigned char next = *scan->at++;
        if (next == (unsigned char)close) {
            scan->depth--;
            return true;
        }
        if (next != ',') {
            return false;
        }
        skip_space(scan);
    }
}

bool er_scan_value(struct er_scan *scan) { // NOLINT(misc-no-recursion)
    bool plain;
    switch (scan->at < scan->end ? *scan->at : 0) {
    case '"':
        return er_scan_string(scan, &plain);
    case '{':
        scan->at++;
        return scan_members(scan, '}', scan_member);
    case '[':
        scan->at++;
        return scan_members(scan, ']', er_scan_value);
    case 't':
        return scan_word(scan, "true", 4);
    case 'f':
        return scan_word(scan, "false", 5);
    case 'n':
        return scan_word(scan, "null", 4);
    default:
        return scan_number(scan);
    }
}
