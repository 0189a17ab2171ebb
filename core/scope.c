// SPDX-License-Identifier: Apache-2.0
// A scope owns the tasks that were started in it: nobody outlives the block that opened it. `together`, `race`,
// `timeout` and `shield` (lua/eirun/task.lua) are this one thing joined in different ways.
#include "bind.h"
#include "runtime_internal.h"
#include "vm.h"

#include <stdio.h>
#include <string.h>

#define SCOPE "eirun.task.scope"

struct er_scope {
    struct er_vm *vm;
    struct er_task *children;     // alive
    struct er_task *failures;     // finished with an error, the first one last
    struct er_task *winner;       // with `any`: the first to finish
    struct er_task *owner;        // who joins it
    struct er_scope *prev, *next; // of the state's open ones
    size_t live;
    bool open, any, shielded;
    bool cancelled; // `reason` is set and every child has been told
    bool expired;   // cancelled by its own deadline
    int self_ref;   // anchors the userdata while children live
    struct er_error reason;
    struct er_op join;
    struct er_timer deadline;
    double seconds; // of the deadline, for its message
};

const struct er_error *er_scope_reason(const struct er_scope *scope) { return &scope->reason; }

static void unlink_child(struct er_task **list, struct er_task *child) {
    *(child->prev ? &child->prev->next : list) = child->next;
    if (child->next) {
        child->next->prev = child->prev;
    }
    child->prev = child->next = NULL;
}

static void link_child(struct er_task **list, struct er_task *child) {
    child->next = *list;
    if (*list) {
        (*list)->prev = child;
    }
    *list = child;
}

// A child's cancel may finish it at once and unlink it, so each step starts from the list's head again.
static void cancel_children(struct er_scope *scope) {
    scope->cancelled = true;
    for (struct er_task *child = scope->children, *next; child; child = next) {
        next = child->next;
        er_task_cancel(child);
    }
}

static void cancel_scope(struct er_scope *scope, enum er_status status, const char *message) {
    if (!scope->cancelled) {
        er_fail(&scope->reason, status, "%s", message);
        cancel_children(scope);
    }
}

static void expire(struct er_scope *scope) {
    er_timer_stop(scope->vm->rt, &scope->deadline);
    if (scope->cancelled) {
        return;
    }
    scope->expired = true;
    char message[96];
    snprintf(message, sizeof message, "timed out after %.14g s", scope->seconds);
    cancel_scope(scope, ER_TIMEOUT, message);
}

static void on_deadline(struct er_timer *timer) {
    expire((struct er_scope *)((char *)timer - offsetof(struct er_scope, deadline)));
}

void er_scope_expire_around(struct er_task *task, int64_t passed) {
    for (struct er_scope *scope = task->scope; scope; scope = scope->owner ? scope->owner->scope : NULL) {
        if (scope->deadline.slot && scope->deadline.at - er_now(scope->vm->rt) <= passed) {
            expire(scope);
        }
    }
}

static void keep_or_free(struct er_scope *scope, struct er_task *child) {
    if (scope->open && scope->any && !scope->winner && !scope->cancelled) {
        scope->winner = child;
        cancel_scope(scope, ER_CANCELLED, "cancelled: another task of the race was first");
    } else if (scope->open && child->failed && (!child->echo || !scope->failures)) {
        link_child(&scope->failures, child);
        cancel_scope(scope, ER_CANCELLED, "cancelled: a task beside it failed");
    } else {
        er_task_free(child);
    }
}

void er_scope_child_finished(struct er_scope *scope, struct er_task *child) {
    unlink_child(&scope->children, child);
    scope->live--;
    keep_or_free(scope, child);
    if (scope->live == 0) {
        er_timer_stop(scope->vm->rt, &scope->deadline);
        luaL_unref(scope->vm->L, LUA_REGISTRYINDEX, scope->self_ref);
        scope->self_ref = LUA_NOREF;
        er_op_done(&scope->join);
    }
}

void er_scopes_cancel(struct er_vm *vm) {
    for (struct er_scope *scope = vm->scopes; scope; scope = scope->next) {
        cancel_scope(scope, ER_CANCELLED, "cancelled: the program is ending");
    }
}

static struct er_scope *check_scope(lua_State *L) { return luaL_checkudata(L, 1, SCOPE); }

static int l_scope(lua_State *L) {
    struct er_scope *scope = er_handle_new(L, sizeof *scope, SCOPE);
    scope->vm = er_vm_of(L);
    scope->self_ref = LUA_NOREF;
    scope->open = true;
    scope->owner = scope->vm->rt->current;
    scope->next = scope->vm->scopes;
    if (scope->next) {
        scope->next->prev = scope;
    }
    scope->vm->scopes = scope;
    return 1;
}

