// SPDX-License-Identifier: Apache-2.0
#include "yaml_scalar.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST_NUMBER 400 // a double needs at most 309 digits before its point

static const struct {
    const char *text;
    struct er_yaml_scalar value;
} words[] = {
    {"", {.kind = ER_YAML_NULL}},
    {"~", {.kind = ER_YAML_NULL}},
    {"null", {.kind = ER_YAML_NULL}},
    {"Null", {.kind = ER_YAML_NULL}},
    {"NULL", {.kind = ER_YAML_NULL}},
    {"y", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"Y", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"yes", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"Yes", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"YES", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"true", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"True", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"TRUE", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"on", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"On", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"ON", {.kind = ER_YAML_BOOLEAN, .boolean = true}},
    {"n", {.kind = ER_YAML_BOOLEAN}},
    {"N", {.kind = ER_YAML_BOOLEAN}},
    {"no", {.kind = ER_YAML_BOOLEAN}},
    {"No", {.kind = ER_YAML_BOOLEAN}},
    {"NO", {.kind = ER_YAML_BOOLEAN}},
    {"false", {.kind = ER_YAML_BOOLEAN}},
    {"False", {.kind = ER_YAML_BOOLEAN}},
    {"FALSE", {.kind = ER_YAML_BOOLEAN}},
    {"off", {.kind = ER_YAML_BOOLEAN}},
    {"Off", {.kind = ER_YAML_BOOLEAN}},
    {"OFF", {.kind = ER_YAML_BOOLEAN}},
    {".nan", {.kind = ER_YAML_FLOAT, .number = NAN}},
    {".NaN", {.kind = ER_YAML_FLOAT, .number = NAN}},
    {".NAN", {.kind = ER_YAML_FLOAT, .number = NAN}},
    {".inf", {.kind = ER_YAML_FLOAT, .number = INFINITY}},
    {".Inf", {.kind = ER_YAML_FLOAT, .number = INFINITY}},
    {".INF", {.kind = ER_YAML_FLOAT, .number = INFINITY}},
    {"+.inf", {.kind = ER_YAML_FLOAT, .number = INFINITY}},
    {"+.Inf", {.kind = ER_YAML_FLOAT, .number = INFINITY}},
    {"+.INF", {.kind = ER_YAML_FLOAT, .number = INFINITY}},
    {"-.inf", {.kind = ER_YAML_FLOAT, .number = -INFINITY}},
    {"-.Inf", {.kind = ER_YAML_FLOAT, .number = -INFINITY}},
    {"-.INF", {.kind = ER_YAML_FLOAT, .number = -INFINITY}},
};
#define LONGEST_WORD 5

