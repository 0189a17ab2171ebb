// SPDX-License-Identifier: Apache-2.0
// Tasks are coroutines; an op is the one thing that a task waits for. This is all that a blocking binding needs:
//
//     struct thing { struct er_op op; ...results... };
//
//     static void cancel_thing(struct er_op *op) { stop the work; er_op_done(op) now or later; }
//     static void on_thing(...)                  { er_touch(rt); store results; er_op_done(&thing->op); }
//     static int k_thing(lua_State *L, int status, lua_KContext context) {
//         er_task_check(L);                     // raises when the task was cancelled
//         ...push the results that on_thing stored...
//     }
//     static int l_thing(lua_State *L) {
//         ...check arguments, make the userdata closed, start the work...
//         return er_op_wait(L, &thing->op, cancel_thing, k_thing, context);
//     }
//
// The struct that holds the op is malloc'ed (or in a userdata that the op's own life anchors), never on the C stack.
#ifndef EIRUN_TASK_H
#define EIRUN_TASK_H

#include "er.h"

#include <lua.h>

struct er_task;
struct er_op {
    struct er_task *task; // who waits; NULL when nobody does (done, cancelled away, or the task is gone)
    void (*cancel)(struct er_op *op);
};

// Yields the current task until er_op_done(op). Does not return: nothing after it runs. Raises (misuse) where the task
// cannot yield, naming the C function in the way, and (cancel) when the task is already cancelled: so start the
// work in a way that its userdata's close can undo, or call er_task_check first. `cancel` may be NULL when the work is
// too short to be stopped. An op that was done before the wait began (er_op_done already called by the mechanism
// while op->task was NULL) would never wake: check the mechanism's own state first and return at once instead.
int er_op_wait(lua_State *L, struct er_op *op, void (*cancel)(struct er_op *op), lua_KFunction k, lua_KContext context);

// Queues the waiting task; a no-op when nobody waits. Never runs Lua itself. Callable from any loop callback.
void er_op_done(struct er_op *op);

// True while a task waits for it.
static inline bool er_op_waiting(const struct er_op *op) { return op->task != NULL; }

// Raises the cancel (or time-out) error of the current task, if it has one and is not shielded. [-0, +0, v]
void er_task_check(lua_State *L);

// Raises unless the running coroutine can yield. Call it before any work is started. [-0, +0, v]
void er_task_check_yieldable(lua_State *L, const char *what);

#endif
