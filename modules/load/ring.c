// SPDX-License-Identifier: Apache-2.0
#include "ring.h"

enum er_status er_load_ring_init(struct er_load_ring *ring, size_t capacity) {
    *ring = (struct er_load_ring){.capacity = capacity};
    ring->slots = er_calloc(capacity, sizeof *ring->slots);
    return ring->slots ? ER_OK : ER_NO_MEMORY;
}

void er_load_ring_release(struct er_load_ring *ring) {
    struct er_load_request request;
    while (ring->slots && er_load_ring_take(ring, &request)) {
        er_load_request_release(&request);
    }
    er_free(ring->slots);
    ring->slots = NULL;
}

bool er_load_ring_full(struct er_load_ring *ring) {
    size_t put = atomic_load_explicit(&ring->put, memory_order_relaxed);
    return put - atomic_load_explicit(&ring->taken, memory_order_acquire) == ring->capacity;
}

enum er_status er_load_ring_put(struct er_load_ring *ring, struct er_load_request request) {
    if (er_load_ring_full(ring)) {
        return ER_QUOTA;
    }
    size_t put = atomic_load_explicit(&ring->put, memory_order_relaxed);
    ring->slots[put % ring->capacity] = request;
    atomic_store_explicit(&ring->put, put + 1, memory_order_release);
    return ER_OK;
}

const struct er_load_request *er_load_ring_peek(struct er_load_ring *ring) {
    size_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    bool empty = taken == atomic_load_explicit(&ring->put, memory_order_acquire);
    return empty ? NULL : &ring->slots[taken % ring->capacity];
}

bool er_load_ring_take(struct er_load_ring *ring, struct er_load_request *request) {
    const struct er_load_request *next = er_load_ring_peek(ring);
    if (!next) {
        return false;
    }
    *request = *next;
    size_t taken = atomic_load_explicit(&ring->taken, memory_order_relaxed);
    atomic_store_explicit(&ring->taken, taken + 1, memory_order_release);
    return true;
}
