// SPDX-License-Identifier: Apache-2.0
// Small text work that the codecs share.
#ifndef EIRUN_TEXT_H
#define EIRUN_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Length in bytes of the UTF-8 sequence at `text` (1 to 4), 0 when it is not one: overlong forms, surrogates and
// what lies above U+10FFFF are refused. `end` is one past the last readable byte; text < end.
size_t er_utf8_step(const unsigned char *text, const unsigned char *end);
bool er_utf8_valid(const char *text, size_t length);

#define ER_NUMBER_SIZE 32
// The decimal digits of `value`. Returns the length; `into` is NUL-terminated.
size_t er_format_integer(char into[ER_NUMBER_SIZE], int64_t value);
// The fewest digits that read back as the same double, always with a '.' or an exponent: 3.0, 0.1, 1e+20.
// `value` is finite.
size_t er_format_double(char into[ER_NUMBER_SIZE], double value);

// False, and nothing copied, when it does not fit with its NUL.
bool er_text_copy(char *into, size_t size, const char *text);

// One-based line and column (in characters) of the byte at `offset`.
struct er_place {
    size_t line;
    size_t column;
};
struct er_place er_place_of(const char *text, size_t length, size_t offset);

#endif