static bool find_word(const char *text, size_t length, struct er_yaml_scalar *scalar) {
    for (size_t i = 0; length <= LONGEST_WORD && i < sizeof words / sizeof *words; i++) {
        if (strlen(words[i].text) == length && memcmp(words[i].text, text, length) == 0) {
            *scalar = words[i].value;
            return true;
        }
    }
    return false;
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static int digit_value(char c) {
    return is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

// 0x1f, 0o17, 017, 0b11 or 19, without the sign: moves `*digits` past the prefix and answers the base.
static int base_of(const char **digits) {
    if ((*digits)[0] != '0' || !(*digits)[1]) {
        return 10;
    }
    *digits += 2;
    switch ((*digits)[-1]) {
    case 'x':
    case 'X':
        return 16;
    case 'o':
    case 'O':
        return 8;
    case 'b':
    case 'B':
        return 2;
    default:
        *digits -= 1;
        return 8;
    }
}

enum number { NO_NUMBER, NUMBER, TOO_BIG };

static enum number to_integer(const char *digits, int base, bool negative, int64_t *value) {
    uint64_t total = 0, limit = (uint64_t)INT64_MAX + negative;
    bool over = false;
    const char *at = digits;
    for (; digit_value(*at) < base; at++) {
        over = over || __builtin_mul_overflow(total, (uint64_t)base, &total) ||
               __builtin_add_overflow(total, (uint64_t)digit_value(*at), &total) || total > limit;
    }
    if (at == digits || *at) {
        return NO_NUMBER;
    }
    *value = (int64_t)(negative ? 0 - total : total);
    return over ? TOO_BIG : NUMBER;
}

static enum number parse_integer(const char *text, int64_t *value) {
    bool negative = *text == '-';
    const char *digits = text + (*text == '-' || *text == '+');
    const char *after_prefix = digits;
    int base = base_of(&after_prefix);
    enum number found = to_integer(after_prefix, base, negative, value);
    // 08 and 19:30's kin: kubectl falls back to a float, whose JSON has no point; the same digits as a decimal integer.
    return found == NO_NUMBER ? to_integer(digits, 10, negative, value) : found;
}

static const char *skip_digits(const char *at) {
    while (is_digit(*at)) {
        at++;
    }
    return at;
}

// [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
static bool has_shape_of_float(const char *text) {
    const char *at = text + (*text == '-' || *text == '+');
    const char *whole = at;
    at = skip_digits(at);
    bool digits = at > whole;
    if (*at == '.') {
        const char *fraction = ++at;
        at = skip_digits(at);
        digits = digits || at > fraction;
    }
    if (digits && (*at == 'e' || *at == 'E')) {
        at += at[1] == '-' || at[1] == '+' ? 2 : 1;
        digits = is_digit(*at);
        at = skip_digits(at);
    }
    return digits && !*at;
}

static bool parse_float(const char *text, double *value) {
    if (!has_shape_of_float(text)) {
        return false;
    }
    *value = strtod(text, NULL);
    return isfinite(*value); // 12e4567 is a string, as Go's parser says
}

// Underscores are for the eye; after a leading point Go wants digits on both sides of each.
static void copy_without_underscores(char *into, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        bool between = i > 0 && i + 1 < length && is_digit(text[i - 1]) && is_digit(text[i + 1]);
        if (text[i] != '_' || (*text == '.' && !between)) {
            *into++ = text[i];
        }
    }
    *into = '\0';
}

enum er_status er_yaml_resolve(const char *text, size_t length, struct er_yaml_scalar *scalar) {
    char plain[LONGEST_NUMBER + 1];
    *scalar = (struct er_yaml_scalar){.kind = ER_YAML_STRING};
    if (find_word(text, length, scalar)) {
        return ER_OK;
    }
    bool may_be_number = is_digit(*text) || *text == '-' || *text == '+' || *text == '.';
    if (!may_be_number || length > LONGEST_NUMBER || memchr(text, '\0', length)) {
        return ER_OK;
    }
    copy_without_underscores(plain, text, length);
    enum number integer = parse_integer(plain, &scalar->integer);
    if (integer != NO_NUMBER) {
        scalar->kind = ER_YAML_INTEGER;
        return integer == TOO_BIG ? ER_INVALID : ER_OK;
    }
    if (parse_float(plain, &scalar->number)) {
        scalar->kind = ER_YAML_FLOAT;
    }
    return ER_OK;
}

// 1:30 is ninety in YAML 1.1.
static bool is_base_60(const char *text) {
    const char *at = text + (*text == '-' || *text == '+');
    return is_digit(*at) && strchr(at, ':') && !at[strspn(at, "0123456789_:.")];
}

// 2001-02-03 is a date, alone or before a time of day.
static bool is_date(const char *text) {
    size_t year = strspn(text, "0123456789");
    if (year != 4 || text[4] != '-') {
        return false;
    }
    size_t month = strspn(text + 5, "0123456789");
    return (month == 1 || month == 2) && text[5 + month] == '-' && is_digit(text[6 + month]);
}

bool er_yaml_is_ambiguous(const char *text, size_t length) {
    struct er_yaml_scalar scalar;
    if (er_yaml_resolve(text, length, &scalar) != ER_OK || scalar.kind != ER_YAML_STRING) {
        return true;
    }
    return has_shape_of_float(text) || is_base_60(text) || is_date(text) || strcmp(text, "=") == 0 ||
           strcmp(text, "<<") == 0;
}
