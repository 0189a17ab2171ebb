// SPDX-License-Identifier: Apache-2.0
// Requests made ahead of time: one thread puts them in, one takes them out, neither waits for the other.
#ifndef EIRUN_LOAD_RING_H
#define EIRUN_LOAD_RING_H

#include "er.h"

#include <stdatomic.h>

struct er_load_request { // complete bytes of one HTTP/1.1 request
    const char *bytes;
    size_t length;
};

struct er_load_ring {
    struct er_load_request *slots;
    size_t capacity;
    _Atomic size_t taken, put; // counts that only grow
};

enum er_status er_load_ring_init(struct er_load_ring *ring, size_t capacity);
void er_load_ring_release(struct er_load_ring *ring); // with what is in it; may run twice
// Copies the bytes. ER_QUOTA: it is full.
enum er_status er_load_ring_put(struct er_load_ring *ring, const char *bytes, size_t length);
// The caller owns the bytes: er_load_request_release. False: it is empty.
bool er_load_ring_take(struct er_load_ring *ring, struct er_load_request *request);

// Wipes and frees; a request may carry a token.
void er_load_request_release(struct er_load_request *request);

#endif
