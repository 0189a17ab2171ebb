// SPDX-License-Identifier: Apache-2.0
// eirun.core.process: run{...} -> {code, signal, stdout, stderr} | nil, err; pid().
#include "bind.h"
#include "process.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUN "eirun.process.run"

struct run_box {
    struct er_process *process; // NULL: closed
};

static int l_close(lua_State *L) {
    struct run_box *box = luaL_checkudata(L, 1, RUN);
    struct er_process *process = box->process;
    box->process = NULL;
    er_process_free(process);
    return 0;
}

// ---- options

struct options {
    struct er_process_options to;
    int64_t max_output;
};

static const struct er_opt run_opts[] = {
    {.key = "stdin", .type = ER_OPT_ANY},
    {.key = "env", .type = ER_OPT_ANY},
    {.key = "clear_env", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct options, to.clear_env)},
    {.key = "cwd", .type = ER_OPT_STRING, .offset = offsetof(struct options, to.cwd)},
    {.key = "timeout", .type = ER_OPT_SECONDS, .offset = offsetof(struct options, to.timeout)},
    {.key = "max_output", .type = ER_OPT_INTEGER, .offset = offsetof(struct options, max_output)},
};

// The array part is argv, the rest are options: copied apart, so that unknown ones are found. [-0, +2, v]
static void split(lua_State *L, int index) {
    lua_createtable(L, (int)lua_rawlen(L, index), 0);
    int argv = lua_gettop(L);
    lua_newtable(L);
    int named = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, index);) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, lua_type(L, -2) == LUA_TNUMBER ? argv : named);
    }
}

static const char *check_word(lua_State *L, int index, const char *what) {
    size_t length = 0;
    if (lua_type(L, index) != LUA_TSTRING) {
        luaL_error(L, "%s must be a string, not %s", what, luaL_typename(L, index));
    }
    const char *word = lua_tolstring(L, index, &length);
    if (strlen(word) != length) {
        luaL_error(L, "%s contains a NUL byte", what);
    }
    return word;
}

// [-0, +1, v]
static void read_argv(lua_State *L, int table, struct er_process_options *to) {
    size_t count = lua_rawlen(L, table);
    if (!count) {
        luaL_error(L, "run needs the program's name and arguments: run{\"kubectl\", \"version\"}");
    }
    const char **argv = lua_newuserdatauv(L, (count + 1) * sizeof *argv, 0);
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, table, (lua_Integer)i + 1);
        argv[i] = check_word(L, -1, "an argument"); // lives as long as the table
        lua_pop(L, 1);
    }
    argv[count] = NULL;
    to->argv = argv;
}

static int compare_env(const void *a, const void *b) {
    const struct er_process_env *left = a, *right = b;
    return strcmp(left->name, right->name);
}

// [-0, +2, v]
static void read_env(lua_State *L, int named, struct er_process_options *to) {
    size_t count = 0;
    if (lua_getfield(L, named, "env") == LUA_TNIL) {
        return;
    }
    int table = lua_gettop(L);
    if (!lua_istable(L, table)) {
        luaL_error(L, "option 'env' must be a table, not %s", luaL_typename(L, table));
    }
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        count++;
    }
    struct er_process_env *env = lua_newuserdatauv(L, (count + 1) * sizeof *env, 0);
    to->env = env;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1), env++) {
        env->name = check_word(L, -2, "the name of a variable");
        env->name_length = strlen(env->name);
        env->value = er_to_bytes(L, -1, &env->value_length);
        if (!env->value || memchr(env->value, '\0', env->value_length)) {
            luaL_error(L, "variable '%s' must be a string or a secret without NUL bytes", env->name);
        }
    }
    to->env_count = count;
    qsort((void *)to->env, count, sizeof *env, compare_env);
}

// Leaves values on the stack that `to` points into. [-0, +n, v]
static void read_options(lua_State *L, struct er_process_options *to) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    luaL_checkstack(L, 20, NULL);
    struct options options = {.max_output = 64 << 20};
    split(L, 1);
    int argv = lua_gettop(L) - 1, named = lua_gettop(L);
    er_read_opts(L, named, run_opts, sizeof run_opts / sizeof *run_opts, &options);
    if (options.max_output < 0) {
        luaL_error(L, "option 'max_output' cannot be negative");
    }
    options.to.max_output = (size_t)options.max_output;
    *to = options.to;
    read_argv(L, argv, to);
    read_env(L, named, to);
    if (lua_getfield(L, named, "stdin") != LUA_TNIL) {
        to->input = er_to_bytes(L, -1, &to->input_length);
        if (!to->input) {
            luaL_error(L, "option 'stdin' must be a string or a secret, not %s", luaL_typename(L, -1));
        }
    }
}

// ---- run

static void set_output(lua_State *L, const struct er_buf *buf, const char *name) {
    lua_pushlstring(L, buf->length ? buf->data : "", buf->length);
    lua_setfield(L, -2, name);
}

static void set_outcome(lua_State *L, const struct er_process *process) {
    lua_pushinteger(L, process->code);
    lua_setfield(L, -2, "code");
    if (process->signal) {
        lua_pushinteger(L, process->signal);
        lua_setfield(L, -2, "signal");
    }
    set_output(L, &process->out, "stdout");
    set_output(L, &process->err, "stderr");
}

static void cancel_run(struct er_op *op) { er_process_cancel((struct er_process *)op); } // op is its first member

static int k_run(lua_State *L, int status, lua_KContext place) {
    (void)status;
    struct run_box *box = lua_touserdata(L, (int)place);
    er_task_check(L);
    if (box->process->error.status == ER_OK) {
        lua_createtable(L, 0, 4);
    } else {
        er_push_fail(L, &box->process->error);
    }
    set_outcome(L, box->process);
    int results = box->process->error.status == ER_OK ? 1 : 2;
    er_process_free(box->process);
    box->process = NULL;
    return results;
}

// run{argv..., stdin=, env=, clear_env=, cwd=, timeout=, max_output=} -> {code, signal, stdout, stderr} | nil, err
static int l_run(lua_State *L) {
    struct er_process_options options;
    read_options(L, &options);
    er_task_check_yieldable(L, "run");
    er_task_check(L);
    struct run_box *box = er_handle_new(L, sizeof *box, RUN);
    struct er_error err;
    if (er_process_start(er_runtime_of(L), &options, &box->process, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    return er_op_wait(L, &box->process->op, cancel_run, k_run, lua_gettop(L));
}

static int l_pid(lua_State *L) {
    lua_pushinteger(L, getpid());
    return 1;
}

int luaopen_eirun_core_process(lua_State *L);
int luaopen_eirun_core_process(lua_State *L) {
    static const luaL_Reg functions[] = {{"run", l_run}, {"pid", l_pid}, {NULL, NULL}};
    er_handle_type(L, RUN, NULL, l_close);
    luaL_newlib(L, functions);
    return 1;
}
