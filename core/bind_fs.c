// SPDX-License-Identifier: Apache-2.0
// eirun.core.fs: files and directories.
#include "bind.h"
#include "bind_digests.h"
#include "fs.h"
#include "modules.h"
#include "runtime.h"
#include "task.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOB "eirun.fs.job"
#define LOCK "eirun.fs.lock"

enum { INLINE_SIZE = 256 << 10 }; // more than this is worth a thread's wake-up

static const char *check_path(lua_State *L, int index) {
    size_t length;
    const char *path = luaL_checklstring(L, index, &length);
    luaL_argcheck(L, strlen(path) == length, index, "a path has no NUL byte");
    return path;
}

static int push_failure(lua_State *L, const struct er_fs_failure *failure, const char *path) {
    return er_push_errno(L, failure->code, failure->action, path);
}

static int push_true(lua_State *L) {
    lua_pushboolean(L, 1);
    return 1;
}

// ---- jobs: reading, writing, digests and trees, on the thread pool where they may take long

struct job {
    struct er_work work;
    struct er_op op;
    void (*run)(struct job *job);
    bool busy, orphan;
    volatile bool stop;
    char *path, *data; // `data`: a copy, since a Lua string may go when its state does
    size_t length;
    bool secret;
    struct er_fs_write_opts opts;
    bool recursive;
    struct er_buf content;
    struct er_digests *digests;
    uint64_t offset, size, max;
    enum er_status status;
    struct er_fs_failure failure;
};

struct job_box {
    struct job *job;
};

static void free_job(struct job *job) {
    er_free(job->path);
    er_free_secret(job->data, job->secret ? job->length : 0);
    er_buf_release(&job->content);
    er_digests_free(job->digests);
    er_free(job);
}

static int l_job_close(lua_State *L) {
    struct job_box *box = luaL_checkudata(L, 1, JOB);
    struct job *job = box->job;
    box->job = NULL;
    if (job && job->busy) {
        job->stop = job->orphan = true;
    } else if (job) {
        free_job(job);
    }
    return 0;
}

// Pushes the box of a new job for `path`. [-0, +1, m]
static struct job *new_job(lua_State *L, const char *path, void (*run)(struct job *job)) {
    struct job_box *box = er_handle_new(L, sizeof *box, JOB);
    struct job *job = box->job = er_calloc(1, sizeof *job);
    if (!job || !(job->path = er_strdup(path))) {
        luaL_error(L, "not enough memory");
        return NULL;
    }
    job->run = run;
    return job;
}

static void run_work(struct er_work *work) {
    struct job *job = (struct job *)work;
    job->run(job);
}

static void work_done(struct er_work *work) {
    struct job *job = (struct job *)work;
    er_touch(work->rt);
    job->busy = false;
    if (job->status == ER_OK && job->opts.atomic) {
        er_event("file renamed");
    }
    if (job->orphan) {
        free_job(job);
    } else {
        er_op_done(&job->op);
    }
}

// A job that is under way ends by itself soon; only a digest looks at `stop` in between.
static void cancel_job(struct er_op *op) {
    struct job *job = (struct job *)((char *)op - offsetof(struct job, op));
    job->stop = true;
}

static int finish_job(lua_State *L, struct job *job, lua_KFunction k) {
    job->run(job);
    if (job->status == ER_OK && job->opts.atomic) {
        er_event("file renamed");
    }
    return k(L, LUA_OK, (lua_KContext)job);
}

// Runs the job on the pool if it is long and the caller can wait, else at once. `k` pushes its results.
static int run_job(lua_State *L, struct job *job, bool is_long, lua_KFunction k) {
    if (!is_long || !lua_isyieldable(L)) {
        return finish_job(L, job, k);
    }
    er_task_check_yieldable(L, "fs");
    er_task_check(L);
    if (er_work_submit(er_runtime_of(L), &job->work, run_work, work_done) != ER_OK) {
        return finish_job(L, job, k);
    }
    job->busy = true;
    return er_op_wait(L, &job->op, cancel_job, k, (lua_KContext)job);
}

static int push_job_failure(lua_State *L, const struct job *job) { return push_failure(L, &job->failure, job->path); }

static void run_read(struct job *job) { job->status = er_fs_read(job->path, &job->content, &job->failure); }

static int k_read(lua_State *L, int status, lua_KContext context) {
    struct job *job = (struct job *)context;
    if (status != LUA_OK) {
        er_task_check(L);
    }
    if (job->status != ER_OK) {
        return push_job_failure(L, job);
    }
    lua_pushlstring(L, job->content.data ? job->content.data : "", job->content.length);
    er_buf_release(&job->content); // not only when the collector comes to the job
    return 1;
}

