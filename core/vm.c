// SPDX-License-Identifier: Apache-2.0
#include "vm.h"
#include "bind.h"
#include "embedded.h"
#include "modules.h"
#include "runtime_internal.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char lua_dir_key, playbook_dir_key, playbook_globals_key;

static const luaL_Reg c_modules[] = {
#define ER_MODULE(name, opener) {name, opener},
#include "modules.def"
#undef ER_MODULE
    {NULL, NULL},
};

struct er_vm *er_vm_of(lua_State *L) {
    return *(struct er_vm **)lua_getextraspace(L);
}

struct er_runtime *er_runtime_of(lua_State *L) {
    return er_vm_of(L)->rt;
}

// ---- where modules come from

static int searcher_c(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    for (const luaL_Reg *module = c_modules; module->name; module++) {
        if (strcmp(module->name, name) == 0) {
            lua_pushcfunction(L, module->func);
            lua_pushliteral(L, ":host:");
            return 2;
        }
    }
    return 0;
}

// Names that stay below a folder: words of letters, digits, _ and -, joined by dots.
static bool plain_name(const char *name) {
    for (const char *at = name; *at; at++) {
        bool word = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') || (*at >= '0' && *at <= '9') ||
                    *at == '_' || *at == '-';
        if (!word && !(*at == '.' && at > name && at[1] && at[1] != '.')) {
            return false;
        }
    }
    return *name != '\0';
}

// Pushes loader and file name when `dir`/name.lua or `dir`/name/init.lua can be read; raises on a syntax error. [-0,
// +(2|0), v]
static int load_from(lua_State *L, const char *dir, const char *name) {
    if (!dir || !plain_name(name)) {
        return 0;
    }
    const char *path = luaL_gsub(L, name, ".", "/");
    static const char *const shapes[] = {"%s/%s.lua", "%s/%s/init.lua"};
    for (size_t i = 0; i < 2; i++) {
        const char *file = lua_pushfstring(L, shapes[i], dir, path);
        FILE *probe = fopen(file, "r");
        if (!probe) {
            continue;
        }
        fclose(probe);
        if (luaL_loadfilex(L, file, "t") != LUA_OK) {
            return lua_error(L);
        }
        lua_pushstring(L, file);
        return 2;
    }
    return 0;
}

static int searcher_dir(lua_State *L, const void *key) {
    lua_rawgetp(L, LUA_REGISTRYINDEX, key);
    return load_from(L, lua_tostring(L, -1), luaL_checkstring(L, 1));
}

static int searcher_lua_dir(lua_State *L) { return searcher_dir(L, &lua_dir_key); }

// What lies beside a playbook sees the globals that the playbook sees.
static int searcher_playbook(lua_State *L) {
    int results = searcher_dir(L, &playbook_dir_key);
    if (results == 2) {
        lua_rawgetp(L, LUA_REGISTRYINDEX, &playbook_globals_key);
        if (lua_isnil(L, -1) || !lua_setupvalue(L, -3, 1)) {
            lua_pop(L, 1);
        }
    }
    return results;
}

static const struct er_embedded *find_embedded(const char *name) {
    for (const struct er_embedded *module = er_embedded; module->module; module++) {
        if (strcmp(module->module, name) == 0) {
            return module;
        }
    }
    return NULL;
}

// Compiled code is good for the very library that compiled it; beside another one the text is compiled here.
static int load_embedded(lua_State *L, const struct er_embedded *module) {
    extern const char lua_ident[];
    if (strcmp(lua_ident, er_embedded_lua) == 0) {
        return luaL_loadbufferx(L, module->compiled, module->compiled_length, module->chunk, "b");
    }
    return luaL_loadbufferx(L, module->source, module->length, module->chunk, "t");
}

static int searcher_embedded(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    const struct er_embedded *module = find_embedded(name);
    if (!module) {
        lua_pushfstring(L, "no module '%s' in the program", name);
        return 1;
    }
    if (load_embedded(L, module) != LUA_OK) {
        return lua_error(L);
    }
    lua_pushstring(L, module->chunk);
    return 2;
}

