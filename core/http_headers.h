// SPDX-License-Identifier: Apache-2.0
// The header of a message: names with their values in the order of arrival, several of one name allowed.
#ifndef EIRUN_HTTP_HEADERS_H
#define EIRUN_HTTP_HEADERS_H

#include "er.h"

// Zero-initialise with a maximum: {.text = {.max = 262144}}.
struct er_headers {
    struct er_buf text; // name NUL value NUL ...
    size_t count;
};
// One line as it came ("Name: value\r\n", or a folded continuation of the line before). ER_INVALID when it is neither.
enum er_status er_headers_add_line(struct er_headers *headers, const char *line, size_t length);
// The first value of that name, whatever its case; NULL.
const char *er_headers_get(const struct er_headers *headers, const char *name);
// Walks: start with *cursor = 0; false at the end.
bool er_headers_next(const struct er_headers *headers, size_t *cursor, const char **name, const char **value);
void er_headers_clear(struct er_headers *headers);
void er_headers_release(struct er_headers *headers);

bool er_header_name_is_valid(const char *name, size_t length);
bool er_header_value_is_valid(const char *value, size_t length);

#endif
