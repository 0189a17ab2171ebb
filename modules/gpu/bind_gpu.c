// SPDX-License-Identifier: Apache-2.0
// eirun.core.gpu: one look at the GPUs of this machine, as tables.
#include "bind.h"
#include "bind_events.h"
#include "job.h"
#include "task.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LOOK "eirun.gpu.look"

struct look {
    struct er_op op;
    struct er_gpu_job *job;
    int64_t timeout_ns;
    struct er_gpu_wish wish;
};

static int l_look_close(lua_State *L) {
    struct look *look = luaL_checkudata(L, 1, LOOK);
    struct er_gpu_job *job = look->job;
    look->job = NULL;
    if (job) {
        er_gpu_job_free(job);
    }
    return 0;
}

static void on_done(void *data) { er_op_done(&((struct look *)data)->op); }

static void cancel_look(struct er_op *op) {
    struct look *look = (struct look *)((char *)op - offsetof(struct look, op));
    er_gpu_job_cancel(look->job);
}

static void push_value(lua_State *L, const struct er_gpu_value *value) {
    if (value->kind == ER_GPU_TEXT) {
        lua_pushstring(L, value->text);
    } else {
        lua_pushinteger(L, value->number);
    }
}

// Sets the fields that are known. [-0, +0, m]
static void add_values(lua_State *L, const struct er_gpu_device *device) {
    for (int i = 0; i < ER_GPU_FIELD_COUNT; i++) {
        if (device->values[i].kind != ER_GPU_NA) {
            push_value(L, &device->values[i]);
            lua_setfield(L, -2, er_gpu_field_rows[i].name);
        }
    }
    lua_pushboolean(L, device->lost);
    lua_setfield(L, -2, "lost");
}

static void add_integer(lua_State *L, const char *name, bool known, int64_t number) {
    if (known) {
        lua_pushinteger(L, number);
        lua_setfield(L, -2, name);
    }
}

static void add_text(lua_State *L, const char *name, const char *text) {
    if (text[0]) {
        lua_pushstring(L, text);
        lua_setfield(L, -2, name);
    }
}

// [-0, +1, m]
static void push_process(lua_State *L, const struct er_gpu_process *process) {
    lua_createtable(L, 0, 8);
    add_integer(L, "pid", true, process->pid);
    add_integer(L, "memory", process->has_memory, (int64_t)process->memory);
    add_integer(L, "gpu_instance", process->gpu_instance != ER_GPU_NO_INSTANCE, process->gpu_instance);
    add_integer(L, "utilization_sm", process->has_rates, process->sm);
    add_integer(L, "utilization_memory", process->has_rates, process->memory_rate);
    lua_pushstring(L, process->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, process->cgroup);
    lua_setfield(L, -2, "cgroup");
    lua_pushstring(L, process->compute && process->graphics ? "C+G" : process->graphics ? "G" : "C");
    lua_setfield(L, -2, "type");
}

