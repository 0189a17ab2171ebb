// SPDX-License-Identifier: Apache-2.0
// eirun.core.vm: other Lua states on the same loop and clock. Only strings pass between them.
#include "bind.h"
#include "modules.h"
#include "runtime_internal.h"
#include "vm.h"

#include <string.h>

#define VM "eirun.vm"

struct er_vm_waiter {
    struct er_op op;
    struct handle *handle;
    struct er_vm_waiter *next;
};

struct handle {
    struct er_vm *vm; // NULL: closed
    struct er_vm_waiter waiter;
    bool waiting;
};

static struct handle *check_handle(lua_State *L) {
    struct handle *handle = luaL_checkudata(L, 1, VM);
    luaL_argcheck(L, handle->vm, 1, "the state is closed");
    return handle;
}

void er_vm_wake(struct er_vm *vm) {
    while (vm->waiters) {
        struct er_vm_waiter *waiter = vm->waiters;
        vm->waiters = waiter->next;
        waiter->handle->waiting = false;
        er_op_done(&waiter->op);
    }
}

static void stop_waiting(struct er_op *op) {
    struct er_vm_waiter *waiter = (struct er_vm_waiter *)op;
    if (waiter->handle->waiting) {
        struct er_vm_waiter **at = &waiter->handle->vm->waiters;
        while (*at != waiter) {
            at = &(*at)->next;
        }
        *at = waiter->next;
        waiter->handle->waiting = false;
    }
    er_op_done(op);
}

static void wait_for(struct handle *handle) {
    handle->waiter.handle = handle;
    handle->waiter.next = handle->vm->waiters;
    handle->vm->waiters = &handle->waiter;
    handle->waiting = true;
}

static void free_vm(struct handle *handle) {
    struct er_vm *vm = handle->vm;
    handle->vm = NULL;
    if (vm && vm->root && !er_vm_finished(vm)) {
        return; // a state that still runs ends with the program (main.c)
    }
    if (vm) {
        er_vm_free(vm);
    }
}

static int l_handle_close(lua_State *L) {
    struct handle *handle = luaL_checkudata(L, 1, VM);
    if (!handle->waiting) {
        free_vm(handle);
    }
    return 0;
}

struct start_opts {
    const char *entry, *args;
    size_t args_length;
};

// start{entry="sandbox.main", args="..."} -> vm
static int l_start(lua_State *L) {
    static const struct er_opt opts[] = {
        {"entry", ER_OPT_STRING, offsetof(struct start_opts, entry), 0, true},
        {"args", ER_OPT_STRING, offsetof(struct start_opts, args), 0, false},
    };
    struct start_opts start = {.args = ""};
    er_read_opts(L, 1, opts, sizeof opts / sizeof *opts, &start);
    struct handle *handle = er_handle_new(L, sizeof *handle, VM);
    struct er_vm *self = er_vm_of(L);
    if (er_vm_new(self->rt, self->lua_dir, &handle->vm) != ER_OK ||
        er_vm_start(handle->vm, start.entry, 1, &start.args) != ER_OK) {
        return luaL_error(L, "cannot start a Lua state: not enough memory");
    }
    return 1;
}

// Pushes nil, err when the state's root has ended with an error. [-0, +(2|0), m]
static int push_end(lua_State *L, struct er_vm *vm) {
    struct er_error err;
    if (er_vm_result(vm)) {
        er_fail(&err, ER_INTERNAL, "the Lua state has ended");
    } else {
        luaL_tolstring(vm->L, -1, NULL);
        er_fail(&err, ER_INTERNAL, "%s", lua_tostring(vm->L, -1));
        lua_pop(vm->L, 1);
    }
    lua_pop(vm->L, 1);
    return er_push_fail(L, &err);
}

static int k_ready(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    er_task_check(L);
    struct er_vm *vm = check_handle(L)->vm;
    if (vm->announcement) {
        lua_pushlstring(L, vm->announcement, vm->announcement_length);
        return 1;
    }
    return push_end(L, vm);
}

// vm:ready() -> what it announced | nil, err when it ended before
static int l_ready(lua_State *L) {
    struct handle *handle = check_handle(L);
    er_task_check_yieldable(L, "vm:ready");
    er_task_check(L);
    if (handle->vm->announcement || er_vm_finished(handle->vm)) {
        return k_ready(L, LUA_OK, 0);
    }
    wait_for(handle);
    return er_op_wait(L, &handle->waiter.op, stop_waiting, k_ready, 0);
}

static int k_stop(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    struct handle *handle = check_handle(L);
    bool well = er_vm_result(handle->vm);
    struct er_error err = {.status = ER_OK};
    if (!well && !handle->vm->root->echo) {
        luaL_tolstring(handle->vm->L, -1, NULL);
        er_fail(&err, ER_INTERNAL, "%s", lua_tostring(handle->vm->L, -1));
        lua_pop(handle->vm->L, 1);
    }
    lua_pop(handle->vm->L, 1);
    free_vm(handle);
    if (err.status != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_pushboolean(L, 1);
    return 1;
}

// vm:stop() -> true | nil, err: cancels its root, waits for the end (its clean-up included) and closes the state
static int l_stop(lua_State *L) {
    struct handle *handle = luaL_checkudata(L, 1, VM);
    if (!handle->vm) {
        lua_pushboolean(L, 1);
        return 1;
    }
    er_task_check_yieldable(L, "vm:stop");
    er_vm_cancel(handle->vm, "the program is ending");
    if (er_vm_finished(handle->vm)) {
        return k_stop(L, LUA_OK, 0);
    }
    wait_for(handle);
    return er_op_wait_anyway(L, &handle->waiter.op, NULL, k_stop, 0);
}

static int l_announce(lua_State *L) {
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    struct er_vm *vm = er_vm_of(L);
    char *copy = er_strndup(text, length);
    if (!copy) {
        return luaL_error(L, "not enough memory");
    }
    er_free(vm->announcement);
    vm->announcement = copy;
    vm->announcement_length = length;
    er_vm_wake(vm);
    return 0;
}

static int l_playbook_dir(lua_State *L) {
    const char *dir = luaL_checkstring(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        luaL_checktype(L, 2, LUA_TTABLE);
    }
    lua_settop(L, 2);
    er_vm_set_playbook_dir(L, dir);
    return 0;
}

// source(name) -> text of an embedded Lua module | nil
static int l_source(lua_State *L) {
    er_vm_push_source(L, luaL_checkstring(L, 1));
    return 1;
}

// modules() -> names of all modules in the program: those of C, then the embedded ones
static int l_modules(lua_State *L) {
    er_vm_push_modules(L);
    return 1;
}

int luaopen_eirun_core_vm(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"start", l_start},   {"announce", l_announce}, {"set_playbook_dir", l_playbook_dir},
        {"source", l_source}, {"modules", l_modules},   {NULL, NULL},
    };
    static const luaL_Reg methods[] = {{"ready", l_ready}, {"stop", l_stop}, {NULL, NULL}};
    er_handle_type(L, VM, methods, l_handle_close);
    luaL_newlib(L, functions);
    return 1;
}
