// SPDX-License-Identifier: Apache-2.0
// eirun: makes the runtime and one Lua state, and hands the arguments to lua/eirun/main.lua.
#include "runtime_internal.h"
#include "vm.h"

#include <lauxlib.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { EXIT_BUG = 70 };

void er_gpu_open_early(void); // modules/gpu

// Opening a GPU driver takes longer than starting this program does: for `eirun gpu` it begins at once.
static void begin_early(int argc, char **argv) {
    bool local = argc < 3 || strcmp(argv[2], "cluster") != 0;
    if (argc > 1 && strcmp(argv[1], "gpu") == 0 && local) {
        er_gpu_open_early();
    }
}

static bool finished(void *context) { return er_vm_finished(context); }

// --lua-dir DIR in front of everything else, or EIRUN_LUA_DIR: library files that win over the embedded ones.
static const char *take_lua_dir(int *argc, char ***argv) {
    if (*argc > 2 && strcmp((*argv)[1], "--lua-dir") == 0) {
        const char *dir = (*argv)[2];
        *argc -= 2;
        *argv += 2;
        return dir;
    }
    return getenv("EIRUN_LUA_DIR");
}

// States that others started and did not stop: they get their clean-up, too.
static void end_others(struct er_runtime *rt, struct er_vm *main_vm) {
    for (struct er_vm *vm = rt->vms, *next; vm; vm = next) {
        next = vm->next;
        if (vm != main_vm) {
            er_vm_cancel(vm, "the program is ending");
            er_runtime_run(rt, finished, vm);
        }
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ER_ENDS_QUICKLY
#endif

#ifdef ER_ENDS_QUICKLY
static void *keep_memory(void *context, void *block, size_t before, size_t after) {
    (void)context;
    (void)before;
    return after ? er_realloc(block, after) : NULL;
}
#endif

// Every handle closes, and every secret is wiped; the memory itself is given back by the end of the process.
static void free_vms(struct er_runtime *rt, struct er_vm *main_vm) {
#ifdef ER_ENDS_QUICKLY
    for (struct er_vm *vm = rt->vms; vm; vm = vm->next) {
        lua_setallocf(vm->L, keep_memory, NULL);
    }
#endif
    er_vm_free(main_vm); // its handles close first, so they cannot meet a freed state
    while (rt->vms) {
        er_vm_free(rt->vms);
    }
}

static int exit_code(struct er_vm *vm) {
    if (er_vm_result(vm)) {
        lua_rawgeti(vm->L, -1, 1);
        int code = lua_isinteger(vm->L, -1) ? (int)lua_tointeger(vm->L, -1) : 0;
        lua_pop(vm->L, 2);
        return code;
    }
    fprintf(stderr, "eirun: %s\n", luaL_tolstring(vm->L, -1, NULL));
    if (lua_istable(vm->L, -2) && lua_getfield(vm->L, -2, "traceback") == LUA_TSTRING) {
        fprintf(stderr, "%s\n", lua_tostring(vm->L, -1));
    }
    lua_settop(vm->L, 0);
    return EXIT_BUG;
}

static int run(struct er_runtime *rt, struct er_vm *vm, int argc, char **argv) {
    if (er_vm_start(vm, "eirun.main", argc - 1, (const char *const *)argv + 1) != ER_OK) {
        fprintf(stderr, "eirun: not enough memory\n");
        return EXIT_BUG;
    }
    rt->root = vm->root;
    if (!er_runtime_run(rt, finished, vm)) {
        fprintf(stderr, "eirun: bug: every task waits and nothing can wake one\n");
        er_vm_cancel(vm, "deadlock");
        er_runtime_run(rt, finished, vm);
    }
    int code = er_vm_finished(vm) ? exit_code(vm) : EXIT_BUG;
    end_others(rt, vm);
    return rt->interrupts ? 130 : code;
}

// The exit handlers of the libraries only give memory back; a sanitizer's build runs them, to see what is lost.
static int leave(int code) {
#ifdef ER_ENDS_QUICKLY
    fflush(NULL);
    _exit(code);
#endif
    return code;
}

#ifdef ER_ENDS_QUICKLY
// A short run takes its whole heap in one huge page: three hundred faults of small ones are a twentieth of its time.
// The heap begins just below that page, since a page that was touched cannot become part of a huge one.
static void make_heap_huge(void) {
    enum { SMALL = 4096, HUGE_PAGE = 2 << 20, USUAL_PAD = 128 << 10 };
    uintptr_t end = (uintptr_t)sbrk(0);
    uintptr_t page = (end + SMALL + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (sbrk((intptr_t)(page - SMALL - end)) == (void *)-1) {
        return;
    }
    mallopt(M_TOP_PAD, HUGE_PAGE);
    mallopt(M_TRIM_THRESHOLD, 4 * HUGE_PAGE); // or the rest of the page would go back at the first free
    mallopt(M_MMAP_THRESHOLD, HUGE_PAGE / 2); // as malloc itself would raise it, which it does no more once told
    void *volatile first = malloc(1);
    madvise((void *)page, HUGE_PAGE, MADV_HUGEPAGE); // where there are none, all is as usual
    mallopt(M_TOP_PAD, USUAL_PAD);
    free(first);
}
#endif

int main(int argc, char **argv) {
#ifdef ER_ENDS_QUICKLY
    make_heap_huge();
#endif
    const char *lua_dir = take_lua_dir(&argc, &argv);
    struct er_runtime *rt;
    struct er_vm *vm;
    begin_early(argc, argv);
    if (er_runtime_new(&rt) != ER_OK) {
        fprintf(stderr, "eirun: cannot start: not enough memory or threads\n");
        return EXIT_BUG;
    }
    if (er_vm_new(rt, lua_dir, &vm) != ER_OK) {
        er_runtime_free(rt);
        return EXIT_BUG;
    }
    int code = run(rt, vm, argc, argv);
    free_vms(rt, vm);
    er_runtime_free(rt);
    return leave(code);
}
