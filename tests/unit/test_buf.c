// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "er.h"

static void grows_and_stays_terminated(void) {
    struct er_buf buf = {.max = 100};
    CHECK(er_buf_add_str(&buf, "abc") == ER_OK);
    CHECK(er_buf_printf(&buf, "-%d", 42) == ER_OK);
    CHECK_STR(buf.data, "abc-42");
    CHECK(buf.length == 6);
    er_buf_release(&buf);
    er_buf_release(&buf);
}

static void refuses_more_than_its_maximum_and_keeps_what_it_had(void) {
    struct er_buf buf = {.max = 4};
    CHECK(er_buf_add_str(&buf, "abcd") == ER_OK);
    CHECK(er_buf_add_str(&buf, "e") == ER_QUOTA);
    CHECK(er_buf_printf(&buf, "%s", "fg") == ER_QUOTA);
    CHECK_STR(buf.data, "abcd");
    er_buf_release(&buf);
}

static void reports_memory_that_ran_out(void) {
    struct er_buf buf = {.max = 1000};
    er_mem_fail_from(1);
    CHECK(er_buf_add_str(&buf, "abc") == ER_NO_MEMORY);
    er_mem_fail_from(0);
    CHECK(er_buf_add_str(&buf, "abc") == ER_OK);
    er_buf_release(&buf);
}

static void a_secret_buffer_keeps_its_bytes_while_it_grows(void) {
    struct er_buf buf = {.max = 1000, .secret = true};
    for (int i = 0; i < 100; i++) {
        CHECK(er_buf_printf(&buf, "%d,", i % 10) == ER_OK);
    }
    CHECK(buf.length == 200 && memcmp(buf.data, "0,1,2,3,", 8) == 0);
    er_buf_release(&buf);
    er_buf_release(&buf);
}

int main(void) {
    return check_run((struct check_test[]){
        {"grows_and_stays_terminated", grows_and_stays_terminated},
        {"refuses_more_than_its_maximum_and_keeps_what_it_had", refuses_more_than_its_maximum_and_keeps_what_it_had},
        {"reports_memory_that_ran_out", reports_memory_that_ran_out},
        {"a_secret_buffer_keeps_its_bytes_while_it_grows", a_secret_buffer_keeps_its_bytes_while_it_grows},
        {0},
    });
}
