// SPDX-License-Identifier: Apache-2.0
#include "runtime_internal.h"

#include "vm.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// How many tasks run before the sockets are looked at again: an empty poll costs as much as several switches.
enum { RESUMES_PER_POLL = 64 };
// A task that has not given way for this long gets a hook that can interrupt it.
enum { OVERRUN_MS = 50 };

static struct er_runtime *signalled; // the signal handlers know one runtime

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

// ---- timers

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

static void fire_due(struct er_runtime *rt) {
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

// ---- overrun watchdog and Ctrl-C

static void on_overrun_signal(int number) {
    (void)number;
    if (signalled && signalled->running) {
        lua_sethook(signalled->running, er_hook_overrun, LUA_MASKCOUNT, 1000);
    }
}

static void on_interrupt_signal(int number) {
    (void)number;
    if (!signalled) {
        return;
    }
    if (signalled->interrupts++ > 0) {
        _exit(130);
    }
    uv_async_send(&signalled->wake);
}

// True when the main thread wants this one to end; false after a tick.
static bool told_to_stop(struct er_runtime *rt) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += OVERRUN_MS * 1000000L;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    return sem_clockwait(&rt->watchdog_stop, CLOCK_MONOTONIC, &until) == 0;
}

static void watch(void *argument) {
    struct er_runtime *rt = argument;
    uint64_t last = 0;
    while (!told_to_stop(rt)) {
        if (rt->running && rt->resumes == last) {
            kill(getpid(), SIGURG);
        }
        last = rt->resumes;
    }
}

static void handle_signal(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

static void on_wake(uv_async_t *wake) {
    struct er_runtime *rt = wake->data;
    er_touch(rt);
}

static bool start_watchdog(struct er_runtime *rt) {
    signalled = rt;
    handle_signal(SIGURG, on_overrun_signal);
    handle_signal(SIGINT, on_interrupt_signal);
    handle_signal(SIGTERM, on_interrupt_signal);
    handle_signal(SIGPIPE, SIG_IGN);
    sigset_t mine, before;
    sigemptyset(&mine);
    sigaddset(&mine, SIGURG);
    sigaddset(&mine, SIGINT);
    sigaddset(&mine, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &mine, &before); // the thread inherits: the signals stay with the main thread
    rt->watchdog_runs = sem_init(&rt->watchdog_stop, 0, 0) == 0 && uv_thread_create(&rt->watchdog, watch, rt) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rt->watchdog_runs;
}

static void stop_watchdog(struct er_runtime *rt) {
    if (!rt->watchdog_runs) {
        return;
    }
    sem_post(&rt->watchdog_stop);
    uv_thread_join(&rt->watchdog);
    sem_destroy(&rt->watchdog_stop);
    signalled = NULL;
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
    uv_async_init(&rt->loop, &rt->wake, on_wake);
    uv_unref((uv_handle_t *)&rt->wake);
    rt->wake.data = rt;
    if (!start_watchdog(rt)) {
        er_runtime_free(rt);
        return ER_NO_MEMORY;
    }
    *out = rt;
    return ER_OK;
}

void er_runtime_free(struct er_runtime *rt) {
    stop_watchdog(rt);
    uv_close((uv_handle_t *)&rt->alarm, NULL);
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

static void take_interrupt(struct er_runtime *rt) {
    if (rt->interrupts && !rt->interrupt_seen && rt->root) {
        rt->interrupt_seen = true;
        er_vm_cancel(rt->root->vm, "interrupted");
    }
}

static bool sockets_are_quiet(struct er_runtime *rt) {
    struct pollfd fd = {.fd = uv_backend_fd(&rt->loop), .events = POLLIN};
    return poll(&fd, 1, 0) == 0;
}

// One idle turn under the virtual clock: jump only when nothing can happen before the next timer.
static bool idle_virtual(struct er_runtime *rt) {
    rt->touched = false;
    uv_run(&rt->loop, UV_RUN_NOWAIT);
    if (rt->touched || rt->ready_head) {
        return true;
    }
    if (rt->held) {
        uv_run(&rt->loop, UV_RUN_ONCE);
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
    fire_due(rt);
    return true;
}

static uint64_t milliseconds_until(struct er_runtime *rt, int64_t at) {
    int64_t wait = at - er_now(rt);
    if (wait <= 0) {
        return 0;
    }
    double real = rt->kind == ER_CLOCK_SCALED ? (double)wait / rt->factor : (double)wait;
    return (uint64_t)(real / 1e6) + 1;
}

static bool idle_real(struct er_runtime *rt) {
    fire_due(rt);
    if (rt->ready_head) {
        uv_run(&rt->loop, UV_RUN_NOWAIT); // timers that are always due must not keep the sockets waiting
        return true;
    }
    if (!rt->heap_length && !uv_loop_alive(&rt->loop)) {
        return false;
    }
    if (rt->heap_length) {
        uv_update_time(&rt->loop);
        uv_timer_start(&rt->alarm, on_alarm, milliseconds_until(rt, rt->heap[0]->at), 0);
        uv_ref((uv_handle_t *)&rt->alarm);
    }
    uv_run(&rt->loop, UV_RUN_ONCE);
    uv_timer_stop(&rt->alarm);
    uv_unref((uv_handle_t *)&rt->alarm);
    fire_due(rt);
    return true;
}

bool er_runtime_run(struct er_runtime *rt, bool (*finished)(void *), void *context) {
    for (;;) {
        take_interrupt(rt);
        er_tasks_run_ready(rt, RESUMES_PER_POLL);
        if (finished(context)) {
            return true;
        }
        if (rt->ready_head) {
            uv_run(&rt->loop, UV_RUN_NOWAIT);
            if (rt->kind != ER_CLOCK_VIRTUAL) {
                fire_due(rt);
            }
        } else if (!(rt->kind == ER_CLOCK_VIRTUAL ? idle_virtual(rt) : idle_real(rt))) {
            return false;
        }
    }
}

// A count hook that a signal armed on a task that did not give way: lets time pass for it, and stops it if it must.
void er_hook_overrun(lua_State *L, lua_Debug *ar) {
    (void)ar;
    struct er_runtime *rt = er_runtime_of(L);
    struct er_task *task = rt->current;
    if (!task) {
        lua_sethook(L, NULL, 0, 0);
        return;
    }
    int64_t now = er_monotonic();
    if (!rt->resumed_at) {
        rt->resumed_at = now;
    }
    take_interrupt(rt);
    if (rt->kind != ER_CLOCK_VIRTUAL) {
        fire_due(rt);
    } else if (now - rt->resumed_at > 1000000000) {
        // Virtual time stands still while Lua computes: a deadline around the task is then measured by the real clock.
        er_scope_expire_around(task, now - rt->resumed_at);
    }
    if (task->cancelled) {
        lua_sethook(L, er_hook_overrun, LUA_MASKCOUNT, 1); // the next instruction outside a pcall must raise, too
    }
    er_task_check(L);
}
