// SPDX-License-Identifier: Apache-2.0
// Bytes as text: hexadecimal, base64 (RFC 4648 section 4), percent-encoding (RFC 3986). Sizes are exact and known
// beforehand, so that the caller chooses the memory; nothing is NUL-terminated.
#ifndef EIRUN_ENCODING_H
#define EIRUN_ENCODING_H

#include <stdbool.h>
#include <stddef.h>

void er_hex_encode(char *into, const void *bytes, size_t length); // 2 * length, lower case
bool er_hex_decode(char *into, const char *text, size_t length);  // length / 2; false unless pairs of digits

size_t er_base64_size(size_t length);
void er_base64_encode(char *into, const void *bytes, size_t length);
// How many bytes the text stands for; false when it is not base64 with its padding. Line breaks are skipped.
bool er_base64_measure(const char *text, size_t length, size_t *size);
void er_base64_decode(char *into, const char *text, size_t length); // of a text that er_base64_measure accepted

// Unreserved characters stay; so does '/' with keep_slash (a path).
size_t er_percent_size(const char *bytes, size_t length, bool keep_slash);
void er_percent_encode(char *into, const char *bytes, size_t length, bool keep_slash);

#endif
