// SPDX-License-Identifier: Apache-2.0
#include "check.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

void er_load_check_release(struct er_load_check *check) {
    for (size_t i = 0; i < check->step_count; i++) {
        er_free(check->steps[i].name);
    }
    er_free(check->steps);
    er_free(check->contains);
    json_decref(check->equals);
    *check = (struct er_load_check){0};
}

enum er_status er_load_check_equals(struct er_load_check *check, const char *text, size_t length) {
    check->equals = json_loadb(text, length, JSON_DECODE_ANY, NULL);
    return check->equals ? ER_OK : ER_INVALID;
}

bool er_load_check_reads(const struct er_load_check *check) { return check->contains || check->steps; }

static const json_t *follow(const struct er_load_check *check, const json_t *at) {
    for (size_t i = 0; at && i < check->step_count; i++) {
        const struct er_load_step *step = &check->steps[i];
        at = step->name ? json_object_get(at, step->name) : json_array_get(at, step->index);
    }
    return at;
}

// 3 and 3.0 are the same number, which json_equal denies.
static bool same(const json_t *a, const json_t *b) {
    if (json_is_number(a) && json_is_number(b)) {
        double difference = json_number_value(a) - json_number_value(b);
        return !(difference < 0 || difference > 0);
    }
    return json_equal(a, b) == 1;
}

// Jansson's tables are seeded once a process, and safely so; nothing else is shared.
static bool has_field(const struct er_load_check *check, const struct er_load_answer *answer, char *why, size_t size) {
    json_error_t error;
    bool whole = answer->body_bytes <= ER_LOAD_CHECKED_MAX;
    json_t *root = whole && answer->body->data
                       ? json_loadb(answer->body->data, answer->body->length, JSON_DECODE_ANY, &error)
                       : NULL;
    const json_t *found = root ? follow(check, root) : NULL;
    bool good = found && (!check->equals || same(found, check->equals));
    if (!good) {
        snprintf(why, size, "%s",
                 !whole   ? "the body is above 1 MiB, too long for a look at its fields"
                 : !root  ? "the body is not JSON"
                 : !found ? "the JSON has no such field"
                          : "the JSON field has another value");
    }
    json_decref(root);
    return good;
}

static enum er_load_outcome outcome_of(unsigned status) {
    return status >= 500 && status < 600   ? ER_LOAD_STATUS_5XX
           : status >= 400 && status < 500 ? ER_LOAD_STATUS_4XX
           : status >= 300 && status < 400 ? ER_LOAD_STATUS_3XX
                                           : ER_LOAD_CHECK;
}

static bool has_size(const struct er_load_check *check, uint64_t bytes, char *why, size_t size) {
    bool good = bytes >= check->least_body && (check->most_body == 0 || bytes <= check->most_body);
    if (!good) {
        snprintf(why, size, "the body has %llu bytes", (unsigned long long)bytes);
    }
    return good;
}

enum er_load_outcome er_load_judge(const struct er_load_check *check, const struct er_load_answer *answer, char *why,
                                   size_t size) {
    *why = '\0';
    if (check->status ? answer->status != check->status : answer->status >= 400) {
        enum er_load_outcome outcome = outcome_of(answer->status);
        if (outcome == ER_LOAD_CHECK) {
            snprintf(why, size, "the status is not %u", check->status);
        }
        return outcome;
    }
    if (!has_size(check, answer->body_bytes, why, size)) {
        return ER_LOAD_CHECK;
    }
    if (check->contains && !(answer->body->data && memmem(answer->body->data, answer->body->length, check->contains,
                                                          check->contains_length))) {
        return ER_LOAD_CHECK;
    }
    return !check->steps || has_field(check, answer, why, size) ? ER_LOAD_OK : ER_LOAD_CHECK;
}
