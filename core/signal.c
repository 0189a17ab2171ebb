// SPDX-License-Identifier: Apache-2.0
// Events: a flag that tasks can wait for. Queues and conditions of lua/eirun/task.lua are made of it.
#include "bind.h"
#include "runtime_internal.h"

#define EVENT "eirun.task.event"
#define WAITER "eirun.task.waiter"

struct waiter {
    struct er_op op;
    struct er_timer timer;
    struct er_runtime *rt;
    struct event *event; // in whose list it is; NULL: in none
    struct waiter *prev, *next;
    bool woken;
};

struct event {
    bool set;
    struct waiter *first, *last;
};

static void leave(struct waiter *waiter) {
    if (!waiter->event) {
        return;
    }
    *(waiter->prev ? &waiter->prev->next : &waiter->event->first) = waiter->next;
    *(waiter->next ? &waiter->next->prev : &waiter->event->last) = waiter->prev;
    waiter->event = NULL;
    er_timer_stop(waiter->rt, &waiter->timer);
}

static void enter(struct event *event, struct waiter *waiter) {
    waiter->event = event;
    waiter->prev = event->last;
    *(event->last ? &event->last->next : &event->first) = waiter;
    event->last = waiter;
}

static void stop_waiting(struct er_op *op) {
    leave((struct waiter *)op);
    er_op_done(op);
}

static void on_timeout(struct er_timer *timer) {
    struct waiter *waiter = (struct waiter *)((char *)timer - offsetof(struct waiter, timer));
    leave(waiter);
    er_op_done(&waiter->op);
}

static int l_waiter_close(lua_State *L) {
    leave(luaL_checkudata(L, 1, WAITER));
    return 0;
}

static void wake(struct event *event, bool all) {
    while (event->first) {
        struct waiter *waiter = event->first;
        leave(waiter);
        waiter->woken = true;
        er_op_done(&waiter->op);
        if (!all) {
            return;
        }
    }
}

static struct event *check_event(lua_State *L) { return luaL_checkudata(L, 1, EVENT); }

static int l_event(lua_State *L) {
    er_handle_new(L, sizeof(struct event), EVENT);
    return 1;
}

// Wakes every waiter and stays set until clear().
static int l_set(lua_State *L) {
    struct event *event = check_event(L);
    event->set = true;
    wake(event, true);
    return 0;
}

static int l_clear(lua_State *L) {
    check_event(L)->set = false;
    return 0;
}

// Wakes those who wait now and stays as it is: all, or the longest waiting one with notify("one").
static int l_notify(lua_State *L) {
    wake(check_event(L), lua_isnoneornil(L, 2));
    return 0;
}

static int k_wait(lua_State *L, int status, lua_KContext context) {
    (void)status;
    struct waiter *waiter = luaL_checkudata(L, (int)context, WAITER);
    bool woken = waiter->woken;
    leave(waiter);
    er_task_check(L);
    lua_pushboolean(L, woken);
    return 1;
}

// event:wait([seconds]) -> true, or false when the time was over.
static int l_wait(lua_State *L) {
    struct event *event = check_event(L);
    lua_Number seconds = luaL_optnumber(L, 2, -1);
    lua_settop(L, 2);
    er_task_check_yieldable(L, "event:wait");
    er_task_check(L);
    if (event->set) {
        lua_pushboolean(L, 1);
        return 1;
    }
    struct waiter *waiter = er_handle_new(L, sizeof *waiter, WAITER);
    waiter->rt = er_runtime_of(L);
    if (!lua_isnoneornil(L, 2)) {
        int64_t at = er_now(waiter->rt) + (seconds > 0 ? (int64_t)(seconds * 1e9) : 0);
        if (er_timer_start(waiter->rt, &waiter->timer, at, on_timeout) != ER_OK) {
            return luaL_error(L, "not enough memory");
        }
    }
    enter(event, waiter);
    return er_op_wait(L, &waiter->op, stop_waiting, k_wait, lua_gettop(L));
}

static int l_is_set(lua_State *L) {
    lua_pushboolean(L, check_event(L)->set);
    return 1;
}

// Those who still wait are anchored by their coroutines, and they anchor the event: nobody waits when it is collected.
static int l_event_close(lua_State *L) {
    struct event *event = check_event(L);
    while (event->first) {
        leave(event->first);
    }
    return 0;
}

void er_signal_register(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"set", l_set}, {"clear", l_clear}, {"notify", l_notify}, {"wait", l_wait}, {"is_set", l_is_set}, {NULL, NULL},
    };
    er_handle_type(L, EVENT, methods, l_event_close);
    er_handle_type(L, WAITER, NULL, l_waiter_close);
    lua_pushcfunction(L, l_event);
    lua_setfield(L, -2, "event");
}
