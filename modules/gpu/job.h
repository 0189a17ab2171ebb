// SPDX-License-Identifier: Apache-2.0
// A look at the GPUs on a thread of its own. The pool of libuv will not do: a driver that hangs would keep its thread,
// and the process could not end.
#ifndef EIRUN_GPU_JOB_H
#define EIRUN_GPU_JOB_H

#include "gpu.h"
#include "runtime.h"

struct er_gpu_job;

// Starts a look that is given up after `timeout_ns`; then calls `done` on the loop, once, unless the job was freed
// before. Holds the clock meanwhile. NULL and `err` where it cannot start: ER_TIMEOUT when earlier looks still hang.
struct er_gpu_job *er_gpu_job_start(struct er_runtime *rt, const struct er_gpu_wish *wish, int64_t timeout_ns,
                                    void (*done)(void *data), void *data, struct er_error *err);
bool er_gpu_job_is_done(const struct er_gpu_job *job);
// Gives up waiting: the job is done at once, with ER_CANCELLED, and `done` is called. No effect on a job that is done.
void er_gpu_job_cancel(struct er_gpu_job *job);
// What came of a job that is done; the snapshot stays the job's.
enum er_status er_gpu_job_result(struct er_gpu_job *job, const struct er_gpu_snapshot **snapshot, struct er_error *err);
void er_gpu_job_free(struct er_gpu_job *job); // at any time
// Opening the driver takes 20 ms on an H100: begins it while the program still reads its arguments.
void er_gpu_open_early(void);

#endif
