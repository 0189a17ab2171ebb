// SPDX-License-Identifier: Apache-2.0
// The driver's events as a handle: next() yields until there is one.
#include "bind_events.h"

#include "events.h"
#include "task.h"

#include <string.h>

#define WATCH "eirun.gpu.watch"

struct handle {
    struct er_op op;
    struct er_gpu_watch *watch;
};

static const struct {
    uint64_t bit;
    const char *name;
} kinds[] = {
#define EVENT_ROW(bit, name) {bit, name},
    ER_GPU_EVENTS(EVENT_ROW){ER_GPU_EVENT_LOST, "lost"},
#undef EVENT_ROW
};

static int l_close(lua_State *L) {
    struct handle *handle = luaL_checkudata(L, 1, WATCH);
    if (handle->watch) {
        er_gpu_watch_free(handle->watch);
        handle->watch = NULL;
        er_op_done(&handle->op);
    }
    return 0;
}

static void on_wake(void *data) { er_op_done(&((struct handle *)data)->op); }

static void cancel_next(struct er_op *op) { er_op_done(op); }

static uint64_t bit_of(lua_State *L, const char *name) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (name && strcmp(kinds[i].name, name) == 0) {
            return kinds[i].bit;
        }
    }
    return (uint64_t)luaL_error(L, "the driver has no event '%s'", name ? name : "?");
}

static uint64_t check_mask(lua_State *L, int list) {
    uint64_t mask = 0;
    luaL_checktype(L, list, LUA_TTABLE);
    for (lua_Integer i = 1; lua_rawgeti(L, list, i) != LUA_TNIL; i++) {
        mask |= bit_of(L, lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return mask & ~ER_GPU_EVENT_LOST;
}

static const char *kind_of(uint64_t bit) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].bit & bit) {
            return kinds[i].name;
        }
    }
    return "unknown";
}

static void set_integer(lua_State *L, const char *name, int64_t number) {
    lua_pushinteger(L, number);
    lua_setfield(L, -2, name);
}

// [-0, +1, m]
static void push_event(lua_State *L, const struct er_gpu_event *event) {
    lua_createtable(L, 0, 5);
    lua_pushstring(L, kind_of(event->type));
    lua_setfield(L, -2, "kind");
    set_integer(L, "data", (int64_t)event->data);
    lua_pushnumber(L, (double)event->at_ns / 1e9);
    lua_setfield(L, -2, "at");
    if (event->index >= 0) {
        set_integer(L, "index", event->index);
    }
    if (event->gpu_instance >= 0) {
        set_integer(L, "gpu_instance", event->gpu_instance);
    }
}

static int next(lua_State *L, struct handle *handle);

static int k_next(lua_State *L, int status, lua_KContext context) {
    (void)status;
    er_task_check(L);
    return next(L, (struct handle *)context);
}

static int next(lua_State *L, struct handle *handle) {
    struct er_gpu_event event;
    if (!handle->watch) {
        lua_pushnil(L);
        return 1;
    }
    if (er_gpu_watch_take(handle->watch, &event)) {
        push_event(L, &event);
        return 1;
    }
    unsigned devices = 0;
    struct er_error err = {.status = ER_OK};
    if (er_gpu_watch_state(handle->watch, &devices, &err) == ER_GPU_WATCH_ENDED) {
        return er_push_fail(L, &err);
    }
    return er_op_wait(L, &handle->op, cancel_next, k_next, (lua_KContext)handle);
}

// watch:next() -> event | nil (closed) | nil, err
static int l_next(lua_State *L) {
    struct handle *handle = luaL_checkudata(L, 1, WATCH);
    if (er_op_waiting(&handle->op)) {
        return luaL_error(L, "another task waits for this watch");
    }
    er_task_check_yieldable(L, "watch:next");
    er_task_check(L);
    return next(L, handle);
}

static int started(lua_State *L, struct handle *handle);

static int k_started(lua_State *L, int status, lua_KContext context) {
    (void)status;
    er_task_check(L);
    return started(L, (struct handle *)context);
}

static int started(lua_State *L, struct handle *handle) {
    unsigned devices = 0;
    struct er_error err = {.status = ER_OK};
    switch (handle->watch ? er_gpu_watch_state(handle->watch, &devices, &err) : ER_GPU_WATCH_LISTENING) {
    case ER_GPU_WATCH_OPENING:
        return er_op_wait(L, &handle->op, cancel_next, k_started, (lua_KContext)handle);
    case ER_GPU_WATCH_ENDED:
        if (devices == 0) {
            return er_push_fail(L, &err);
        } // else it did listen: what it heard is still to be taken, and next tells of the end
        // fall through
    default:
        lua_pushinteger(L, devices);
        return 1;
    }
}

// watch:started() -> how many GPUs tell events | nil, err. Waits until the driver was asked.
static int l_started(lua_State *L) {
    struct handle *handle = luaL_checkudata(L, 1, WATCH);
    er_task_check_yieldable(L, "watch:started");
    er_task_check(L);
    return started(L, handle);
}

static int l_dropped(lua_State *L) {
    struct handle *handle = luaL_checkudata(L, 1, WATCH);
    lua_pushinteger(L, handle->watch ? (lua_Integer)er_gpu_watch_dropped(handle->watch) : 0);
    return 1;
}

int er_gpu_l_watch(lua_State *L) {
    uint64_t mask = check_mask(L, 1);
    struct handle *handle = er_handle_new(L, sizeof *handle, WATCH);
    struct er_error err = {.status = ER_OK};
    handle->watch = er_gpu_watch_start(er_runtime_of(L), mask, on_wake, handle, &err);
    return handle->watch ? 1 : er_push_fail(L, &err);
}

void er_gpu_events_open(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"next", l_next}, {"started", l_started}, {"dropped", l_dropped}, {"close", l_close}, {NULL, NULL}};
    er_handle_type(L, WATCH, methods, l_close);
}