// scope:spawn(fn, ...)
static int l_spawn(lua_State *L) {
    struct er_scope *scope = check_scope(L);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    luaL_argcheck(L, scope->open, 1, "the scope is closed");
    if (!scope->shielded) {
        er_task_check(L);
    }
    if (scope->cancelled) {
        er_push_error(L, &scope->reason);
        return lua_error(L);
    }
    if (scope->self_ref == LUA_NOREF) {
        lua_pushvalue(L, 1);
        scope->self_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    struct er_task *child = er_task_start(L, scope, lua_gettop(L) - 2);
    link_child(&scope->children, child);
    scope->live++;
    return 0;
}

static void free_list(struct er_task *list) {
    for (struct er_task *next; list; list = next) {
        next = list->next;
        er_task_free(list);
    }
}

static int l_close(lua_State *L) {
    struct er_scope *scope = check_scope(L);
    if (!scope->open) {
        return 0;
    }
    scope->open = false;
    *(scope->prev ? &scope->prev->next : &scope->vm->scopes) = scope->next;
    if (scope->next) {
        scope->next->prev = scope->prev;
    }
    er_timer_stop(scope->vm->rt, &scope->deadline);
    cancel_scope(scope, ER_CANCELLED, "cancelled: the block that started this task has ended");
    if (scope->live == 0) {
        luaL_unref(L, LUA_REGISTRYINDEX, scope->self_ref);
        scope->self_ref = LUA_NOREF;
    }
    free_list(scope->failures);
    scope->failures = NULL;
    if (scope->winner) {
        er_task_free(scope->winner);
        scope->winner = NULL;
    }
    return 0;
}

// The first failure in front, the others that are not mere echoes of the cancel as its `causes`. [-0, +1, m]
static void push_failure(lua_State *L, struct er_scope *scope) {
    struct er_task *first = scope->failures;
    while (first->next) {
        first = first->next;
    }
    er_task_push_outcome(L, first);
    if (first == scope->failures || !lua_istable(L, -1)) {
        return;
    }
    lua_newtable(L);
    lua_Integer count = 0;
    for (struct er_task *task = first->prev; task; task = task->prev) {
        er_task_push_outcome(L, task);
        lua_rawseti(L, -2, ++count);
    }
    lua_setfield(L, -2, "causes");
}

static int unpack_outcome(lua_State *L, struct er_task *task) {
    er_task_push_outcome(L, task);
    lua_getfield(L, -1, "n");
    int count = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    luaL_checkstack(L, count, "too many results");
    int table = lua_gettop(L);
    for (int i = 1; i <= count; i++) {
        lua_rawgeti(L, table, i);
    }
    return count;
}

static int raise_from(lua_State *L) {
    l_close(L);
    return lua_error(L);
}

static int k_join(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    lua_settop(L, 1);
    struct er_scope *scope = check_scope(L);
    if (!scope->shielded) {
        er_task_check(L);
    }
    if (scope->expired) {
        er_push_error(L, &scope->reason);
        return raise_from(L);
    }
    if (scope->winner && !scope->winner->failed) {
        int count = unpack_outcome(L, scope->winner);
        l_close(L);
        return count;
    }
    if (scope->winner) {
        er_task_push_outcome(L, scope->winner);
        return raise_from(L);
    }
    if (scope->failures) {
        push_failure(L, scope);
        return raise_from(L);
    }
    l_close(L);
    return 0;
}

static void cancel_join(struct er_op *op) {
    struct er_scope *scope = (struct er_scope *)((char *)op - offsetof(struct er_scope, join));
    const struct er_error *reason = er_task_reason(op->task);
    cancel_scope(scope, reason->status, reason->message);
}

// scope:join(): waits until no child lives, also when the caller is cancelled (then the children are, too).
static int l_join(lua_State *L) {
    struct er_scope *scope = check_scope(L);
    luaL_argcheck(L, scope->open, 1, "the scope is closed");
    er_task_check_yieldable(L, "join");
    struct er_task *task = er_task_current(L);
    scope->owner = task;
    if (scope->live == 0) {
        return k_join(L, LUA_OK, 0);
    }
    if (task->cancelled && !scope->shielded) {
        const struct er_error *reason = er_task_reason(task);
        cancel_scope(scope, reason->status, reason->message);
        if (scope->live == 0) {
            return k_join(L, LUA_OK, 0);
        }
    }
    return er_op_wait_anyway(L, &scope->join, scope->shielded ? NULL : cancel_join, k_join, 0);
}

static int l_cancel(lua_State *L) {
    struct er_scope *scope = check_scope(L);
    cancel_scope(scope, ER_CANCELLED, luaL_optstring(L, 2, "cancelled"));
    return 0;
}

// scope:first(): the first child to finish, well or not, decides; the others are cancelled.
static int l_first(lua_State *L) {
    check_scope(L)->any = true;
    lua_settop(L, 1);
    return 1;
}

// scope:shield(): a cancel of who joins it does not reach the children; the deadline is the only bound.
static int l_shield(lua_State *L) {
    check_scope(L)->shielded = true;
    lua_settop(L, 1);
    return 1;
}

// scope:within(seconds): cancels the children then, and join raises a time-out.
static int l_within(lua_State *L) {
    struct er_scope *scope = check_scope(L);
    lua_Number seconds = luaL_checknumber(L, 2);
    luaL_argcheck(L, seconds >= 0 && seconds < 1e9, 2, "seconds, not negative");
    scope->seconds = seconds;
    struct er_runtime *rt = scope->vm->rt;
    if (er_timer_start(rt, &scope->deadline, er_now(rt) + (int64_t)(seconds * 1e9), on_deadline) != ER_OK) {
        return luaL_error(L, "not enough memory");
    }
    lua_settop(L, 1);
    return 1;
}

static int l_live(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)check_scope(L)->live);
    return 1;
}

void er_scope_register(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"spawn", l_spawn},   {"join", l_join},     {"cancel", l_cancel}, {"first", l_first},
        {"shield", l_shield}, {"within", l_within}, {"live", l_live},     {NULL, NULL},
    };
    er_handle_type(L, SCOPE, methods, l_close);
    lua_pushcfunction(L, l_scope);
    lua_setfield(L, -2, "scope");
}
