// SPDX-License-Identifier: Apache-2.0
#include "deadline.h"

void er_deadline_init(struct er_deadline *deadline, struct er_runtime *rt, bool held,
                      void (*fire)(struct er_deadline *deadline)) {
    *deadline = (struct er_deadline){.rt = rt, .fire = fire};
    deadline->real_time = held && er_clock_kind(rt) == ER_CLOCK_VIRTUAL;
}

int64_t er_deadline_now(const struct er_deadline *deadline) {
    return deadline->real_time ? (int64_t)uv_hrtime() : er_now(deadline->rt);
}

static void on_timer(struct er_timer *timer) {
    struct er_deadline *deadline = (struct er_deadline *)((char *)timer - offsetof(struct er_deadline, timer));
    deadline->fire(deadline);
}

static void on_real_timer(uv_timer_t *timer) {
    struct er_deadline *deadline = timer->data;
    er_touch(deadline->rt);
    deadline->fire(deadline);
}

static enum er_status start_real(struct er_deadline *deadline, int64_t at) {
    if (!deadline->real) {
        deadline->real = er_alloc(sizeof *deadline->real);
        if (!deadline->real) {
            return ER_NO_MEMORY;
        }
        uv_timer_init(er_loop(deadline->rt), deadline->real);
        deadline->real->data = deadline;
    }
    int64_t left = at - er_deadline_now(deadline);
    uv_update_time(er_loop(deadline->rt));
    uv_timer_start(deadline->real, on_real_timer, left > 0 ? (uint64_t)left / 1000000 + 1 : 0, 0);
    return ER_OK;
}

enum er_status er_deadline_start(struct er_deadline *deadline, int64_t at) {
    return deadline->real_time ? start_real(deadline, at)
                               : er_timer_start(deadline->rt, &deadline->timer, at, on_timer);
}

static void on_closed(uv_handle_t *handle) { er_free(handle); }

void er_deadline_stop(struct er_deadline *deadline) {
    if (deadline->rt) {
        er_timer_stop(deadline->rt, &deadline->timer);
    }
    if (deadline->real) {
        uv_close((uv_handle_t *)deadline->real, on_closed);
        deadline->real = NULL;
    }
}

void er_deadline_follow_clock(struct er_deadline *deadline) {
    er_deadline_stop(deadline);
    deadline->real_time = false;
}
