// SPDX-License-Identifier: Apache-2.0
#include "job.h"

#include "deadline.h"
#include "thread.h"

#include <pthread.h>
#include <stdatomic.h>

enum { MAX_HANGING = 4 };
static atomic_int hanging; // threads that were given up and are still inside the driver

// What loop and thread share; who lets go last frees it.
struct shared {
    pthread_mutex_t lock;
    uv_async_t *wake; // NULL: the loop has given up
    bool finished;
    bool left; // one of the two let go
    struct er_gpu_wish wish;
    struct er_gpu_snapshot snapshot;
    enum er_status status;
    struct er_error err;
};

struct er_gpu_job {
    struct er_runtime *rt;
    struct shared *shared;
    uv_async_t wake;
    struct er_deadline deadline;
    int64_t timeout_ns;
    void (*done)(void *data);
    void *data;
    bool settled, closed, orphan;
    enum er_status given_up; // ER_TIMEOUT, ER_CANCELLED, or ER_OK: the thread's own
};

static void free_shared(struct shared *shared) {
    er_gpu_release(&shared->snapshot);
    pthread_mutex_destroy(&shared->lock);
    er_free(shared);
}

static void let_go(struct shared *shared) {
    pthread_mutex_lock(&shared->lock);
    bool last = shared->left;
    shared->left = true;
    pthread_mutex_unlock(&shared->lock);
    if (last) {
        free_shared(shared);
    }
}

static void *run_thread(void *data) {
    struct shared *shared = data;
    shared->status = er_gpu_look(&shared->wish, &shared->snapshot, &shared->err);
    pthread_mutex_lock(&shared->lock);
    shared->finished = true;
    if (shared->wake) {
        uv_async_send(shared->wake);
    } else {
        atomic_fetch_sub(&hanging, 1);
    }
    pthread_mutex_unlock(&shared->lock);
    let_go(shared);
    return NULL;
}

static void free_job(struct er_gpu_job *job) {
    let_go(job->shared);
    er_free(job);
}

static void on_closed(uv_handle_t *handle) {
    struct er_gpu_job *job = handle->data;
    job->closed = true;
    if (job->orphan) {
        free_job(job);
    }
}

// The thread may be about to send: from here on it finds nobody to wake.
static void stop_listening(struct er_gpu_job *job) {
    pthread_mutex_lock(&job->shared->lock);
    job->shared->wake = NULL;
    if (!job->shared->finished) {
        atomic_fetch_add(&hanging, 1);
    }
    pthread_mutex_unlock(&job->shared->lock);
}

static void settle(struct er_gpu_job *job, enum er_status given_up) {
    if (job->settled) {
        return;
    }
    job->settled = true;
    job->given_up = given_up;
    stop_listening(job);
    er_deadline_stop(&job->deadline);
    er_unhold(job->rt);
    uv_close((uv_handle_t *)&job->wake, on_closed);
    if (!job->orphan) {
        job->done(job->data);
    }
}

static void on_wake(uv_async_t *wake) {
    struct er_gpu_job *job = wake->data;
    er_touch(job->rt);
    settle(job, ER_OK);
}

static void on_deadline(struct er_deadline *deadline) {
    struct er_gpu_job *job = (struct er_gpu_job *)((char *)deadline - offsetof(struct er_gpu_job, deadline));
    settle(job, ER_TIMEOUT);
}

static struct er_gpu_job *new_job(struct er_runtime *rt, const struct er_gpu_wish *wish) {
    struct er_gpu_job *job = er_calloc(1, sizeof *job);
    struct shared *shared = er_calloc(1, sizeof *shared);
    if (!job || !shared) {
        er_free(job);
        er_free(shared);
        return NULL;
    }
    pthread_mutex_init(&shared->lock, NULL);
    shared->wish = *wish;
    shared->wish.cache = er_gpu_shared_cache();
    shared->wake = &job->wake;
    job->rt = rt;
    job->shared = shared;
    job->wake.data = job;
    return job;
}

static enum er_status start_deadline(struct er_gpu_job *job, int64_t timeout_ns) {
    er_hold(job->rt);
    er_deadline_init(&job->deadline, job->rt, true, on_deadline);
    return er_deadline_start(&job->deadline, er_deadline_now(&job->deadline) + timeout_ns);
}

struct er_gpu_job *er_gpu_job_start(struct er_runtime *rt, const struct er_gpu_wish *wish, int64_t timeout_ns,
                                    void (*done)(void *data), void *data, struct er_error *err) {
    if (atomic_load(&hanging) >= MAX_HANGING) {
        er_fail(err, ER_TIMEOUT, "the GPU driver has not answered %d earlier calls", MAX_HANGING);
        return NULL;
    }
    struct er_gpu_job *job = new_job(rt, wish);
    if (!job) {
        er_fail(err, ER_NO_MEMORY, "not enough memory");
        return NULL;
    }
    job->timeout_ns = timeout_ns;
    job->done = done;
    job->data = data;
    bool listens = uv_async_init(er_loop(rt), &job->wake, on_wake) == 0; // before the thread runs
    if (listens && start_deadline(job, timeout_ns) == ER_OK && er_gpu_start_thread(run_thread, job->shared)) {
        return job;
    }
    job->shared->finished = job->shared->left = true; // no thread will let go
    job->closed = !listens;
    er_gpu_job_free(job);
    er_fail(err, ER_INTERNAL, "cannot start a thread for the GPU driver");
    return NULL;
}

bool er_gpu_job_is_done(const struct er_gpu_job *job) { return job->settled; }

void er_gpu_job_cancel(struct er_gpu_job *job) { settle(job, ER_CANCELLED); }

enum er_status er_gpu_job_result(struct er_gpu_job *job, const struct er_gpu_snapshot **snapshot,
                                 struct er_error *err) {
    if (job->given_up == ER_TIMEOUT) {
        return er_fail(err, ER_TIMEOUT, "the GPU driver did not answer within %.3g s", (double)job->timeout_ns / 1e9);
    }
    if (job->given_up != ER_OK) {
        return er_fail(err, job->given_up, "cancelled");
    }
    *err = job->shared->err;
    *snapshot = &job->shared->snapshot;
    return job->shared->status;
}

void er_gpu_job_free(struct er_gpu_job *job) {
    job->orphan = true;
    if (job->closed) {
        free_job(job);
    } else {
        settle(job, ER_CANCELLED);
    }
}

static void *open_thread(void *data) {
    struct nvml nvml;
    (void)data;
    er_gpu_open(&nvml, NULL);
    return NULL;
}

void er_gpu_open_early(void) { er_gpu_start_thread(open_thread, NULL); }