void er_vm_push_source(lua_State *L, const char *name) {
    const struct er_embedded *module = find_embedded(name);
    if (module) {
        lua_pushlstring(L, module->source, module->length);
    } else {
        lua_pushnil(L);
    }
}

void er_vm_push_modules(lua_State *L) {
    lua_Integer count = 0;
    lua_newtable(L);
    for (const luaL_Reg *module = c_modules; module->name; module++) {
        lua_pushstring(L, module->name);
        lua_rawseti(L, -2, ++count);
    }
    for (const struct er_embedded *module = er_embedded; module->module; module++) {
        lua_pushstring(L, module->module);
        lua_rawseti(L, -2, ++count);
    }
}

void er_vm_set_playbook_dir(lua_State *L, const char *dir) {
    lua_rawsetp(L, LUA_REGISTRYINDEX, &playbook_globals_key);
    lua_pushstring(L, dir);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &playbook_dir_key);
}

static void install_searchers(lua_State *L, const char *lua_dir) {
    lua_pushstring(L, lua_dir);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &lua_dir_key);
    lua_getglobal(L, "package");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, "");
    lua_setfield(L, -2, "cpath");
    lua_pushnil(L);
    lua_setfield(L, -2, "loadlib");
    lua_CFunction searchers[] = {searcher_c, searcher_lua_dir, searcher_embedded, searcher_playbook};
    lua_createtable(L, 5, 0);
    lua_getfield(L, -2, "searchers");
    lua_rawgeti(L, -1, 1); // package.preload stays first
    lua_rawseti(L, -3, 1);
    lua_pop(L, 1);
    for (int i = 0; i < 4; i++) {
        lua_pushcfunction(L, searchers[i]);
        lua_rawseti(L, -2, i + 2);
    }
    lua_setfield(L, -2, "searchers");
    lua_pop(L, 1);
}

// ---- the state

static void *allocate(void *context, void *block, size_t before, size_t after) {
    (void)context;
    (void)before;
    if (after == 0) {
        er_free(block);
        return NULL;
    }
    void *moved = er_realloc(block, after);
    return moved || after > before || !block ? moved : block; // Lua relies on shrinking never to fail
}

static void open_libraries(lua_State *L) {
    static const luaL_Reg libraries[] = {
        {LUA_GNAME, luaopen_base},       {LUA_LOADLIBNAME, luaopen_package}, {LUA_COLIBNAME, luaopen_coroutine},
        {LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},   {LUA_MATHLIBNAME, luaopen_math},
        {LUA_UTF8LIBNAME, luaopen_utf8}, {LUA_OSLIBNAME, luaopen_os},        {LUA_DBLIBNAME, luaopen_debug},
    };
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        luaL_requiref(L, libraries[i].name, libraries[i].func, 1);
        lua_pop(L, 1);
    }
    lua_register(L, "print", er_print);
}

static int set_up(lua_State *L) {
    const char *lua_dir = lua_touserdata(L, 1);
    open_libraries(L);
    install_searchers(L, lua_dir);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "eirun.prelude");
    lua_call(L, 1, 0);
    return 0;
}

static void warn(void *context, const char *message, int to_be_continued) {
    (void)context;
    fprintf(stderr, "%s%s", message, to_be_continued ? "" : "\n");
}

static int on_panic(lua_State *L) {
    fprintf(stderr, "eirun: bug: error outside any task: %s\n", luaL_tolstring(L, -1, NULL));
    return 0;
}

