// SPDX-License-Identifier: Apache-2.0
#include "ring.h"

#include <string.h>

enum er_status er_load_ring_init(struct er_load_ring *ring, size_t capacity) {
    *ring = (struct er_load_ring){.capacity = capacity};
    ring->slots = er_calloc(capacity, sizeof *ring->slots);
    return ring->slots ? ER_OK : ER_NO_MEMORY;
}

void er_load_request_release(struct er_load_request *request) {
    er_free_secret((char *)request->bytes, request->length);
    *request = (struct er_load_request){0};
}

void er_load_ring_release(struct er_load_ring *ring) {
    struct er_load_request request;
    while (ring->slots && er_load_ring_take(ring, &request)) {
        er_load_request_release(&request);
    }
    er_free(ring->slots);
    ring->slots = NULL;
}

enum er_status er_load_ring_put(struct er_load_ring *ring, const char *bytes, size_t length) {
    size_t put = atomic_load_explicit(&ring->put, memory_order_relaxed);
    if (put - atomic_load_explicit(&ring->taken, memory_order_acquire) == ring->capacity) {
        return ER_QUOTA;
    }
    char *copy = er_strndup(bytes, length);
    if (!copy) {
        return ER_NO_MEMORY;
    }
    ring->slots[put % ring->capacity] = (struct er_load_request){copy, length};
    atomic_store_explicit(&ring->put, put + 1, memory_order_release);
    return ER_OK;
}

bool er_load_ring_take(struct er_load_ring *ring, struct er_load_request *request) {
    size_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    if (taken == atomic_load_explicit(&ring->put, memory_order_acquire)) {
        return false;
    }
    *request = ring->slots[taken % ring->capacity];
    atomic_store_explicit(&ring->taken, taken + 1, memory_order_release);
    return true;
}
