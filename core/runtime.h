// SPDX-License-Identifier: Apache-2.0
// One process, one loop, one clock, one queue of tasks that are ready to run.
#ifndef EIRUN_RUNTIME_H
#define EIRUN_RUNTIME_H

#include "er.h"

#include <lua.h>
#include <uv.h>

struct er_runtime;

// The loop that every mechanism hangs its handles on.
uv_loop_t *er_loop(struct er_runtime *rt);
// The runtime of this state; never NULL in a state made by er_vm_new.
struct er_runtime *er_runtime_of(lua_State *L);

enum er_clock_kind { ER_CLOCK_REAL, ER_CLOCK_VIRTUAL, ER_CLOCK_SCALED };

// Nanoseconds since the Unix epoch on the run's clock: the only time that mechanisms may look at.
int64_t er_now(const struct er_runtime *rt);
enum er_clock_kind er_clock_kind(const struct er_runtime *rt);

// A timer on the run's clock. Zero-initialise; embed it in the mechanism's own struct. Not repeating.
struct er_timer {
    int64_t at;
    uint64_t order; // timers of one instant fire in the order in which they were started
    void (*fire)(struct er_timer *timer);
    size_t slot; // place in the heap plus 1; 0: not running
};
enum er_status er_timer_start(struct er_runtime *rt, struct er_timer *timer, int64_t at,
                              void (*fire)(struct er_timer *timer)); // restarts a running one; ER_NO_MEMORY
void er_timer_stop(struct er_runtime *rt, struct er_timer *timer);   // may be called on a stopped one

// Every libuv callback of a mechanism calls er_touch first: under the virtual clock a turn of the loop in which
// nothing was touched, nothing held and nothing ready is proof of quiet, and only then the clock may jump.
void er_touch(struct er_runtime *rt);
// Work outside the loop's sight (thread pool, child process, a peer in another process) holds the virtual clock.
void er_hold(struct er_runtime *rt);
void er_unhold(struct er_runtime *rt);

// Runs `work` on libuv's pool and `done` on the loop, holding the clock between. Under the virtual clock the `done`s of
// jobs in flight run in submission order. `work` must not touch Lua or the runtime. Embed; the struct must outlive
// `done`.
struct er_work {
    uv_work_t uv;
    struct er_runtime *rt;
    void (*work)(struct er_work *work);
    void (*done)(struct er_work *work);
    struct er_work *next;
    bool finished;
};
enum er_status er_work_submit(struct er_runtime *rt, struct er_work *work, void (*run)(struct er_work *),
                              void (*done)(struct er_work *));

// Counts an event that a kill test may stop at: with EIRUN_KILL_AT=n the n-th one ends the process by SIGKILL.
// Called after each acknowledged effect: a commit, a reply sent, a reply received, a file renamed into place.
void er_event(const char *what);

#endif