enum er_status er_vm_new(struct er_runtime *rt, const char *lua_dir, struct er_vm **out) {
    struct er_vm *vm = er_calloc(1, sizeof *vm);
    if (!vm || !(vm->L = lua_newstate(allocate, NULL))) {
        er_free(vm);
        return ER_NO_MEMORY;
    }
    vm->rt = rt;
    vm->lua_dir = lua_dir;
    *(struct er_vm **)lua_getextraspace(vm->L) = vm;
    vm->young = !rt->gc_stress && lua_gc(vm->L, LUA_GCSTOP) == 0;
    lua_atpanic(vm->L, on_panic);
    lua_setwarnf(vm->L, warn, NULL);
    lua_pushcfunction(vm->L, set_up);
    lua_pushlightuserdata(vm->L, (void *)(uintptr_t)lua_dir);
    if (lua_pcall(vm->L, 1, 0, 0) != LUA_OK) {
        fprintf(stderr, "eirun: %s\n", lua_tostring(vm->L, -1));
        lua_close(vm->L);
        er_free(vm);
        return ER_INTERNAL;
    }
    vm->next = rt->vms;
    rt->vms = vm;
    *out = vm;
    return ER_OK;
}

// A short run is over before it has any garbage worth looking for.
enum { YOUNG_KB = 4096 };

void er_vm_grown(struct er_vm *vm) {
    if (vm->young && lua_gc(vm->L, LUA_GCCOUNT) > YOUNG_KB) {
        vm->young = false;
        lua_gc(vm->L, LUA_GCRESTART);
    }
}

void er_vm_free(struct er_vm *vm) {
    struct er_vm **at = &vm->rt->vms;
    while (*at != vm) {
        at = &(*at)->next;
    }
    *at = vm->next;
    if (vm->root) {
        if (vm->rt->root == vm->root) {
            vm->rt->root = NULL;
        }
        er_task_free(vm->root);
    }
    lua_close(vm->L);
    er_free(vm->announcement);
    er_free(vm);
}

// ---- its root task

struct entry {
    const char *module;
    int argc;
    const char *const *argv;
    struct er_task *task;
};

static int k_entry(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    return lua_gettop(L);
}

// require(...) cannot yield, what it returned can: so the call of the entry function has a continuation.
static int entry_main(lua_State *L) {
    lua_getglobal(L, "require");
    lua_pushvalue(L, 1);
    lua_call(L, 1, 1);
    lua_replace(L, 1);
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, k_entry);
    return k_entry(L, LUA_OK, 0);
}

static int start_root(lua_State *L) {
    struct entry *entry = lua_touserdata(L, 1);
    luaL_checkstack(L, entry->argc + 4, "too many arguments");
    lua_pushcfunction(L, entry_main);
    lua_pushstring(L, entry->module);
    for (int i = 0; i < entry->argc; i++) {
        lua_pushstring(L, entry->argv[i]);
    }
    entry->task = er_task_start(L, NULL, entry->argc + 1);
    return 0;
}

enum er_status er_vm_start(struct er_vm *vm, const char *module, int argc, const char *const *argv) {
    struct entry entry = {.module = module, .argc = argc, .argv = argv};
    struct er_task *before = vm->rt->current;
    vm->rt->current = NULL; // the context of a task of another state is none of ours
    lua_pushcfunction(vm->L, start_root);
    lua_pushlightuserdata(vm->L, &entry);
    int status = lua_pcall(vm->L, 1, 0, 0);
    vm->rt->current = before;
    if (status != LUA_OK) {
        lua_pop(vm->L, 1);
        return ER_NO_MEMORY;
    }
    vm->root = entry.task;
    return ER_OK;
}

bool er_vm_finished(const struct er_vm *vm) { return vm->root && vm->root->state == ER_TASK_DEAD && vm->tasks == 0; }

bool er_vm_result(struct er_vm *vm) {
    er_task_push_outcome(vm->L, vm->root);
    return !vm->root->failed;
}

void er_vm_cancel(struct er_vm *vm, const char *why) {
    if (!vm->root->cancelled) {
        er_fail(&vm->reason, ER_CANCELLED, "%s", why);
        er_task_cancel(vm->root);
    }
}
