// SPDX-License-Identifier: Apache-2.0
#include "process.h"

#include "deadline.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>

extern char **environ;

static const int64_t SECOND = 1000000000;
enum { GRACE_SECONDS = 5, LINGER_SECONDS = 2, CHUNK = 64 * 1024 };

struct child;
struct output {
    uv_pipe_t pipe;
    struct er_buf *into;
    const char *name;
    bool open;
};

struct child {
    struct er_process process; // first: the caller's pointer is ours
    struct er_runtime *rt;
    char *name; // argv[0]
    uv_process_t handle;
    uv_pipe_t input;
    uv_write_t write;
    char *input_data;
    size_t input_length;
    struct output out, err;
    struct er_deadline deadline;
    int64_t timeout;
    int unclosed; // uv handles
    bool input_open, alive, killed, abandoned;
    char chunk[CHUNK];
};

// ---- end

static void release(struct child *child) {
    er_buf_release(&child->process.out);
    er_buf_release(&child->process.err);
    er_free_secret(child->input_data, child->input_length);
    er_free(child->name);
    er_free(child);
}

static void on_closed(uv_handle_t *handle) {
    struct child *child = handle->data;
    if (--child->unclosed == 0 && child->abandoned) {
        release(child);
    }
}

static void close_output(struct output *output) {
    if (output->open) {
        output->open = false;
        uv_close((uv_handle_t *)&output->pipe, on_closed);
    }
}

static void close_input(struct child *child) {
    if (child->input_open) {
        child->input_open = false;
        uv_close((uv_handle_t *)&child->input, on_closed);
    }
}

static void finish(struct child *child) {
    er_deadline_stop(&child->deadline);
    close_input(child);
    close_output(&child->out);
    close_output(&child->err);
    er_unhold(child->rt);
    child->process.finished = true;
    er_op_done(&child->process.op);
}

static void finish_if_complete(struct child *child) {
    if (!child->alive && !child->process.finished && ((!child->out.open && !child->err.open) || child->killed)) {
        finish(child);
    }
}

static void signal_group(struct child *child, int number) { kill(-child->handle.pid, number); }

// Whoever still holds the pipes of a child that is gone has had its time.
static void stop_waiting(struct child *child) {
    child->killed = true;
    if (child->alive) {
        signal_group(child, SIGKILL);
    }
    finish_if_complete(child);
}

static void start_deadline(struct child *child, int64_t nanoseconds) {
    if (er_deadline_start(&child->deadline, er_deadline_now(&child->deadline) + nanoseconds) != ER_OK) {
        stop_waiting(child);
    }
}

static void stop(struct child *child, enum er_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void stop(struct child *child, enum er_status status, const char *format, ...) {
    if (child->process.finished || child->process.error.status != ER_OK) {
        return;
    }
    va_list args;
    va_start(args, format);
    child->process.error.status = status;
    vsnprintf(child->process.error.message, sizeof child->process.error.message, format, args);
    va_end(args);
    if (!child->alive) {
        stop_waiting(child);
        return;
    }
    child->killed = true;
    signal_group(child, SIGTERM);
    start_deadline(child, GRACE_SECONDS * SECOND);
}

static void on_deadline(struct er_deadline *deadline) {
    struct child *child = (struct child *)((char *)deadline - offsetof(struct child, deadline));
    if (child->alive && child->process.error.status == ER_OK) {
        stop(child, ER_TIMEOUT, "'%s' did not end within %g s", child->name, (double)child->timeout / 1e9);
    } else {
        stop_waiting(child);
    }
}

static void on_exit_status(uv_process_t *handle, int64_t status, int signal_number) {
    struct child *child = handle->data;
    er_touch(child->rt);
    child->alive = false;
    child->process.signal = signal_number;
    child->process.code = signal_number ? 128 + signal_number : (int)status;
    if (child->killed) {
        signal_group(child, SIGKILL); // what it started and left behind
    }
    uv_close((uv_handle_t *)handle, on_closed);
    if (child->abandoned) {
        return;
    }
    finish_if_complete(child);
    if (!child->process.finished) {
        start_deadline(child, LINGER_SECONDS * SECOND);
    }
}

// ---- pipes

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)suggested;
    struct child *child = handle->data;
    *buf = uv_buf_init(child->chunk, sizeof child->chunk);
}

static void on_output(uv_stream_t *stream, ssize_t got, const uv_buf_t *buf) {
    struct child *child = stream->data;
    struct output *output = (struct output *)stream; // the pipe is its first member
    er_touch(child->rt);
    if (got < 0) {
        close_output(output);
        finish_if_complete(child);
        return;
    }
    enum er_status status = er_buf_add(output->into, buf->base, (size_t)got);
    if (status == ER_QUOTA) {
        stop(child, ER_QUOTA, "'%s' wrote more than %zu bytes to its %s", child->name, output->into->max, output->name);
    } else if (status != ER_OK) {
        stop(child, status, "not enough memory for the output of '%s'", child->name);
    }
}

static void on_written(uv_write_t *write, int status) {
    (void)status; // a child may end without reading all
    struct child *child = write->data;
    er_touch(child->rt);
    close_input(child);
}

static void init_pipe(struct child *child, uv_pipe_t *pipe) {
    uv_pipe_init(er_loop(child->rt), pipe, 0);
    pipe->data = child;
    child->unclosed++;
}

static void init_output(struct child *child, struct output *output, struct er_buf *into, const char *name) {
    init_pipe(child, &output->pipe);
    output->into = into;
    output->name = name;
    output->open = true;
}

