// SPDX-License-Identifier: Apache-2.0
// Tasks: start, resume, cancel, finish. The program's only lua_resume is here.
#include "bind.h"
#include "runtime_internal.h"
#include "vm.h"

#include <stdio.h>
#include <string.h>

// What a system yield hands upward, so that a user's coroutine.yield is never mistaken for one.
static const char system_yield;

static void queue(struct er_task *task) {
    struct er_runtime *rt = task->vm->rt;
    task->state = ER_TASK_READY;
    task->next_ready = NULL;
    if (rt->ready_tail) {
        rt->ready_tail->next_ready = task;
    } else {
        rt->ready_head = task;
    }
    rt->ready_tail = task;
}

struct er_task *er_task_current(lua_State *L) {
    struct er_task *task = er_runtime_of(L)->current;
    if (!task) {
        luaL_error(L, "this needs a task: it cannot be called while a module is loaded");
    }
    return task;
}

// ---- finishing

static void drop_refs(lua_State *L, struct er_task *task) {
    luaL_unref(L, LUA_REGISTRYINDEX, task->context_ref);
    luaL_unref(L, LUA_REGISTRYINDEX, task->thread_ref);
    task->context_ref = task->thread_ref = LUA_NOREF;
}

// Allocates nothing: it runs outside any protected call. The outcome is in result_ref already.
static void finish(struct er_task *task) {
    task->state = ER_TASK_DEAD;
    struct er_vm *vm = task->vm;
    drop_refs(vm->L, task);
    task->co = NULL;
    if (task->scope) {
        er_scope_child_finished(task->scope, task); // frees it
    } else {
        er_scopes_cancel(vm);
    }
    vm->tasks--;
    if (er_vm_finished(vm)) {
        er_vm_wake(vm);
    }
}

void er_task_free(struct er_task *task) {
    er_timer_stop(task->vm->rt, &task->sleep_timer);
    luaL_unref(task->vm->L, LUA_REGISTRYINDEX, task->result_ref);
    er_free(task);
}

void er_task_push_outcome(lua_State *L, const struct er_task *task) {
    if (task->result_ref != LUA_NOREF) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, task->result_ref);
        return;
    }
    struct er_error err;
    er_fail(&err, ER_INTERNAL, "%s", task->broken);
    er_push_error(L, task->echo ? er_task_reason(task) : &err);
}

// Strings become error tables on their way out of a task, so that whoever joins it sees one shape and the place.
static int on_error(lua_State *L) {
    if (lua_type(L, 1) == LUA_TSTRING) {
        struct er_error err;
        er_fail(&err, ER_INTERNAL, "%s", "");
        er_push_error(L, &err);
        lua_pushvalue(L, 1);
        lua_setfield(L, -2, "message");
        lua_replace(L, 1);
    }
    if (lua_istable(L, 1) && lua_getfield(L, 1, "traceback") == LUA_TNIL) {
        luaL_traceback(L, L, NULL, 1);
        lua_setfield(L, 1, "traceback");
    }
    lua_settop(L, 1);
    return 1;
}

static bool is_echo(lua_State *L, const struct er_error *reason) {
    if (!lua_istable(L, -1)) {
        return false;
    }
    lua_getfield(L, -1, "kind");
    const char *kind = lua_tostring(L, -1);
    bool echo = kind && strcmp(kind, er_status_kind(reason->status)) == 0;
    lua_pop(L, 1);
    return echo;
}

