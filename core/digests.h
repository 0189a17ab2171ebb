// SPDX-License-Identifier: Apache-2.0
// Several digests of one pass over the same bytes.
#ifndef EIRUN_DIGESTS_H
#define EIRUN_DIGESTS_H

#include "crypto.h"

#define ER_DIGEST_BIT(kind) (1u << (kind))
enum { ER_DIGEST_KINDS = ER_DIGEST_CRC64 + 1 };

struct er_digests {
    unsigned wanted; // ER_DIGEST_BITs
    struct er_digest states[ER_DIGEST_KINDS];
    unsigned char values[ER_DIGEST_KINDS][ER_DIGEST_MAX]; // after er_digests_finish
    size_t lengths[ER_DIGEST_KINDS];
};

// A new set, or NULL when memory ran out.
struct er_digests *er_digests_new(unsigned wanted);
void er_digests_free(struct er_digests *digests); // NULL is fine
enum er_status er_digests_update(struct er_digests *digests, const void *data, size_t length);
enum er_status er_digests_finish(struct er_digests *digests);

#endif