// read(path[, max]) -> string | nil, err
static int l_read(lua_State *L) {
    const char *path = check_path(L, 1);
    lua_Integer max = luaL_optinteger(L, 2, (lua_Integer)1 << 30);
    luaL_argcheck(L, max >= 0, 2, "not a size");
    struct stat st;
    bool is_long = stat(path, &st) == 0 && (st.st_size > INLINE_SIZE || S_ISFIFO(st.st_mode));
    struct job *job = new_job(L, path, run_read);
    job->content.max = (size_t)max;
    return run_job(L, job, is_long, k_read);
}

static void run_write(struct job *job) {
    job->status = er_fs_write(job->path, job->data, job->length, &job->opts, &job->failure);
}

static int k_true(lua_State *L, int status, lua_KContext context) {
    struct job *job = (struct job *)context;
    er_free_secret(job->data, job->secret ? job->length : 0);
    job->data = NULL;
    if (status != LUA_OK) {
        er_task_check(L);
    }
    return job->status == ER_OK ? push_true(L) : push_job_failure(L, job);
}

static int start_write(lua_State *L, const struct er_fs_write_opts *opts) {
    const char *path = check_path(L, 1);
    size_t length;
    const char *data = er_check_bytes(L, 2, &length);
    struct job *job = new_job(L, path, run_write);
    job->opts = *opts;
    job->secret = er_is_secret(L, 2);
    job->data = er_strndup(data, length);
    job->length = length;
    if (!job->data) {
        return luaL_error(L, "not enough memory");
    }
    return run_job(L, job, length > INLINE_SIZE || opts->durable, k_true);
}

struct write_opts {
    int64_t mode;
    bool atomic, durable;
};

static mode_t check_mode(lua_State *L, int64_t mode) {
    if (mode < 0 || mode > 07777) {
        luaL_error(L, "mode is not between 0 and 07777");
    }
    return (mode_t)mode;
}

// write(path, data, { mode = 0600, atomic = true, durable = atomic }) -> true | nil, err
static int l_write(lua_State *L) {
    static const struct er_opt table[] = {
        {"mode", ER_OPT_INTEGER, offsetof(struct write_opts, mode), 0, false},
        {"atomic", ER_OPT_BOOLEAN, offsetof(struct write_opts, atomic), 0, false},
        {"durable", ER_OPT_BOOLEAN, offsetof(struct write_opts, durable), 0, false},
    };
    struct write_opts read = {.mode = 0600, .atomic = true, .durable = true};
    if (!lua_isnoneornil(L, 3)) {
        er_read_opts(L, 3, table, sizeof table / sizeof *table, &read);
    }
    return start_write(L, &(struct er_fs_write_opts){.mode = check_mode(L, read.mode),
                                                     .atomic = read.atomic,
                                                     .durable = read.atomic && read.durable});
}

// append(path, data) -> true | nil, err: in one write, so that lines of several writers do not mix
static int l_append(lua_State *L) { return start_write(L, &(struct er_fs_write_opts){.mode = 0600, .append = true}); }

// offset and length at `first` and behind it; a long range is work for the thread pool. [-0, +0, v]
struct range {
    uint64_t offset, length;
    bool is_long;
};

static struct range check_range(lua_State *L, int first, const char *path) {
    lua_Integer offset = luaL_optinteger(L, first, 0), length = luaL_optinteger(L, first + 1, INT64_MAX);
    luaL_argcheck(L, offset >= 0, first, "not an offset");
    luaL_argcheck(L, length >= 0, first + 1, "not a length");
    struct stat st;
    bool is_long = length > INLINE_SIZE && stat(path, &st) == 0 && st.st_size - offset > INLINE_SIZE;
    return (struct range){(uint64_t)offset, (uint64_t)length, is_long};
}

static void run_extend(struct job *job) {
    job->status = er_fs_extend(job->path, job->data, job->offset, job->max, &job->stop, &job->failure);
}

// extend(path, source[, offset[, length]]) -> true | nil, err: adds a part of another file to the end
static int l_extend(lua_State *L) {
    const char *path = check_path(L, 1), *source = check_path(L, 2);
    struct range range = check_range(L, 3, source);
    struct job *job = new_job(L, path, run_extend);
    job->offset = range.offset;
    job->max = range.length;
    job->data = er_strdup(source);
    if (!job->data) {
        return luaL_error(L, "not enough memory");
    }
    return run_job(L, job, range.is_long, k_true);
}