// Runs inside the coroutine after the body, where a raise is caught: keeps what it returned, packed, or its error.
static int k_body(lua_State *L, int status, lua_KContext context) {
    (void)context;
    struct er_task *task = er_runtime_of(L)->current;
    task->failed = status != LUA_OK && status != LUA_YIELD;
    if (!task->failed) {
        int count = lua_gettop(L) - 1; // the error handler lies below them
        lua_createtable(L, count, 1);
        lua_insert(L, 2);
        for (int i = count; i > 0; i--) {
            lua_rawseti(L, 2, i);
        }
        lua_pushinteger(L, count);
        lua_setfield(L, 2, "n");
    }
    task->echo = task->failed && task->cancelled && is_echo(L, er_task_reason(task));
    task->result_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int body(lua_State *L) {
    lua_pushcfunction(L, on_error);
    lua_insert(L, 1);
    int status = lua_pcallk(L, lua_gettop(L) - 2, LUA_MULTRET, 1, 0, k_body);
    return k_body(L, status, 0);
}

// ---- starting and resuming

struct er_task *er_task_start(lua_State *L, struct er_scope *scope, int arguments) {
    struct er_vm *vm = er_vm_of(L);
    // A raise on the way would leak the task, so a box owns it until it is queued.
    struct er_task **box = lua_newuserdatauv(L, sizeof *box, 0);
    *box = NULL;
    luaL_setmetatable(L, "eirun.task.box");
    struct er_task *task = er_calloc(1, sizeof *task);
    if (!task) {
        luaL_error(L, "not enough memory");
        return NULL;
    }
    *task = (struct er_task){.vm = vm,
                             .scope = scope,
                             .arguments = arguments,
                             .thread_ref = LUA_NOREF,
                             .context_ref = LUA_NOREF,
                             .result_ref = LUA_NOREF};
    *box = task;
    task->co = lua_newthread(L);
    task->thread_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    struct er_task *parent = vm->rt->current;
    if (parent && parent->vm == vm && parent->context_ref != LUA_NOREF) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, parent->context_ref);
        task->context_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    if (!lua_checkstack(task->co,
                        arguments + 2)) { // not luaL_checkstack: that would raise in a coroutine nobody resumed
        luaL_error(L, "too many arguments");
    }
    *box = NULL;
    lua_pop(L, 1);
    lua_pushcfunction(task->co, body);
    lua_xmove(L, task->co, arguments + 1);
    vm->tasks++;
    queue(task);
    return task;
}

static int l_box_close(lua_State *L) {
    struct er_task **box = luaL_checkudata(L, 1, "eirun.task.box");
    if (*box) {
        drop_refs(L, *box);
        er_task_free(*box);
        *box = NULL;
    }
    return 0;
}

static void take_hook(struct er_task *task) {
    if (lua_gethook(task->co)) {
        lua_sethook(task->co, NULL, 0, 0);
    }
    task->vm->rt->resumed_at = 0;
}

// An error that got past the body: memory, or an error in error handling.
static void finish_broken(struct er_task *task) {
    const char *message = lua_type(task->co, -1) == LUA_TSTRING ? lua_tostring(task->co, -1) : "the task died";
    snprintf(task->broken, sizeof task->broken, "%s", message);
    lua_resetthread(task->co);
    task->failed = true;
    finish(task);
}

static void resume(struct er_task *task) {
    struct er_runtime *rt = task->vm->rt;
    int arguments = task->started ? 0 : task->arguments + 1;
    if (!task->started && task->cancelled) {
        task->failed = task->echo = true;
        finish(task);
        return;
    }
    if (rt->gc_stress) {
        lua_gc(task->co, LUA_GCCOLLECT);
    }
    er_vm_grown(task->vm);
    task->started = true;
    task->state = ER_TASK_RUNNING;
    rt->current = task;
    er_set_running(rt, task->co);
    er_count_resume(rt);
    int results = 0;
    int status = lua_resume(task->co, task->vm->L, arguments, &results);
    er_set_running(rt, NULL);
    rt->current = NULL;
    if (rt->resumed_at || lua_gethook(task->co)) {
        take_hook(task);
    }
    if (status == LUA_OK) {
        finish(task);
    } else if (status != LUA_YIELD) {
        finish_broken(task);
    } else {
        lua_pop(task->co, results);
        if (task->state == ER_TASK_RUNNING) {
            task->state = ER_TASK_WAITING;
        }
    }
}

void er_tasks_run_ready(struct er_runtime *rt, unsigned most) {
    while (rt->ready_head && most-- > 0) {
        struct er_task *task = rt->ready_head;
        rt->ready_head = task->next_ready;
        if (!rt->ready_head) {
            rt->ready_tail = NULL;
        }
        resume(task);
    }
}

