// SPDX-License-Identifier: Apache-2.0
#include "events.h"

#include "thread.h"

#include <pthread.h>
#include <time.h>

enum { MAX_DEVICES = 256, MAX_WAITING = 1024, WAIT_MS = 1000 };

// What loop and thread share; who lets go last frees it.
struct shared {
    pthread_mutex_t lock;
    uv_async_t *wake; // NULL: nobody listens any more
    bool left;        // one of the two let go
    uint64_t mask;
    enum er_gpu_watch_state state;
    unsigned devices;
    struct er_error err;
    struct er_gpu_event waiting[MAX_WAITING]; // a ring
    size_t first, count;
    uint64_t dropped;
};

struct er_gpu_watch {
    struct er_runtime *rt;
    struct shared *shared;
    uv_async_t wake;
    void (*woken)(void *data);
    void *data;
};

// Of the thread alone.
struct listener {
    struct nvml nvml;
    struct nvml_event_set *set;
    struct nvml_device *handles[MAX_DEVICES];
    bool lost[MAX_DEVICES];
    unsigned count;
};

static void let_go(struct shared *shared) {
    pthread_mutex_lock(&shared->lock);
    bool last = shared->left;
    shared->left = true;
    pthread_mutex_unlock(&shared->lock);
    if (last) {
        pthread_mutex_destroy(&shared->lock);
        er_free(shared);
    }
}

static bool has_listener(struct shared *shared) {
    pthread_mutex_lock(&shared->lock);
    bool listens = shared->wake != NULL;
    pthread_mutex_unlock(&shared->lock);
    return listens;
}

static void wake_locked(struct shared *shared) {
    if (shared->wake) {
        uv_async_send(shared->wake);
    }
}

static void put(struct shared *shared, const struct er_gpu_event *event) {
    pthread_mutex_lock(&shared->lock);
    if (shared->count < MAX_WAITING) {
        shared->waiting[(shared->first + shared->count++) % MAX_WAITING] = *event;
    } else {
        shared->dropped++;
    }
    wake_locked(shared);
    pthread_mutex_unlock(&shared->lock);
}

static void set_state(struct shared *shared, enum er_gpu_watch_state state, unsigned devices) {
    pthread_mutex_lock(&shared->lock);
    shared->state = state;
    shared->devices = devices;
    wake_locked(shared);
    pthread_mutex_unlock(&shared->lock);
}

static int64_t real_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int index_of(const struct listener *listener, const struct nvml_device *handle) {
    for (unsigned i = 0; i < listener->count; i++) {
        if (listener->handles[i] == handle) {
            return (int)i;
        }
    }
    return -1;
}

static void put_event(struct shared *shared, const struct listener *listener, const struct nvml_event *event) {
    put(shared, &(struct er_gpu_event){
                    .type = event->type,
                    .data = event->data,
                    .at_ns = real_now(),
                    .index = index_of(listener, event->device),
                    .gpu_instance = event->gpu_instance == UINT32_MAX ? -1 : (int64_t)event->gpu_instance,
                });
}

// The wait says that some GPU is lost, not which.
static void put_lost(struct shared *shared, struct listener *listener) {
    for (unsigned i = 0; i < listener->count; i++) {
        unsigned celsius = 0;
        struct nvml_device *handle = listener->handles[i];
        if (!listener->lost[i] && handle && listener->nvml.temperature &&
            listener->nvml.temperature(handle, 0, &celsius) == NVML_GPU_IS_LOST) {
            listener->lost[i] = true;
            put(shared, &(struct er_gpu_event){
                            .type = ER_GPU_EVENT_LOST, .at_ns = real_now(), .index = (int)i, .gpu_instance = -1});
        }
    }
}

// The devices that tell some event of the mask; a GPU that does not costs nobody the others.
static unsigned register_all(struct listener *listener, uint64_t mask) {
    unsigned count = 0, registered = 0;
    const struct nvml *nvml = &listener->nvml;
    if (nvml->count(&count) != NVML_OK) {
        return 0;
    }
    listener->count = count < MAX_DEVICES ? count : MAX_DEVICES;
    for (unsigned i = 0; i < listener->count; i++) {
        unsigned long long told = 0;
        struct nvml_device **handle = &listener->handles[i];
        if (nvml->by_index(i, handle) == NVML_OK && nvml->event_types(*handle, &told) == NVML_OK && (told & mask) &&
            nvml->event_register(*handle, told & mask, listener->set) == NVML_OK) {
            registered++;
        }
    }
    return registered;
}

static enum er_status open_set(struct listener *listener, uint64_t mask, unsigned *devices, struct er_error *err) {
    struct nvml *nvml = &listener->nvml;
    enum er_status status = er_gpu_open(nvml, err);
    if (status != ER_OK) {
        return status;
    }
    if (!nvml->event_set || !nvml->event_types || !nvml->event_register || !nvml->event_wait || !nvml->event_free) {
        return er_fail(err, ER_NOT_FOUND, "this GPU driver tells no events");
    }
    int code = nvml->event_set(&listener->set);
    if (code != NVML_OK) {
        listener->set = NULL;
        return er_fail(err, ER_INTERNAL, "cannot listen to the GPU driver: %s (code %d)", nvml_code_text(code), code);
    }
    *devices = register_all(listener, mask);
    return *devices ? ER_OK : er_fail(err, ER_NOT_FOUND, "no GPU here tells events");
}