static void add_processes(lua_State *L, const struct er_gpu_device *device) {
    lua_createtable(L, (int)device->process_count, 0);
    for (size_t i = 0; i < device->process_count; i++) {
        push_process(L, &device->processes[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "processes");
}

// { { seconds since the epoch, value }, ... } [-0, +1, m]
static void push_series(lua_State *L, const struct er_gpu_series *series) {
    lua_createtable(L, (int)series->count, 0);
    for (size_t i = 0; i < series->count; i++) {
        lua_createtable(L, 2, 0);
        lua_pushnumber(L, (double)series->samples[i].at_us / 1e6);
        lua_rawseti(L, -2, 1);
        lua_pushinteger(L, series->samples[i].value);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static void add_samples(lua_State *L, const struct er_gpu_device *device) {
    lua_createtable(L, 0, ER_GPU_SERIES_COUNT);
    for (int i = 0; i < ER_GPU_SERIES_COUNT; i++) {
        if (device->series[i].count) {
            push_series(L, &device->series[i]);
            lua_setfield(L, -2, er_gpu_series_names[i]);
        }
    }
    lua_setfield(L, -2, "samples");
}

// [-0, +1, m]
static void push_nvlink(lua_State *L, const struct er_gpu_nvlink *link) {
    lua_createtable(L, 0, ER_GPU_NVLINK_FIELD_COUNT + 2);
    add_integer(L, "link", true, link->number);
    for (int i = 0; i < ER_GPU_NVLINK_FIELD_COUNT; i++) {
        add_integer(L, er_gpu_nvlink_names[i], link->values[i] != ER_GPU_UNKNOWN, link->values[i]);
    }
    add_text(L, "remote", link->remote);
}

static void add_nvlinks(lua_State *L, const struct er_gpu_device *device) {
    lua_createtable(L, (int)device->nvlink_count, 0);
    for (size_t i = 0; i < device->nvlink_count; i++) {
        push_nvlink(L, &device->nvlinks[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "nvlinks");
}

static void add_instances(lua_State *L, const struct er_gpu_device *device) {
    lua_createtable(L, (int)device->mig_count, 0);
    for (size_t i = 0; i < device->mig_count; i++) {
        lua_newtable(L);
        add_values(L, &device->mig[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "mig");
}

// [-0, +1, m]
static void push_device(lua_State *L, const struct er_gpu_device *device, size_t index) {
    lua_createtable(L, 0, 64);
    add_integer(L, "index", true, (int64_t)index);
    add_values(L, device);
    add_processes(L, device);
    add_instances(L, device);
    add_samples(L, device);
    add_nvlinks(L, device);
    if (device->code != NVML_OK) {
        lua_pushstring(L, nvml_code_text(device->code));
        lua_setfield(L, -2, "unreadable");
    }
}

static void push_link(lua_State *L, const struct er_gpu_link *link) {
    lua_createtable(L, 0, 2);
    add_integer(L, "ancestor", link->ancestor >= 0, link->ancestor);
    lua_pushboolean(L, link->nvlink);
    lua_setfield(L, -2, "nvlink");
}

static void add_links(lua_State *L, const struct er_gpu_snapshot *snapshot) {
    size_t count = snapshot->device_count;
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        lua_createtable(L, (int)count, 0);
        for (size_t j = 0; j < count; j++) {
            push_link(L, &snapshot->links[i * count + j]);
            lua_rawseti(L, -2, (lua_Integer)j + 1);
        }
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "links");
}

// [-0, +1, m]
static void push_snapshot(lua_State *L, const struct er_gpu_snapshot *snapshot) {
    lua_newtable(L);
    add_text(L, "missing", snapshot->missing);
    add_text(L, "driver", snapshot->driver);
    add_integer(L, "cuda", snapshot->cuda > 0, snapshot->cuda);
    lua_createtable(L, (int)snapshot->device_count, 0);
    for (size_t i = 0; i < snapshot->device_count; i++) {
        push_device(L, &snapshot->devices[i], i);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "devices");
    if (snapshot->links) {
        add_links(L, snapshot);
    }
}

static int k_snapshot(lua_State *L, int status, lua_KContext context) {
    struct look *look = (struct look *)context;
    (void)status;
    er_task_check(L);
    struct er_error err = {.status = ER_OK};
    const struct er_gpu_snapshot *snapshot = NULL;
    if (er_gpu_job_result(look->job, &snapshot, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    push_snapshot(L, snapshot);
    er_gpu_job_free(look->job); // not only when the collector comes to it
    look->job = NULL;
    return 1;
}

static enum er_gpu_field check_field(lua_State *L, const char *name) {
    for (int i = 0; i < ER_GPU_FIELD_COUNT; i++) {
        if (name && strcmp(er_gpu_field_rows[i].name, name) == 0) {
            return (enum er_gpu_field)i;
        }
    }
    return (enum er_gpu_field)luaL_error(L, "the driver has no field '%s'", name ? name : "?");
}

// The fields by name, or those of a usual look.
static void read_fields(lua_State *L, int options, struct er_gpu_wish *wish) {
    if (lua_getfield(L, options, "fields") == LUA_TNIL) {
        er_gpu_wish_usual(wish);
    } else {
        luaL_checktype(L, -1, LUA_TTABLE);
        for (lua_Integer i = 1; lua_rawgeti(L, -1, i) != LUA_TNIL; i++) {
            wish->fields[check_field(L, lua_tostring(L, -1))] = true;
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    wish->fields[ER_GPU_MIG_MODE] |= wish->instances;
}

// snapshot([options]) -> table | nil, err
static int l_snapshot(lua_State *L) {
    static const struct er_opt rows[] = {
        {.key = "timeout", .type = ER_OPT_SECONDS, .offset = offsetof(struct look, timeout_ns)},
        {.key = "processes", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct look, wish.processes)},
        {.key = "topology", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct look, wish.topology)},
        {.key = "instances", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct look, wish.instances)},
        {.key = "samples", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct look, wish.samples)},
        {.key = "nvlinks", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct look, wish.nvlinks)},
        {.key = "fields", .type = ER_OPT_ANY},
    };
    lua_settop(L, 1);
    struct look *look = er_handle_new(L, sizeof *look, LOOK);
    look->timeout_ns = (int64_t)5 * 1000000000;
    if (!lua_isnil(L, 1)) {
        luaL_checktype(L, 1, LUA_TTABLE);
        er_read_opts(L, 1, rows, sizeof rows / sizeof *rows, look);
        read_fields(L, 1, &look->wish);
    } else {
        er_gpu_wish_usual(&look->wish);
    }
    er_task_check_yieldable(L, "gpu.snapshot");
    er_task_check(L);
    struct er_error err = {.status = ER_OK};
    look->job = er_gpu_job_start(er_runtime_of(L), &look->wish, look->timeout_ns, on_done, look, &err);
    if (!look->job) {
        return er_push_fail(L, &err);
    }
    return er_op_wait(L, &look->op, cancel_look, k_snapshot, (lua_KContext)look);
}

// fields() -> every field's name, in order
static int l_fields(lua_State *L) {
    lua_createtable(L, ER_GPU_FIELD_COUNT, 0);
    for (int i = 0; i < ER_GPU_FIELD_COUNT; i++) {
        lua_pushstring(L, er_gpu_field_rows[i].name);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

// leave(code): ends the process at once. Tidying up takes a millisecond of the thirty that one look takes, and what was
// looked at needs none. A sanitizer's build tidies up, to see what is lost.
static int l_leave(lua_State *L) {
    int code = (int)luaL_checkinteger(L, 1);
#ifndef __SANITIZE_ADDRESS__
    fflush(NULL);
    _exit(code);
#endif
    lua_pushinteger(L, code);
    return 1;
}

int luaopen_eirun_core_gpu(lua_State *L);
int luaopen_eirun_core_gpu(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"snapshot", l_snapshot}, {"fields", l_fields}, {"watch", er_gpu_l_watch}, {"leave", l_leave}, {NULL, NULL}};
    er_handle_type(L, LOOK, NULL, l_look_close);
    er_gpu_events_open(L);
    luaL_newlib(L, functions);
    return 1;
}
