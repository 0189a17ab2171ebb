// SPDX-License-Identifier: Apache-2.0
// Timers on the run's clock: a binary heap by time, then by the order in which they were started.
#include "runtime_internal.h"

static bool earlier(const struct er_timer *a, const struct er_timer *b) {
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void place(struct er_runtime *rt, size_t index, struct er_timer *timer) {
    rt->heap[index] = timer;
    timer->slot = index + 1;
}

static void sift_up(struct er_runtime *rt, size_t index) {
    struct er_timer *timer = rt->heap[index];
    while (index > 0 && earlier(timer, rt->heap[(index - 1) / 2])) {
        place(rt, index, rt->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    place(rt, index, timer);
}

static void sift_down(struct er_runtime *rt, size_t index) {
    struct er_timer *timer = rt->heap[index];
    for (;;) {
        size_t child = 2 * index + 1;
        if (child >= rt->heap_length) {
            break;
        }
        if (child + 1 < rt->heap_length && earlier(rt->heap[child + 1], rt->heap[child])) {
            child++;
        }
        if (!earlier(rt->heap[child], timer)) {
            break;
        }
        place(rt, index, rt->heap[child]);
        index = child;
    }
    place(rt, index, timer);
}

static enum er_status reserve_timer(struct er_runtime *rt) {
    if (rt->heap_length < rt->heap_capacity) {
        return ER_OK;
    }
    size_t capacity = rt->heap_capacity ? rt->heap_capacity * 2 : 64;
    struct er_timer **heap = er_realloc(rt->heap, capacity * sizeof *heap);
    if (!heap) {
        return ER_NO_MEMORY;
    }
    rt->heap = heap;
    rt->heap_capacity = capacity;
    return ER_OK;
}

enum er_status er_timer_start(struct er_runtime *rt, struct er_timer *timer, int64_t at,
                              void (*fire)(struct er_timer *timer)) {
    er_timer_stop(rt, timer);
    if (reserve_timer(rt) != ER_OK) {
        return ER_NO_MEMORY;
    }
    timer->at = at;
    timer->order = rt->timer_order++;
    timer->fire = fire;
    place(rt, rt->heap_length++, timer);
    sift_up(rt, rt->heap_length - 1);
    return ER_OK;
}

void er_timer_stop(struct er_runtime *rt, struct er_timer *timer) {
    if (!timer->slot) {
        return;
    }
    size_t index = timer->slot - 1;
    timer->slot = 0;
    struct er_timer *last = rt->heap[--rt->heap_length];
    if (last == timer) {
        return;
    }
    place(rt, index, last);
    sift_up(rt, index);
    sift_down(rt, last->slot - 1);
}

void er_timers_fire(struct er_runtime *rt) {
    if (!rt->heap_length) {
        return;
    }
    int64_t now = er_now(rt);
    uint64_t started = rt->timer_order; // those started by a callback wait for the next turn
    while (rt->heap_length && rt->heap[0]->at <= now && rt->heap[0]->order < started) {
        struct er_timer *timer = rt->heap[0];
        er_timer_stop(rt, timer);
        timer->fire(timer);
    }
}
