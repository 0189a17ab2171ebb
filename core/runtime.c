// SPDX-License-Identifier: Apache-2.0
#include "runtime_internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// How many tasks run before the sockets are looked at again: an empty poll costs as much as several switches.
enum { RESUMES_PER_POLL = 64 };

// ---- clock

static int64_t clock_ns(clockid_t id) {
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t er_monotonic(void) { return clock_ns(CLOCK_MONOTONIC); }

int64_t er_now(const struct er_runtime *rt) {
    if (rt->kind == ER_CLOCK_VIRTUAL) {
        return rt->virtual_now;
    }
    int64_t passed = er_monotonic() - rt->base_real;
    return rt->base_clock + (rt->kind == ER_CLOCK_SCALED ? (int64_t)((double)passed * rt->factor) : passed);
}

enum er_clock_kind er_clock_kind(const struct er_runtime *rt) { return rt->kind; }

void er_clock_use_virtual(struct er_runtime *rt, int64_t now) {
    rt->kind = ER_CLOCK_VIRTUAL;
    rt->virtual_now = now;
}

void er_clock_use_scaled(struct er_runtime *rt, double factor, int64_t now) {
    rt->kind = ER_CLOCK_SCALED;
    rt->factor = factor;
    rt->base_clock = now;
    rt->base_real = er_monotonic();
}

// ---- quiet, holds and thread-pool jobs

uv_loop_t *er_loop(struct er_runtime *rt) { return &rt->loop; }

void er_touch(struct er_runtime *rt) { rt->touched = true; }

void er_hold(struct er_runtime *rt) { rt->held++; }

void er_unhold(struct er_runtime *rt) { rt->held--; }

static void forget_work(struct er_runtime *rt, struct er_work *work) {
    struct er_work *before = NULL;
    for (struct er_work *at = rt->work_head; at != work; at = at->next) {
        before = at;
    }
    *(before ? &before->next : &rt->work_head) = work->next;
    if (rt->work_tail == work) {
        rt->work_tail = before;
    }
}

static void finish_work(struct er_runtime *rt, struct er_work *work) {
    forget_work(rt, work);
    er_unhold(rt);
    work->done(work);
}

static void on_work(uv_work_t *uv) {
    struct er_work *work = uv->data;
    work->work(work);
}

static void on_work_done(uv_work_t *uv, int status) {
    (void)status; // jobs are never cancelled
    struct er_work *work = uv->data;
    struct er_runtime *rt = work->rt;
    er_touch(rt);
    work->finished = true;
    if (rt->kind != ER_CLOCK_VIRTUAL) {
        finish_work(rt, work);
        return;
    }
    while (rt->work_head && rt->work_head->finished) {
        finish_work(rt, rt->work_head);
    }
}

enum er_status er_work_submit(struct er_runtime *rt, struct er_work *work, void (*run)(struct er_work *),
                              void (*done)(struct er_work *)) {
    *work = (struct er_work){.rt = rt, .work = run, .done = done, .uv = {.data = work}};
    if (uv_queue_work(&rt->loop, &work->uv, on_work, on_work_done) != 0) {
        return ER_NO_MEMORY;
    }
    *(rt->work_tail ? &rt->work_tail->next : &rt->work_head) = work;
    rt->work_tail = work;
    er_hold(rt);
    return ER_OK;
}

// ---- kill points

void er_event(const char *what) {
    static long countdown = -1;
    static bool asked;
    if (!asked) {
        const char *text = getenv("EIRUN_KILL_AT");
        countdown = text ? atol(text) : 0;
        asked = true;
    }
    if (countdown > 0 && --countdown == 0) {
        dprintf(2, "killed at: %s\n", what);
        kill(getpid(), SIGKILL);
    }
}

// ---- the loop

static void on_alarm(uv_timer_t *timer) { (void)timer; }

enum er_status er_runtime_new(struct er_runtime **out) {
    struct er_runtime *rt = er_calloc(1, sizeof *rt);
    if (!rt || uv_loop_init(&rt->loop) != 0) {
        er_free(rt);
        return ER_NO_MEMORY;
    }
    rt->base_clock = clock_ns(CLOCK_REALTIME);
    rt->base_real = er_monotonic();
    rt->gc_stress = getenv("EIRUN_GC_STRESS") != NULL;
    uv_timer_init(&rt->loop, &rt->alarm);
    uv_unref((uv_handle_t *)&rt->alarm);
    uv_prepare_init(&rt->loop, &rt->before_poll);
    uv_unref((uv_handle_t *)&rt->before_poll);
    rt->before_poll.data = rt;
    if (!er_watchdog_start(rt)) {
        er_runtime_free(rt);
        return ER_NO_MEMORY;
    }
    *out = rt;
    return ER_OK;
}

void er_runtime_free(struct er_runtime *rt) {
    er_watchdog_stop(rt);
    uv_close((uv_handle_t *)&rt->alarm, NULL);
    uv_close((uv_handle_t *)&rt->before_poll, NULL);
    uv_close((uv_handle_t *)&rt->wake, NULL);
    uv_run(&rt->loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&rt->loop) != 0) {
        static const char text[] = "eirun: bug: a handle is still open at exit\n";
        if (getenv("EIRUN_DEBUG_HANDLES")) {
            uv_print_all_handles(&rt->loop, stderr);
        }
        (void)!write(2, text, sizeof text - 1);
        abort();
    }
    er_free(rt->heap);
    er_free(rt);
}

