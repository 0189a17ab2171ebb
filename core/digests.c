// SPDX-License-Identifier: Apache-2.0
#include "digests.h"

static bool wants(const struct er_digests *digests, int kind) { return digests->wanted & ER_DIGEST_BIT(kind); }

struct er_digests *er_digests_new(unsigned wanted) {
    struct er_digests *digests = er_calloc(1, sizeof *digests);
    if (!digests) {
        return NULL;
    }
    digests->wanted = wanted;
    for (int kind = 0; kind < ER_DIGEST_KINDS; kind++) {
        if (wants(digests, kind) && er_digest_open(&digests->states[kind], (enum er_digest_kind)kind) != ER_OK) {
            er_digests_free(digests);
            return NULL;
        }
    }
    return digests;
}

void er_digests_free(struct er_digests *digests) {
    for (int kind = 0; digests && kind < ER_DIGEST_KINDS; kind++) {
        er_digest_close(&digests->states[kind]);
    }
    er_free(digests);
}

enum er_status er_digests_update(struct er_digests *digests, const void *data, size_t length) {
    for (int kind = 0; kind < ER_DIGEST_KINDS; kind++) {
        if (wants(digests, kind) && er_digest_update(&digests->states[kind], data, length) != ER_OK) {
            return ER_INTERNAL;
        }
    }
    return ER_OK;
}

enum er_status er_digests_finish(struct er_digests *digests) {
    for (int kind = 0; kind < ER_DIGEST_KINDS; kind++) {
        if (wants(digests, kind) &&
            er_digest_final(&digests->states[kind], digests->values[kind], &digests->lengths[kind]) != ER_OK) {
            return ER_INTERNAL;
        }
    }
    return ER_OK;
}