static void run_digest(struct job *job) {
    job->status = er_fs_digest(job->path, job->digests, job->offset, job->max, &job->stop, &job->size, &job->failure);
}

static int k_digest(lua_State *L, int status, lua_KContext context) {
    const struct job *job = (struct job *)context;
    if (status != LUA_OK) {
        er_task_check(L);
    }
    if (job->status != ER_OK) {
        return push_job_failure(L, job);
    }
    lua_newtable(L);
    lua_pushinteger(L, (lua_Integer)job->size);
    lua_setfield(L, -2, "size");
    er_set_digests(L, job->digests);
    return 1;
}

// digest(path, {"md5", "crc64", "sha256"}[, offset[, length]]) -> { size=, md5=... } | nil, err
static int l_digest(lua_State *L) {
    const char *path = check_path(L, 1);
    unsigned wanted = er_check_digests(L, 2);
    struct range range = check_range(L, 3, path);
    struct job *job = new_job(L, path, run_digest);
    job->offset = range.offset;
    job->max = range.length;
    job->digests = er_digests_new(wanted);
    if (!job->digests) {
        return luaL_error(L, "not enough memory");
    }
    return run_job(L, job, range.is_long, k_digest);
}

static void run_remove(struct job *job) { job->status = er_fs_remove(job->path, job->recursive, &job->failure); }

struct remove_opts {
    bool recursive;
};

// remove(path, { recursive = false }) -> true | nil, err
static int l_remove(lua_State *L) {
    static const struct er_opt table[] = {
        {"recursive", ER_OPT_BOOLEAN, offsetof(struct remove_opts, recursive), 0, false}};
    struct remove_opts read = {0};
    const char *path = check_path(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        er_read_opts(L, 2, table, 1, &read);
    }
    struct job *job = new_job(L, path, run_remove);
    job->recursive = read.recursive;
    return run_job(L, job, read.recursive, k_true);
}

// ---- what one system call does

static const char *type_of(mode_t mode) {
    return S_ISREG(mode)    ? "file"
           : S_ISDIR(mode)  ? "directory"
           : S_ISLNK(mode)  ? "link"
           : S_ISSOCK(mode) ? "socket"
           : S_ISFIFO(mode) ? "fifo"
                            : "device";
}

static void set_integer(lua_State *L, const char *key, lua_Integer value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, key);
}

struct stat_opts {
    bool follow;
};

// stat(path, { follow = true }) -> { type=, size=, mtime=, mode=, ino= } | nil, err
static int l_stat(lua_State *L) {
    static const struct er_opt table[] = {{"follow", ER_OPT_BOOLEAN, offsetof(struct stat_opts, follow), 0, false}};
    struct stat_opts read = {.follow = true};
    const char *path = check_path(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        er_read_opts(L, 2, table, 1, &read);
    }
    struct stat st;
    if ((read.follow ? stat(path, &st) : lstat(path, &st)) < 0) {
        return er_push_errno(L, errno, "stat", path);
    }
    lua_createtable(L, 0, 5);
    lua_pushstring(L, type_of(st.st_mode));
    lua_setfield(L, -2, "type");
    lua_pushnumber(L, (lua_Number)st.st_mtim.tv_sec + (lua_Number)st.st_mtim.tv_nsec / 1e9);
    lua_setfield(L, -2, "mtime");
    set_integer(L, "size", st.st_size);
    set_integer(L, "mode", st.st_mode & 07777);
    set_integer(L, "ino", (lua_Integer)st.st_ino);
    return 1;
}

