// SPDX-License-Identifier: Apache-2.0
#include "thread.h"

#include "er.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_int inside; // threads that run

struct start {
    void *(*run)(void *data);
    void *data;
};

static void leave_at_once(int code, void *data) {
    (void)data;
    if (atomic_load(&inside) > 0) {
        fflush(NULL);
        _exit(code);
    }
}

static void register_exit(void) { on_exit(leave_at_once, NULL); }

static void *run_counted(void *data) {
    struct start start = *(struct start *)data;
    er_free(data);
    start.run(start.data);
    atomic_fetch_sub(&inside, 1);
    return NULL;
}

static bool start_blocked(struct start *start) {
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool started = pthread_create(&thread, NULL, run_counted, start) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started && pthread_detach(thread) == 0;
}

bool er_gpu_start_thread(void *(*run)(void *data), void *data) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, register_exit);
    struct start *start = er_alloc(sizeof *start);
    if (!start) {
        return false;
    }
    *start = (struct start){run, data};
    atomic_fetch_add(&inside, 1);
    if (start_blocked(start)) {
        return true;
    }
    atomic_fetch_sub(&inside, 1);
    er_free(start);
    return false;
}