// Bytes on their way between two TCP sockets of ours are in neither: a moment of real time lets them arrive.
enum { LOOPBACK_MS = 1 };

static bool sockets_are_quiet(struct er_runtime *rt) {
    struct pollfd fd = {.fd = uv_backend_fd(&rt->loop), .events = POLLIN};
    return poll(&fd, 1, rt->loopbacks ? LOOPBACK_MS : 0) == 0;
}

static uint64_t milliseconds_until(struct er_runtime *rt, int64_t at) {
    int64_t wait = at - er_now(rt);
    if (wait <= 0) {
        return 0;
    }
    double real = rt->kind == ER_CLOCK_SCALED ? (double)wait / rt->factor : (double)wait;
    return (uint64_t)(real / 1e6) + 1;
}

// The last thing before the poll: callbacks that libuv ran since (a write that failed at once, a connection refused)
// may have woken a task or started a timer, and the poll must not sleep over either.
static void on_prepare(uv_prepare_t *prepare) {
    struct er_runtime *rt = prepare->data;
    if (rt->ready_head) {
        uv_timer_start(&rt->alarm, on_alarm, 0, 0);
    } else if (rt->kind != ER_CLOCK_VIRTUAL && rt->heap_length) {
        uv_update_time(&rt->loop);
        uv_timer_start(&rt->alarm, on_alarm, milliseconds_until(rt, rt->heap[0]->at), 0);
    }
}

// One turn of the loop that sleeps until something happens. The alarm keeps the loop alive while timers run.
static void poll_once(struct er_runtime *rt, bool has_timers) {
    if (has_timers) {
        uv_timer_start(&rt->alarm, on_alarm, UINT32_MAX, 0); // on_prepare sets it right
        uv_ref((uv_handle_t *)&rt->alarm);
    }
    uv_prepare_start(&rt->before_poll, on_prepare);
    uv_run(&rt->loop, UV_RUN_ONCE);
    uv_prepare_stop(&rt->before_poll);
    uv_timer_stop(&rt->alarm);
    uv_unref((uv_handle_t *)&rt->alarm);
}

// One idle turn under the virtual clock: jump only when nothing can happen before the next timer.
static bool idle_virtual(struct er_runtime *rt) {
    rt->touched = false;
    uv_run(&rt->loop, UV_RUN_NOWAIT);
    if (rt->touched || rt->ready_head) {
        return true;
    }
    if (rt->held) {
        poll_once(rt, false);
        return true;
    }
    if (!sockets_are_quiet(rt)) {
        return true;
    }
    if (!rt->heap_length) {
        return false;
    }
    if (rt->heap[0]->at > rt->virtual_now) {
        rt->virtual_now = rt->heap[0]->at;
    }
    er_timers_fire(rt);
    return true;
}

static bool idle_real(struct er_runtime *rt) {
    er_timers_fire(rt);
    if (rt->ready_head) {
        uv_run(&rt->loop, UV_RUN_NOWAIT); // timers that are always due must not keep the sockets waiting
        return true;
    }
    if (!rt->heap_length && !uv_loop_alive(&rt->loop)) {
        return false;
    }
    poll_once(rt, rt->heap_length > 0);
    er_timers_fire(rt);
    return true;
}

bool er_runtime_run(struct er_runtime *rt, bool (*finished)(void *), void *context) {
    for (;;) {
        er_interrupt_take(rt);
        er_tasks_run_ready(rt, RESUMES_PER_POLL);
        if (finished(context)) {
            return true;
        }
        if (rt->ready_head) {
            uv_run(&rt->loop, UV_RUN_NOWAIT);
            if (rt->kind != ER_CLOCK_VIRTUAL) {
                er_timers_fire(rt);
            }
        } else if (!(rt->kind == ER_CLOCK_VIRTUAL ? idle_virtual(rt) : idle_real(rt))) {
            return false;
        }
    }
}