static void hear(struct shared *shared, struct listener *listener, struct er_error *err) {
    while (has_listener(shared)) {
        struct nvml_event event = {.gpu_instance = UINT32_MAX, .compute_instance = UINT32_MAX};
        int code = listener->nvml.event_wait(listener->set, &event, WAIT_MS);
        if (code == NVML_OK) {
            put_event(shared, listener, &event);
        } else if (code == NVML_GPU_IS_LOST) {
            put_lost(shared, listener);
            nanosleep(&(struct timespec){.tv_sec = 1}, NULL); // the wait says so at once, again and again
        } else if (code != NVML_TIMEOUT) {
            er_fail(err, ER_INTERNAL, "the GPU driver ended its events: %s (code %d)", nvml_code_text(code), code);
            return;
        }
    }
}

static void *run_thread(void *data) {
    struct shared *shared = data;
    struct listener listener = {.count = 0};
    struct er_error err = {.status = ER_OK};
    unsigned devices = 0;
    if (open_set(&listener, shared->mask, &devices, &err) == ER_OK) {
        set_state(shared, ER_GPU_WATCH_LISTENING, devices);
        hear(shared, &listener, &err);
    }
    if (listener.set) {
        listener.nvml.event_free(listener.set);
    }
    pthread_mutex_lock(&shared->lock);
    shared->err = err;
    pthread_mutex_unlock(&shared->lock);
    set_state(shared, ER_GPU_WATCH_ENDED, devices);
    let_go(shared);
    return NULL;
}

static void on_wake(uv_async_t *wake) {
    struct er_gpu_watch *watch = wake->data;
    er_touch(watch->rt);
    watch->woken(watch->data);
}

static void on_closed(uv_handle_t *handle) { er_free(handle->data); }

static struct er_gpu_watch *new_watch(struct er_runtime *rt) {
    struct er_gpu_watch *watch = er_calloc(1, sizeof *watch);
    struct shared *shared = er_calloc(1, sizeof *shared);
    if (!watch || !shared || uv_async_init(er_loop(rt), &watch->wake, on_wake) != 0) {
        er_free(watch);
        er_free(shared);
        return NULL;
    }
    pthread_mutex_init(&shared->lock, NULL);
    watch->rt = rt;
    watch->shared = shared;
    watch->wake.data = watch;
    shared->wake = &watch->wake;
    return watch;
}

struct er_gpu_watch *er_gpu_watch_start(struct er_runtime *rt, uint64_t mask, void (*wake)(void *data), void *data,
                                        struct er_error *err) {
    struct er_gpu_watch *watch = new_watch(rt);
    if (!watch) {
        er_fail(err, ER_NO_MEMORY, "not enough memory");
        return NULL;
    }
    watch->woken = wake;
    watch->data = data;
    watch->shared->mask = mask;
    if (er_gpu_start_thread(run_thread, watch->shared)) {
        return watch;
    }
    watch->shared->left = true; // no thread will let go
    er_gpu_watch_free(watch);
    er_fail(err, ER_INTERNAL, "cannot start a thread for the GPU driver");
    return NULL;
}

enum er_gpu_watch_state er_gpu_watch_state(struct er_gpu_watch *watch, unsigned *devices, struct er_error *err) {
    pthread_mutex_lock(&watch->shared->lock);
    enum er_gpu_watch_state state = watch->shared->state;
    *devices = watch->shared->devices;
    *err = watch->shared->err;
    pthread_mutex_unlock(&watch->shared->lock);
    return state;
}

bool er_gpu_watch_take(struct er_gpu_watch *watch, struct er_gpu_event *event) {
    struct shared *shared = watch->shared;
    pthread_mutex_lock(&shared->lock);
    bool any = shared->count > 0;
    if (any) {
        *event = shared->waiting[shared->first];
        shared->first = (shared->first + 1) % MAX_WAITING;
        shared->count--;
    }
    pthread_mutex_unlock(&shared->lock);
    return any;
}

uint64_t er_gpu_watch_dropped(struct er_gpu_watch *watch) {
    pthread_mutex_lock(&watch->shared->lock);
    uint64_t dropped = watch->shared->dropped;
    pthread_mutex_unlock(&watch->shared->lock);
    return dropped;
}

void er_gpu_watch_free(struct er_gpu_watch *watch) {
    pthread_mutex_lock(&watch->shared->lock);
    watch->shared->wake = NULL;
    pthread_mutex_unlock(&watch->shared->lock);
    let_go(watch->shared);
    uv_close((uv_handle_t *)&watch->wake, on_closed);
}
