// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "http_headers.h"

static enum er_status add(struct er_headers *headers, const char *line) {
    return er_headers_add_line(headers, line, strlen(line));
}

static void names_are_found_in_any_case_and_values_are_trimmed(void) {
    struct er_headers headers = {.text = {.max = 1000}};
    CHECK(add(&headers, "Content-Type: \t text/plain  \r\n") == ER_OK);
    CHECK(add(&headers, "X-Empty:\r\n") == ER_OK);
    CHECK_STR(er_headers_get(&headers, "content-TYPE"), "text/plain");
    CHECK_STR(er_headers_get(&headers, "x-empty"), "");
    CHECK(er_headers_get(&headers, "content") == NULL);
    er_headers_release(&headers);
}

static void same_names_stay_apart_in_order(void) {
    struct er_headers headers = {.text = {.max = 1000}};
    const char *name = NULL, *value = NULL;
    size_t cursor = 0;
    add(&headers, "Set-Cookie: a\r\n");
    add(&headers, "Set-Cookie: b\r\n");
    CHECK_STR(er_headers_get(&headers, "set-cookie"), "a");
    CHECK(er_headers_next(&headers, &cursor, &name, &value));
    CHECK(er_headers_next(&headers, &cursor, &name, &value));
    CHECK_STR(value, "b");
    CHECK(!er_headers_next(&headers, &cursor, &name, &value));
    er_headers_release(&headers);
}

static void folded_line_continues_the_value(void) {
    struct er_headers headers = {.text = {.max = 1000}};
    CHECK(add(&headers, " lost\r\n") == ER_INVALID);
    add(&headers, "X-Long: one\r\n");
    CHECK(add(&headers, "   two\r\n") == ER_OK);
    CHECK_STR(er_headers_get(&headers, "x-long"), "one two");
    er_headers_release(&headers);
}

static void line_that_is_no_header_is_refused(void) {
    struct er_headers headers = {.text = {.max = 1000}};
    CHECK(add(&headers, "no colon\r\n") == ER_INVALID);
    CHECK(add(&headers, ": no name\r\n") == ER_INVALID);
    CHECK(er_headers_add_line(&headers, "a: b\0c", 6) == ER_INVALID);
    CHECK(headers.count == 0);
    er_headers_release(&headers);
}

static void header_beyond_the_maximum_is_not_half_there(void) {
    struct er_headers headers = {.text = {.max = 12}};
    CHECK(add(&headers, "a: 1\r\n") == ER_OK);
    CHECK(add(&headers, "name: long value\r\n") == ER_QUOTA);
    CHECK(headers.count == 1);
    CHECK_STR(er_headers_get(&headers, "a"), "1");
    CHECK(er_headers_get(&headers, "name") == NULL);
    er_headers_release(&headers);
}

static void names_and_values_that_would_split_a_message_are_refused(void) {
    CHECK(er_header_name_is_valid("x-acs-date", 10));
    CHECK(!er_header_name_is_valid("", 0));
    CHECK(!er_header_name_is_valid("a b", 3));
    CHECK(!er_header_name_is_valid("a:", 2));
    CHECK(!er_header_name_is_valid("a\0b", 3));
    CHECK(er_header_value_is_valid("any text; really", 16));
    CHECK(!er_header_value_is_valid("a\r\nb", 4));
    CHECK(!er_header_value_is_valid("a\0b", 3));
}

int main(void) {
    return check_run((struct check_test[]){
        {"names_are_found_in_any_case_and_values_are_trimmed", names_are_found_in_any_case_and_values_are_trimmed},
        {"same_names_stay_apart_in_order", same_names_stay_apart_in_order},
        {"folded_line_continues_the_value", folded_line_continues_the_value},
        {"line_that_is_no_header_is_refused", line_that_is_no_header_is_refused},
        {"header_beyond_the_maximum_is_not_half_there", header_beyond_the_maximum_is_not_half_there},
        {"names_and_values_that_would_split_a_message_are_refused",
         names_and_values_that_would_split_a_message_are_refused},
        {0},
    });
}
