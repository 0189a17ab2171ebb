// SPDX-License-Identifier: Apache-2.0
// A Lua state on the runtime: the playbook's, the sandbox's. States share the loop and the clock, never a value.
#ifndef EIRUN_VM_H
#define EIRUN_VM_H

#include "runtime.h"

#include <lua.h>

struct er_task;

struct er_vm {
    struct er_runtime *rt;
    lua_State *L;
    struct er_task *root;
    size_t tasks;            // alive, the root among them
    struct er_scope *scopes; // open ones
    const char *lua_dir;     // not owned: main's argument
    struct er_vm *next;
    char *announcement; // what the state said of itself by eirun.core.vm.announce
    size_t announcement_length;
    struct er_vm_waiter *waiters; // tasks of other states in vm:ready() or vm:stop()
    struct er_error reason;       // why its root was cancelled
    bool young;                   // its collector waits until there is something to collect
};

struct er_vm *er_vm_of(lua_State *L);

// A state with the libraries that a playbook may use, loading modules from `lua_dir` (may be NULL) before the binary's
// own.
enum er_status er_vm_new(struct er_runtime *rt, const char *lua_dir, struct er_vm **vm);
// Its root task must have finished. Runs what finalisers the state still has.
void er_vm_free(struct er_vm *vm);

// Calls `require(module)(arguments...)` in a root task; the arguments are strings.
enum er_status er_vm_start(struct er_vm *vm, const char *module, int argc, const char *const *argv);
// Its root has ended and no task is left.
bool er_vm_finished(const struct er_vm *vm);
// After it finished: pushes what the root task returned or raised on vm->L; true when it returned. [-0, +1, m]
bool er_vm_result(struct er_vm *vm);
void er_vm_cancel(struct er_vm *vm, const char *why);
// Between resumes, and now and then in a long one: starts the collector once the state has grown.
void er_vm_grown(struct er_vm *vm);
// Wakes the tasks of other states that wait for its announcement or its end.
void er_vm_wake(struct er_vm *vm);
// The text of an embedded module, nil when there is none of that name. [-0, +1, m]
void er_vm_push_source(lua_State *L, const char *name);
// The names of all modules in the program, those of C first. [-0, +1, m]
void er_vm_push_modules(lua_State *L);
// Playbooks may require the files beside them, whose globals are the table on top; nil: the state's own. [-1, +0, m]
void er_vm_set_playbook_dir(lua_State *L, const char *dir);

#endif