static int push_names(lua_State *L) {
    const struct er_fs_names *names = lua_touserdata(L, 1);
    lua_newtable(L);
    for (size_t i = 0; i < names->count; i++) {
        lua_pushstring(L, names->names[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    return 1;
}

// list(path) -> names in byte order | nil, err
static int l_list(lua_State *L) {
    const char *path = check_path(L, 1);
    luaL_checkstack(L, 4, NULL);
    struct er_fs_names names;
    struct er_fs_failure failure;
    if (er_fs_list(path, &names, &failure) != ER_OK) {
        return push_failure(L, &failure, path);
    }
    lua_pushcfunction(L, push_names); // a light function: neither push allocates
    lua_pushlightuserdata(L, &names);
    int status = lua_pcall(L, 1, 1, 0);
    er_fs_names_release(&names);
    return status == LUA_OK ? 1 : lua_error(L);
}

struct mkdir_opts {
    int64_t mode;
    bool parents;
};

// mkdir(path, { parents = false, mode = 0700 }) -> true | nil, err
static int l_mkdir(lua_State *L) {
    static const struct er_opt table[] = {
        {"mode", ER_OPT_INTEGER, offsetof(struct mkdir_opts, mode), 0, false},
        {"parents", ER_OPT_BOOLEAN, offsetof(struct mkdir_opts, parents), 0, false},
    };
    struct mkdir_opts read = {.mode = 0700};
    const char *path = check_path(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        er_read_opts(L, 2, table, sizeof table / sizeof *table, &read);
    }
    struct er_fs_failure failure;
    enum er_status status = er_fs_mkdir(path, check_mode(L, read.mode), read.parents, &failure);
    return status == ER_OK ? push_true(L) : push_failure(L, &failure, path);
}

// rename(from, to) -> true | nil, err
static int l_rename(lua_State *L) {
    const char *from = check_path(L, 1), *to = check_path(L, 2);
    if (rename(from, to) == 0) {
        er_event("file renamed");
        return push_true(L);
    }
    int code = errno;
    const char *object = lua_pushfstring(L, "%s' to '%s", from, to);
    return er_push_errno(L, code, "rename", object);
}

// realpath(path) -> path | nil, err
static int l_realpath(lua_State *L) {
    const char *path = check_path(L, 1);
    luaL_Buffer buffer;
    char *into = luaL_buffinitsize(L, &buffer, PATH_MAX);
    if (!realpath(path, into)) {
        return er_push_errno(L, errno, "resolve", path);
    }
    luaL_pushresultsize(&buffer, strlen(into));
    return 1;
}

// mkdtemp(prefix) -> the path of a new directory that only we may enter | nil, err
static int l_mkdtemp(lua_State *L) {
    size_t length;
    const char *prefix = luaL_checklstring(L, 1, &length);
    check_path(L, 1);
    luaL_Buffer buffer;
    char *into = luaL_buffinitsize(L, &buffer, length + 7);
    memcpy(into, prefix, length);
    memcpy(into + length, "XXXXXX", sizeof "XXXXXX");
    if (!mkdtemp(into)) {
        return er_push_errno(L, errno, "make", prefix);
    }
    luaL_pushresultsize(&buffer, length + 6);
    return 1;
}

// ---- locks

struct lock {
    int fd; // 0: closed, since descriptor 0 is never a lock
};

static int l_unlock(lua_State *L) {
    struct lock *lock = luaL_checkudata(L, 1, LOCK);
    int fd = lock->fd;
    lock->fd = 0;
    if (fd) {
        er_fs_unlock(fd);
    }
    return 0;
}

static int push_conflict(lua_State *L, const char *path, const struct er_fs_holder *holder) {
    struct er_error err;
    if (holder->pid) {
        er_fail(&err, ER_CONFLICT, "'%s' is locked by process %ld on %s since %s", path, holder->pid, holder->host,
                holder->since);
    } else {
        er_fail(&err, ER_CONFLICT, "'%s' is locked by another process", path);
    }
    er_push_fail(L, &err);
    if (holder->pid) {
        lua_newtable(L);
        set_integer(L, "pid", holder->pid);
        lua_pushstring(L, holder->host);
        lua_setfield(L, -2, "host");
        lua_pushstring(L, holder->since);
        lua_setfield(L, -2, "since");
        lua_setfield(L, -2, "holder");
    }
    return 2;
}

// lock(path) -> lock (close it to unlock) | nil, err; kind conflict has `holder`
static int l_lock(lua_State *L) {
    const char *path = check_path(L, 1);
    struct lock *lock = er_handle_new(L, sizeof *lock, LOCK);
    struct er_fs_holder holder = {0};
    struct er_fs_failure failure;
    switch (er_fs_lock(path, &lock->fd, &holder, &failure)) {
    case ER_OK:
        return 1;
    case ER_CONFLICT:
        return push_conflict(L, path, &holder);
    default:
        return push_failure(L, &failure, path);
    }
}

static const luaL_Reg functions[] = {
    {"append", l_append},     {"digest", l_digest}, {"extend", l_extend},   {"list", l_list},
    {"lock", l_lock},         {"mkdir", l_mkdir},   {"mkdtemp", l_mkdtemp}, {"read", l_read},
    {"realpath", l_realpath}, {"remove", l_remove}, {"rename", l_rename},   {"stat", l_stat},
    {"write", l_write},       {NULL, NULL},
};

int luaopen_eirun_core_fs(lua_State *L) {
    static const luaL_Reg lock_methods[] = {{"close", l_unlock}, {NULL, NULL}};
    er_handle_type(L, JOB, NULL, l_job_close);
    er_handle_type(L, LOCK, lock_methods, l_unlock);
    luaL_newlib(L, functions);
    return 1;
}
