// SPDX-License-Identifier: Apache-2.0
// The smallest harness: a table of named functions, each check says its own file and line.
#ifndef EIRUN_CHECK_H
#define EIRUN_CHECK_H

#include <stdio.h>
#include <string.h>

static int check_failures;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);                                  \
            check_failures++;                                                                                          \
        }                                                                                                              \
    } while (0)
#define CHECK_STR(actual, expected)                                                                                    \
    do {                                                                                                               \
        const char *check_actual = (actual), *check_expected = (expected);                                             \
        if (!check_actual || strcmp(check_actual, check_expected) != 0) {                                              \
            fprintf(stderr, "%s:%d: '%s' is not '%s'\n", __FILE__, __LINE__, check_actual ? check_actual : "(null)",   \
                    check_expected);                                                                                   \
            check_failures++;                                                                                          \
        }                                                                                                              \
    } while (0)

struct check_test {
    const char *name;
    void (*run)(void);
};

// Runs a table that ends with {0} and prints the closing line that the test driver counts.
static inline int check_run(const struct check_test *tests) {
    int failed = 0, passed = 0;
    for (; tests->name; tests++) {
        int before = check_failures;
        tests->run();
        if (check_failures == before) {
            passed++;
        } else {
            failed++;
            fprintf(stderr, "failed: %s\n", tests->name);
        }
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}

#endif