static void feed(struct child *child) {
    uv_buf_t buf = {.base = child->input_data, .len = child->input_length};
    child->write.data = child;
    if (!child->input_length || uv_write(&child->write, (uv_stream_t *)&child->input, &buf, 1, on_written) != 0) {
        close_input(child);
    }
}

// ---- environment: one block, pointers first

static bool is_replaced(const char *entry, const struct er_process_options *options) {
    for (size_t i = 0; i < options->env_count; i++) {
        const struct er_process_env *own = &options->env[i];
        if (strncmp(entry, own->name, own->name_length) == 0 && entry[own->name_length] == '=') {
            return true;
        }
    }
    return false;
}

static char **build_env(const struct er_process_options *options, size_t *size) {
    size_t inherited = 0, bytes = 0;
    for (char **entry = environ; !options->clear_env && *entry; entry++) {
        inherited++;
    }
    for (size_t i = 0; i < options->env_count; i++) {
        bytes += options->env[i].name_length + options->env[i].value_length + 2;
    }
    size_t pointers = (inherited + options->env_count + 1) * sizeof(char *);
    char **env = er_alloc(pointers + bytes), **next = env;
    if (!env) {
        return NULL;
    }
    *size = pointers + bytes;
    for (size_t i = 0; i < inherited; i++) {
        if (!is_replaced(environ[i], options)) {
            *next++ = environ[i];
        }
    }
    char *text = (char *)env + pointers;
    for (size_t i = 0; i < options->env_count; i++) {
        *next++ = text;
        text = mempcpy(text, options->env[i].name, options->env[i].name_length);
        *text++ = '=';
        text = mempcpy(text, options->env[i].value, options->env[i].value_length);
        *text++ = '\0';
    }
    *next = NULL;
    return env;
}

// ---- start

static int spawn(struct child *child, const struct er_process_options *options, char **env) {
    uv_stdio_container_t stdio[3] = {
        {.flags = options->input ? UV_CREATE_PIPE | UV_READABLE_PIPE : UV_IGNORE,
         .data.stream = (uv_stream_t *)&child->input},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&child->out.pipe},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&child->err.pipe},
    };
    uv_process_options_t spawn_options = {
        .exit_cb = on_exit_status,
        .file = options->argv[0],
        .args = (char **)options->argv,
        .env = env,
        .cwd = options->cwd,
        .flags = UV_PROCESS_DETACHED, // a process group of its own
        .stdio_count = 3,
        .stdio = stdio,
    };
    child->handle.data = child;
    child->unclosed++;
    return uv_spawn(er_loop(child->rt), &child->handle, &spawn_options);
}

static struct child *new_child(struct er_runtime *rt, const struct er_process_options *options) {
    struct child *child = er_calloc(1, sizeof *child);
    if (!child) {
        return NULL;
    }
    child->rt = rt;
    child->process.out.max = child->process.err.max = options->max_output;
    child->timeout = options->timeout;
    child->name = er_strdup(options->argv[0]);
    child->input_data = options->input ? er_strndup(options->input, options->input_length) : NULL;
    child->input_length = options->input_length;
    if (!child->name || (options->input && !child->input_data)) {
        release(child);
        return NULL;
    }
    return child;
}

static void give_up_unstarted(struct child *child) {
    child->abandoned = true;
    close_input(child);
    close_output(&child->out);
    close_output(&child->err);
    uv_close((uv_handle_t *)&child->handle, on_closed);
}

static void init_pipes(struct child *child, bool with_input) {
    init_output(child, &child->out, &child->process.out, "standard output");
    init_output(child, &child->err, &child->process.err, "standard error");
    if (with_input) {
        init_pipe(child, &child->input);
        child->input_open = true;
    }
}

static void watch(struct child *child) {
    er_hold(child->rt);
    child->alive = true;
    er_deadline_init(&child->deadline, child->rt, true, on_deadline);
    uv_read_start((uv_stream_t *)&child->out.pipe, on_alloc, on_output);
    uv_read_start((uv_stream_t *)&child->err.pipe, on_alloc, on_output);
    if (child->input_open) {
        feed(child);
    }
    if (child->timeout) {
        start_deadline(child, child->timeout);
    }
}

enum er_status er_process_start(struct er_runtime *rt, const struct er_process_options *options,
                                struct er_process **process, struct er_error *err) {
    size_t env_size = 0;
    char **env = build_env(options, &env_size);
    struct child *child = env ? new_child(rt, options) : NULL;
    if (!child) {
        er_free_secret(env, env_size);
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    init_pipes(child, options->input);
    int code = spawn(child, options, env);
    er_free_secret(env, env_size);
    if (code != 0) {
        give_up_unstarted(child);
        return er_fail(err,
                       code == UV_ENOENT   ? ER_NOT_FOUND
                       : code == UV_EACCES ? ER_DENIED
                                           : ER_INTERNAL,
                       "cannot run '%s': %s", options->argv[0], uv_strerror(code));
    }
    watch(child);
    *process = &child->process;
    return ER_OK;
}

void er_process_cancel(struct er_process *process) {
    struct child *child = (struct child *)process;
    stop(child, ER_CANCELLED, "'%s' was cancelled", child->name);
}

void er_process_free(struct er_process *process) {
    struct child *child = (struct child *)process;
    if (!child) {
        return;
    }
    if (!process->finished) {
        child->killed = true;
        if (child->alive) {
            signal_group(child, SIGKILL);
        }
        finish(child);
    }
    child->abandoned = true;
    if (!child->unclosed) {
        release(child);
    }
}