// ---- waiting and waking

// The library name of the function on top of the stack ("table.sort"), or NULL. [-1, +1, m]
static const char *library_name(lua_State *L) {
    int function = lua_gettop(L);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushnil(L);
    while (lua_next(L, -2)) {
        if (lua_type(L, -2) == LUA_TSTRING && lua_istable(L, -1)) {
            lua_pushnil(L);
            while (lua_next(L, -2)) {
                if (lua_rawequal(L, -1, function) && lua_type(L, -2) == LUA_TSTRING) {
                    return lua_pushfstring(L, "%s.%s", lua_tostring(L, -4), lua_tostring(L, -2));
                }
                lua_pop(L, 1);
            }
        }
        lua_pop(L, 1);
    }
    return NULL;
}

// Names the innermost C function between the caller and the task: "sleep cannot wait here: table.sort does not ...".
static void raise_unyieldable(lua_State *L, const char *what) {
    lua_Debug ar;
    const char *culprit = NULL;
    for (int level = 1; lua_getstack(L, level, &ar) && !culprit; level++) {
        lua_getinfo(L, "Snf", &ar);
        const char *name = strcmp(ar.what, "C") == 0 ? library_name(L) : NULL;
        culprit = name ? name : strcmp(ar.what, "C") == 0 ? ar.name : NULL;
    }
    luaL_where(L, 1);
    lua_pushfstring(L, "%s cannot wait here: %s does not let a task wait inside it", what,
                    culprit ? culprit : "the code that loads a module");
    lua_concat(L, 2);
    lua_error(L);
}

void er_task_check_yieldable(lua_State *L, const char *what) {
    if (!lua_isyieldable(L) || !er_runtime_of(L)->current) {
        raise_unyieldable(L, what);
    }
}

const struct er_error *er_task_reason(const struct er_task *task) {
    return task->scope ? er_scope_reason(task->scope) : &task->vm->reason;
}

void er_task_check(lua_State *L) {
    struct er_task *task = er_runtime_of(L)->current;
    if (task && task->cancelled) {
        er_push_error(L, er_task_reason(task));
        lua_error(L);
    }
}

int er_op_wait_anyway(lua_State *L, struct er_op *op, void (*cancel)(struct er_op *), lua_KFunction k, lua_KContext c) {
    er_task_check_yieldable(L, "this call");
    struct er_task *task = er_runtime_of(L)->current;
    op->task = task;
    op->cancel = cancel;
    task->op = op;
    lua_pushlightuserdata(L, (void *)&system_yield);
    return lua_yieldk(L, 1, c, k);
}

int er_op_wait(lua_State *L, struct er_op *op, void (*cancel)(struct er_op *op), lua_KFunction k,
               lua_KContext context) {
    er_task_check(L);
    return er_op_wait_anyway(L, op, cancel, k, context);
}

void er_op_done(struct er_op *op) {
    struct er_task *task = op->task;
    if (!task) {
        return;
    }
    op->task = NULL;
    task->op = NULL;
    if (task->state != ER_TASK_RUNNING) {
        queue(task);
        return;
    }
    task->state = ER_TASK_READY; // done between the wait and the yield: resume() must not lose it
    queue(task);
}

void er_task_cancel(struct er_task *task) {
    if (task->cancelled || task->state == ER_TASK_DEAD) {
        return;
    }
    task->cancelled = true;
    if (task->op && task->op->cancel) {
        task->op->cancel(task->op);
    }
}

// ---- eirun.core.task: sleep and what the coroutine library's replacements need

static void on_sleep(struct er_timer *timer) {
    struct er_task *task = (struct er_task *)((char *)timer - offsetof(struct er_task, sleep_timer));
    er_op_done(&task->sleep_op);
}

static void cancel_sleep(struct er_op *op) {
    struct er_task *task = (struct er_task *)((char *)op - offsetof(struct er_task, sleep_op));
    er_timer_stop(task->vm->rt, &task->sleep_timer);
    er_op_done(op);
}

