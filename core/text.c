// SPDX-License-Identifier: Apache-2.0
#include "text.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_tail(unsigned char byte) { return (byte & 0xc0) == 0x80; }

// Unicode 15, table 3-7: the second byte's range depends on the first one.
static bool second_fits(unsigned char first, unsigned char second) {
    switch (first) {
    case 0xe0:
        return second >= 0xa0 && second <= 0xbf;
    case 0xed:
        return second >= 0x80 && second <= 0x9f;
    case 0xf0:
        return second >= 0x90 && second <= 0xbf;
    case 0xf4:
        return second >= 0x80 && second <= 0x8f;
    default:
        return is_tail(second);
    }
}

size_t er_utf8_step(const unsigned char *text, const unsigned char *end) {
    unsigned char first = *text;
    if (first < 0x80) {
        return 1;
    }
    size_t length = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3 : 4;
    if (first < 0xc2 || first > 0xf4 || (size_t)(end - text) < length || !second_fits(first, text[1])) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if (!is_tail(text[i])) {
            return 0;
        }
    }
    return length;
}

bool er_utf8_valid(const char *text, size_t length) {
    const unsigned char *at = (const unsigned char *)text, *end = at + length;
    while (at < end) {
        size_t step = er_utf8_step(at, end);
        if (!step) {
            return false;
        }
        at += step;
    }
    return true;
}

size_t er_format_integer(char into[ER_NUMBER_SIZE], int64_t value) {
    char digits[ER_NUMBER_SIZE];
    size_t at = sizeof digits, length = 0;
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0) {
        into[length++] = '-';
    }
    memcpy(into + length, digits + at, sizeof digits - at);
    length += sizeof digits - at;
    into[length] = '\0';
    return length;
}

// printf writes at least two digits of exponent: 1e-07.
static size_t trim_exponent(char *text, size_t length) {
    char *digit = strchr(text, 'e');
    if (digit && digit[2] == '0') {
        memmove(digit + 2, digit + 3, length - (size_t)(digit + 2 - text));
        length--;
    }
    return length;
}

size_t er_format_double(char into[ER_NUMBER_SIZE], double value) {
    // 15 digits survive any normal double, 17 tell all doubles apart; a subnormal has fewer digits to give.
    int digits = fabs(value) < DBL_MIN ? 1 : 15;
    int length = 0;
    do {
        length = snprintf(into, ER_NUMBER_SIZE, "%.*g", digits, value);
    } while (strtod(into, NULL) != value && ++digits <= 17);
    size_t end = trim_exponent(into, (size_t)length);
    if (!strpbrk(into, ".e")) {
        memcpy(into + end, ".0", 3);
        end += 2;
    }
    return end;
}

struct er_place er_place_of(const char *text, size_t length, size_t offset) {
    struct er_place place = {1, 1};
    size_t end = offset < length ? offset : length;
    for (size_t i = 0; i < end; i++) {
        if (text[i] == '\n') {
            place.line++;
            place.column = 1;
        } else if (!is_tail((unsigned char)text[i])) {
            place.column++;
        }
    }
    return place;
}

bool er_text_copy(char *into, size_t size, const char *text) {
    size_t length = strlen(text);
    if (length >= size) {
        return false;
    }
    memcpy(into, text, length + 1);
    return true;
}
