// SPDX-License-Identifier: Apache-2.0
// Child processes: no shell, output in memory, killed with everything they started, always reaped.
#ifndef EIRUN_PROCESS_H
#define EIRUN_PROCESS_H

#include "runtime.h"
#include "task.h"

struct er_process_env {
    const char *name, *value;
    size_t name_length, value_length;
};
// Everything is copied by er_process_start. Times are nanoseconds, 0 for none.
struct er_process_options {
    const char *const *argv;          // ends with NULL; argv[0] is looked up in PATH
    const struct er_process_env *env; // wins over what is inherited
    size_t env_count;
    bool clear_env; // inherit nothing
    const char *cwd;
    const char *input; // standard input; NULL: empty
    size_t input_length;
    int64_t timeout;
    size_t max_output; // of stdout and stderr each
};

// `op` is woken once, when `finished` turns true: the child is reaped and its output is complete.
struct er_process {
    struct er_op op;
    bool finished;
    int code;   // exit code; 128 + signal when a signal ended it
    int signal; // 0
    struct er_buf out, err;
    struct er_error error; // the time-out, the cancel or the output limit that ended it
};

enum er_status er_process_start(struct er_runtime *rt, const struct er_process_options *options,
                                struct er_process **process, struct er_error *err);
// Asks the child's process group to end (SIGTERM), insists after 5 s (SIGKILL). The op is woken when it has gone.
void er_process_cancel(struct er_process *process);
// Kills at once what still runs; the child is reaped later. NULL is fine.
void er_process_free(struct er_process *process);

#endif
