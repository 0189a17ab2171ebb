// SPDX-License-Identifier: Apache-2.0
#include "encoding.h"

#include <string.h>

static const char hex_digits[] = "0123456789abcdef";

void er_hex_encode(char *into, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    for (size_t i = 0; i < length; i++) {
        *into++ = hex_digits[at[i] >> 4];
        *into++ = hex_digits[at[i] & 15];
    }
}

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool er_hex_decode(char *into, const char *text, size_t length) {
    for (size_t i = 0; i + 1 < length; i += 2) {
        int high = hex_value(text[i]), low = hex_value(text[i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        *into++ = (char)(high << 4 | low);
    }
    return length % 2 == 0;
}

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t er_base64_size(size_t length) { return (length + 2) / 3 * 4; }

void er_base64_encode(char *into, const void *bytes, size_t length) {
    const unsigned char *at = bytes;
    for (; length; length -= length < 3 ? length : 3, at += 3) {
        unsigned block = (unsigned)at[0] << 16 | (length > 1 ? (unsigned)at[1] << 8 : 0) | (length > 2 ? at[2] : 0u);
        *into++ = base64_digits[block >> 18];
        *into++ = base64_digits[block >> 12 & 63];
        *into++ = length > 1 ? base64_digits[block >> 6 & 63] : '=';
        *into++ = length > 2 ? base64_digits[block & 63] : '=';
    }
}

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    return c >= '0' && c <= '9' ? c - '0' + 52 : c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool er_base64_measure(const char *text, size_t length, size_t *size) {
    size_t digits = 0, padding = 0;
    int last = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '=') {
            padding++;
        } else if (text[i] != '\n' && text[i] != '\r') {
            last = base64_value(text[i]);
            if (last < 0 || padding) {
                return false;
            }
            digits++;
        }
    }
    // The last digit's bits beyond the last byte are zero, or two texts would mean the same bytes.
    int unused = padding == 1 ? last & 3 : padding == 2 ? last & 15 : 0;
    *size = digits * 3 / 4;
    return padding <= 2 && (digits + padding) % 4 == 0 && !unused;
}

void er_base64_decode(char *into, const char *text, size_t length) {
    unsigned block = 0;
    int bits = 0;
    for (size_t i = 0; i < length; i++) {
        int value = base64_value(text[i]);
        if (value < 0) {
            continue;
        }
        block = block << 6 | (unsigned)value;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            *into++ = (char)(block >> bits & 255);
        }
    }
}

static bool stays(char c, bool keep_slash) {
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    return letter || c == '-' || c == '_' || c == '.' || c == '~' || (keep_slash && c == '/');
}

size_t er_percent_size(const char *bytes, size_t length, bool keep_slash) {
    size_t size = 0;
    for (size_t i = 0; i < length; i++) {
        size += stays(bytes[i], keep_slash) ? 1 : 3;
    }
    return size;
}

void er_percent_encode(char *into, const char *bytes, size_t length, bool keep_slash) {
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (stays(bytes[i], keep_slash)) {
            *into++ = bytes[i];
        } else {
            *into++ = '%';
            *into++ = digits[byte >> 4];
            *into++ = digits[byte & 15];
        }
    }
}
