// SPDX-License-Identifier: Apache-2.0
// What runtime.c, task.c, scope.c and vm.c know of each other and nobody else may.
#ifndef EIRUN_RUNTIME_INTERNAL_H
#define EIRUN_RUNTIME_INTERNAL_H

#include "runtime.h"
#include "task.h"

#include <lua.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

struct er_scope;
struct er_listening;

struct er_runtime {
    uv_loop_t loop;
    // clock
    enum er_clock_kind kind;
    double factor;      // scaled: clock seconds per real second
    int64_t base_clock; // clock and monotonic time of the moment the clock was chosen
    int64_t base_real;
    int64_t virtual_now;
    // timers, a binary heap by (at, order)
    struct er_timer **heap;
    size_t heap_length, heap_capacity;
    uint64_t timer_order;
    uv_prepare_t before_poll;
    uv_timer_t alarm; // real and scaled clocks: ends the poll when the first timer is due
    // quiet
    bool touched;
    unsigned held;
    unsigned loopbacks;             // transfers under way between two sockets of ours
    struct er_listening *listening; // where we listen
    // tasks
    struct er_task *ready_head, *ready_tail;
    struct er_task *current;
    unsigned gc_stress; // EIRUN_GC_STRESS: collect at each resume
    // thread-pool jobs in flight, oldest first; ordered delivery under the virtual clock
    struct er_work *work_head, *work_tail;
    struct er_vm *vms;
    // overrun watchdog and Ctrl-C
    lua_State *_Atomic running;  // the innermost coroutine that runs Lua now, NULL outside Lua
    _Atomic uint64_t resumes;    // the watchdog, a signal handler, reads both
    _Atomic unsigned interrupts; // Ctrl-C may come to any thread
    bool interrupt_seen;
    int64_t resumed_at; // monotonic, of the first overrun signal of this resume
    uv_async_t wake;
    timer_t watchdog;
    bool watchdog_runs;
    struct er_task *root; // Ctrl-C cancels it
};

enum er_status er_runtime_new(struct er_runtime **rt);
void er_runtime_free(struct er_runtime *rt); // every vm freed before
// Runs until `task` has finished. False: nothing can ever wake it (a deadlock).
bool er_runtime_run(struct er_runtime *rt, bool (*finished)(void *), void *context);
// Calls what is due; what a callback starts waits for the next turn.
void er_timers_fire(struct er_runtime *rt);
bool er_watchdog_start(struct er_runtime *rt);
void er_watchdog_stop(struct er_runtime *rt);
// Cancels the root once after a Ctrl-C.
void er_interrupt_take(struct er_runtime *rt);
void er_clock_use_virtual(struct er_runtime *rt, int64_t now);
void er_clock_use_scaled(struct er_runtime *rt, double factor, int64_t now);
int64_t er_monotonic(void);

// Hot, and nothing else hangs on them: what the watchdog and the signal handlers see of the loop's thread needs no
// order.
static inline void er_set_running(struct er_runtime *rt, lua_State *L) {
    atomic_store_explicit(&rt->running, L, memory_order_relaxed);
}
static inline void er_count_resume(struct er_runtime *rt) {
    uint64_t before = atomic_load_explicit(&rt->resumes, memory_order_relaxed);
    atomic_store_explicit(&rt->resumes, before + 1, memory_order_relaxed);
}

enum er_task_state { ER_TASK_READY, ER_TASK_RUNNING, ER_TASK_WAITING, ER_TASK_DEAD };

struct er_task {
    struct er_vm *vm;
    lua_State *co;
    struct er_op *op;
    struct er_scope *scope;      // whose child it is; NULL for a root
    struct er_task *prev, *next; // its scope's living or failed children
    struct er_task *next_ready;
    enum er_task_state state;
    bool started, failed;
    bool cancelled; // sticky; the reason is its scope's
    bool echo;      // failed with nothing but the cancel that it was sent
    int thread_ref, context_ref;
    int result_ref; // what it returned, packed, or its error; LUA_NOREF when it broke: then `broken` says why
    int arguments;
    struct er_op sleep_op; // sleep needs no memory of its own
    struct er_timer sleep_timer;
    char broken[96];
};

// Function and `arguments` values are on top of L: they become a task of `scope` (NULL: a root). [-(n+1), +0, m]
struct er_task *er_task_start(lua_State *L, struct er_scope *scope, int arguments);
// Sets the sticky mark and stops what the task waits for; its reason must be in place. Touches no Lua.
void er_task_cancel(struct er_task *task);
const struct er_error *er_task_reason(const struct er_task *task);
// Its results (a packed table) or its error. [-0, +1, m]
void er_task_push_outcome(lua_State *L, const struct er_task *task);
void er_task_free(struct er_task *task);
void er_tasks_run_ready(struct er_runtime *rt, unsigned most);
struct er_task *er_task_current(lua_State *L); // raises outside a task
// Raises through the continuation of a sleep. [-0, +0, v]
int er_task_sleep_until(lua_State *L, int64_t at);
// Pushes nothing: each adds its functions to the module table on top. [-0, +0, m]
void er_task_register(lua_State *L);
void er_scope_register(lua_State *L);
void er_signal_register(lua_State *L);

// As er_op_wait, also for a task that is cancelled already; a cancel does not wake it when `cancel` is NULL.
int er_op_wait_anyway(lua_State *L, struct er_op *op, void (*cancel)(struct er_op *), lua_KFunction k, lua_KContext c);

// Nobody outlives the root: whatever scopes are still open end with it.
void er_scopes_cancel(struct er_vm *vm);
void er_scope_child_finished(struct er_scope *scope, struct er_task *child);
const struct er_error *er_scope_reason(const struct er_scope *scope);
// The next deadline around the task that `passed` nanoseconds would reach is made to expire.
void er_scope_expire_around(struct er_task *task, int64_t passed);

void er_hook_overrun(lua_State *L, lua_Debug *ar);

#endif
