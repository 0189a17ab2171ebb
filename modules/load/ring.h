// SPDX-License-Identifier: Apache-2.0
// Requests made ahead of time: one thread puts them in, one takes them out, neither waits for the other. Answers that a
// sample keeps go back the same way.
#ifndef EIRUN_LOAD_RING_H
#define EIRUN_LOAD_RING_H

#include "request.h"

#include <stdatomic.h>

struct er_load_ring {
    struct er_load_request *slots;
    size_t capacity;
    _Atomic size_t taken, put; // counts that only grow
};

enum er_status er_load_ring_init(struct er_load_ring *ring, size_t capacity);
void er_load_ring_release(struct er_load_ring *ring); // with what is in it; may run twice
// The ring owns what the request holds. ER_QUOTA: it is full, and the request stays the caller's.
enum er_status er_load_ring_put(struct er_load_ring *ring, struct er_load_request request);
// For the one who puts.
bool er_load_ring_full(struct er_load_ring *ring);
// What would be taken; NULL when it is empty. For the one who takes.
const struct er_load_request *er_load_ring_peek(struct er_load_ring *ring);
// The caller owns the bytes: er_load_request_release. False: it is empty.
bool er_load_ring_take(struct er_load_ring *ring, struct er_load_request *request);

#endif