static int k_sleep(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    er_task_check(L);
    return 0;
}

int er_task_sleep_until(lua_State *L, int64_t at) {
    er_task_check_yieldable(L, "sleep");
    er_task_check(L);
    struct er_task *task = er_task_current(L);
    if (er_timer_start(task->vm->rt, &task->sleep_timer, at, on_sleep) != ER_OK) {
        return luaL_error(L, "not enough memory");
    }
    return er_op_wait(L, &task->sleep_op, cancel_sleep, k_sleep, 0);
}

static int l_yield(lua_State *L) {
    er_task_check_yieldable(L, "yield");
    er_task_check(L);
    struct er_task *task = er_task_current(L);
    task->state = ER_TASK_READY;
    queue(task);
    lua_pushlightuserdata(L, (void *)&system_yield);
    return lua_yieldk(L, 1, 0, k_sleep);
}

// The innermost coroutine that runs, so that the overrun hook finds it. [-1, +0, -]
static int l_running(lua_State *L) {
    er_set_running(er_runtime_of(L), lua_isthread(L, 1) ? lua_tothread(L, 1) : L);
    return 0;
}

static int l_context(lua_State *L) {
    struct er_task *task = er_task_current(L);
    if (lua_gettop(L) > 0) {
        luaL_checktype(L, 1, LUA_TTABLE);
        luaL_unref(L, LUA_REGISTRYINDEX, task->context_ref);
        lua_settop(L, 1);
        task->context_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    } else if (task->context_ref == LUA_NOREF) {
        lua_newtable(L);
        task->context_ref = luaL_ref(L, LUA_REGISTRYINDEX);
    }
    lua_rawgeti(L, LUA_REGISTRYINDEX, task->context_ref);
    return 1;
}

static int l_in_task(lua_State *L) {
    lua_pushboolean(L, er_runtime_of(L)->current != NULL);
    return 1;
}

static int l_task_thread(lua_State *L) {
    lua_rawgeti(L, LUA_REGISTRYINDEX, er_task_current(L)->thread_ref);
    return 1;
}

// The overrun hook raises at each instruction until the cancelled code has given up. Here it has: who called may clear
// up, and gets the hook again when that takes long, too.
static int k_settle(lua_State *L, int status, lua_KContext context) {
    (void)context;
    lua_sethook(L, NULL, 0, 0);
    if (status == LUA_OK || status == LUA_YIELD) {
        return lua_gettop(L) - 2;
    }
    lua_pushboolean(L, 0);
    lua_pushvalue(L, -2);
    return 2;
}

// settle(fn, handler, ...) is xpcall for the code that runs a user's: see k_settle.
static int l_settle(lua_State *L) {
    luaL_checktype(L, 2, LUA_TFUNCTION);
    int arguments = lua_gettop(L) - 2;
    lua_pushboolean(L, 1);
    lua_pushvalue(L, 1);
    lua_rotate(L, 3, 2);
    return k_settle(L, lua_pcallk(L, arguments, LUA_MULTRET, 2, 2, k_settle), 0);
}

// Raises what settle caught. A task that had to be interrupted goes on being so: a pcall around the step must not start
// anew.
static int l_give_up(lua_State *L) {
    struct er_runtime *rt = er_runtime_of(L);
    lua_settop(L, 1);
    if (rt->current && rt->current->cancelled && rt->resumed_at) {
        lua_sethook(L, er_hook_overrun, LUA_MASKCOUNT, 1);
    }
    return lua_error(L);
}

void er_task_register(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"yield", l_yield},        {"set_running", l_running}, {"context", l_context}, {"in_task", l_in_task},
        {"thread", l_task_thread}, {"settle", l_settle},       {"give_up", l_give_up}, {NULL, NULL},
    };
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, (void *)&system_yield);
    lua_setfield(L, -2, "SYSTEM_YIELD");
    er_push_error_metatable(L); // eirun.errors gives it the text for people
    lua_setfield(L, -2, "ERROR");
    er_handle_type(L, "eirun.task.box", NULL, l_box_close);
}
