// SPDX-License-Identifier: Apache-2.0
// Whether an answer is a good one.
#ifndef EIRUN_LOAD_CHECK_H
#define EIRUN_LOAD_CHECK_H

#include "stats.h"

struct json_t;

enum { ER_LOAD_CHECKED_MAX = 1024 * 1024 }; // bytes of a body that checks look at

struct er_load_step { // of the way to a JSON field
    char *name;       // NULL: an element of an array
    size_t index;     // from 0
};

struct er_load_check {
    unsigned status; // the only good one; 0: any of 200 to 399
    char *contains;  // bytes that the body must hold within its first 1 MiB; NULL for none
    size_t contains_length;
    uint64_t least_body, most_body; // bytes; most 0: no bound
    struct er_load_step *steps;     // the body is JSON and has this field; NULL for none
    size_t step_count;
    struct json_t *equals; // which is equal to this; NULL: anything will do
};

struct er_load_answer {
    unsigned status;
    uint64_t body_bytes;
    const struct er_buf *body; // its beginning
};

void er_load_check_release(struct er_load_check *check); // may run twice
// `text` is JSON. ER_INVALID when it is not.
enum er_status er_load_check_equals(struct er_load_check *check, const char *text, size_t length);
// Must some of the body be kept?
bool er_load_check_reads(const struct er_load_check *check);
// ER_LOAD_OK, or what is wrong, with one line about it in `why`.
enum er_load_outcome er_load_judge(const struct er_load_check *check, const struct er_load_answer *answer, char *why,
                                   size_t size);

#endif
