// SPDX-License-Identifier: Apache-2.0
// What stops Lua from outside: Ctrl-C, and a watchdog that arms a hook in a task that does not give way. The watchdog
// is a timer of the main thread's CPU time: idle it costs nothing, and the start is spared a thread.
#include "runtime_internal.h"
#include "vm.h"

#include <time.h>
#include <unistd.h>

// A task that has not given way for this long gets a hook that can interrupt it.
enum { OVERRUN_MS = 50 };

static struct er_runtime *_Atomic signalled; // the signal handlers know one runtime

static void on_overrun_signal(int number) {
    static uint64_t last;
    (void)number;
    struct er_runtime *rt = atomic_load_explicit(&signalled, memory_order_relaxed);
    if (!rt) {
        return;
    }
    uint64_t resumes = atomic_load_explicit(&rt->resumes, memory_order_relaxed);
    lua_State *running = atomic_load_explicit(&rt->running, memory_order_relaxed);
    if (running && resumes == last) {
        lua_sethook(running, er_hook_overrun, LUA_MASKCOUNT, 1000);
    }
    last = resumes;
}

static void on_interrupt_signal(int number) {
    (void)number;
    struct er_runtime *rt = atomic_load(&signalled);
    if (!rt) {
        return;
    }
    if (atomic_fetch_add(&rt->interrupts, 1) > 0) {
        _exit(130);
    }
    uv_async_send(&rt->wake);
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

static bool start_timer(timer_t *timer) {
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGURG};
    event._sigev_un._tid = gettid(); // what the manual calls sigev_notify_thread_id has no name in glibc 2.36
    struct itimerspec each = {.it_interval.tv_nsec = OVERRUN_MS * 1000000L, .it_value.tv_nsec = OVERRUN_MS * 1000000L};
    return timer_create(CLOCK_THREAD_CPUTIME_ID, &event, timer) == 0 && timer_settime(*timer, 0, &each, NULL) == 0;
}

bool er_watchdog_start(struct er_runtime *rt) {
    uv_async_init(&rt->loop, &rt->wake, on_wake);
    uv_unref((uv_handle_t *)&rt->wake);
    rt->wake.data = rt;
    atomic_store(&signalled, rt);
    handle_signal(SIGURG, on_overrun_signal);
    handle_signal(SIGINT, on_interrupt_signal);
    handle_signal(SIGTERM, on_interrupt_signal);
    handle_signal(SIGPIPE, SIG_IGN);
    return rt->watchdog_runs = start_timer(&rt->watchdog);
}

void er_watchdog_stop(struct er_runtime *rt) {
    if (!rt->watchdog_runs) {
        return;
    }
    timer_delete(rt->watchdog);
    atomic_store(&signalled, NULL);
}

void er_interrupt_take(struct er_runtime *rt) {
    if (!rt->interrupt_seen && rt->root && atomic_load_explicit(&rt->interrupts, memory_order_relaxed)) {
        rt->interrupt_seen = true;
        er_vm_cancel(rt->root->vm, "interrupted");
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
    er_vm_grown(task->vm);
    er_interrupt_take(rt);
    if (rt->kind != ER_CLOCK_VIRTUAL) {
        er_timers_fire(rt);
    } else if (now - rt->resumed_at > 1000000000) {
        // Virtual time stands still while Lua computes: a deadline around the task is then measured by the real clock.
        er_scope_expire_around(task, now - rt->resumed_at);
    }
    if (task->cancelled) {
        lua_sethook(L, er_hook_overrun, LUA_MASKCOUNT, 1); // the next instruction outside a pcall must raise, too
    }
    er_task_check(L);
}
