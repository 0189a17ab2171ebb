// SPDX-License-Identifier: Apache-2.0
// A body into a file: one block fills while the thread pool digests and writes the other. When both are full there is
// no room, and the connection stops reading.
#include "fs.h"
#include "http_server_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

enum { INLINE_SIZE = 64 << 10 }; // a body up to this size is not worth a thread's wake-up

struct er_httpd_sink {
    struct er_work job;
    struct er_runtime *rt;
    struct er_httpd_req *req; // NULL when abandoned
    int fd;
    int error; // errno of the pool's thread
    char *path;
    struct er_digests *digests;
    char *fill, *flush;
    size_t filled, flushing;
    bool busy, ended;
};

static void free_sink(struct er_httpd_sink *sink) {
    if (sink->fd >= 0) {
        close(sink->fd);
    }
    er_digests_free(sink->digests);
    er_free(sink->fill);
    er_free(sink->flush);
    er_free(sink->path);
    er_free(sink);
}

static enum er_status status_of(int code) {
    switch (code) {
    case ENOENT:
        return ER_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EROFS:
        return ER_DENIED;
    case ENOSPC:
    case EDQUOT:
        return ER_QUOTA;
    case ENOMEM:
        return ER_NO_MEMORY;
    default:
        return ER_INTERNAL;
    }
}

// Fails the body with an errno and the file's name. ER_QUOTA would read as a body that is too large.
static bool fail_body(struct er_httpd_req *req, const char *path, int code) {
    enum er_status status = status_of(code);
    if (req->body != BODY_FAILED) {
        req->body_object = er_strdup(path);
    }
    if (req->body == BODY_DONE) {
        req->body = BODY_UNREAD; // an empty body, but nowhere to put it
    }
    er_httpd_body_fail(req, status == ER_QUOTA ? ER_INTERNAL : status, strerrordesc_np(code));
    return false;
}

static struct er_httpd_sink *make_sink(struct er_httpd_req *req, const char *path, unsigned digests) {
    struct er_httpd_sink *sink = er_calloc(1, sizeof *sink);
    if (!sink) {
        return NULL;
    }
    *sink = (struct er_httpd_sink){.rt = req->server->rt, .req = req, .fd = -1};
    sink->path = er_strdup(path);
    sink->fill = er_alloc(BLOCK_SIZE);
    sink->digests = er_digests_new(digests);
    if (!sink->path || !sink->fill || !sink->digests) {
        free_sink(sink);
        return NULL;
    }
    return sink;
}

bool er_httpd_sink_open(struct er_httpd_req *req, const char *path, unsigned digests) {
    struct er_httpd_sink *sink = make_sink(req, path, digests);
    if (!sink) {
        return fail_body(req, path, ENOMEM);
    }
    sink->fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (sink->fd < 0) {
        int code = errno;
        free_sink(sink);
        return fail_body(req, path, code);
    }
    req->sink = sink;
    req->body = BODY_READING;
    return true;
}

size_t er_httpd_sink_room(const struct er_httpd_sink *sink) { return BLOCK_SIZE - sink->filled; }

static void process(struct er_httpd_sink *sink, const char *data, size_t length) {
    sink->error =
        er_digests_update(sink->digests, data, length) == ER_OK ? er_fs_write_all(sink->fd, data, length) : EIO;
}

static void run_job(struct er_work *work) {
    struct er_httpd_sink *sink = (struct er_httpd_sink *)work;
    process(sink, sink->flush, sink->flushing);
}

static void finish(struct er_httpd_sink *sink) {
    struct er_httpd_req *req = sink->req;
    int code = sink->error;
    if (close(sink->fd) < 0 && !code) {
        code = errno;
    }
    sink->fd = -1;
    if (!code && er_digests_finish(sink->digests) != ER_OK) {
        code = EIO;
    }
    if (code) {
        fail_body(req, sink->path, code); // abandons the sink
        return;
    }
    req->digests = sink->digests;
    sink->digests = NULL;
    req->sink = NULL;
    free_sink(sink);
    er_httpd_body_finish(req);
}

static void job_done(struct er_work *work);

static void submit(struct er_httpd_sink *sink) {
    char *full = sink->fill;
    sink->fill = sink->flush ? sink->flush : er_alloc(BLOCK_SIZE);
    sink->flush = full;
    sink->flushing = sink->filled;
    sink->filled = 0;
    if (!sink->fill || er_work_submit(sink->rt, &sink->job, run_job, job_done) != ER_OK) {
        fail_body(sink->req, sink->path, ENOMEM);
        return;
    }
    sink->busy = true;
}

static void job_done(struct er_work *work) {
    struct er_httpd_sink *sink = (struct er_httpd_sink *)work;
    er_touch(sink->rt);
    sink->busy = false;
    struct er_httpd_req *req = sink->req;
    if (!req) {
        free_sink(sink);
        return;
    }
    if (sink->error) {
        fail_body(req, sink->path, sink->error);
    } else if (sink->filled == BLOCK_SIZE || (sink->ended && sink->filled > 0)) {
        submit(sink);
    } else if (sink->ended) {
        finish(sink);
    }
    if (req->conn) {
        er_httpd_conn_kick(req->conn);
    }
}

void er_httpd_sink_add(struct er_httpd_sink *sink, const char *data, size_t length) {
    memcpy(sink->fill + sink->filled, data, length);
    sink->filled += length;
    if (sink->filled == BLOCK_SIZE && !sink->busy) {
        submit(sink);
    }
}

void er_httpd_sink_end(struct er_httpd_sink *sink) {
    sink->ended = true;
    if (sink->busy) {
        return;
    }
    if (sink->filled > INLINE_SIZE) {
        submit(sink);
        return;
    }
    process(sink, sink->fill, sink->filled);
    finish(sink);
}

void er_httpd_sink_abandon(struct er_httpd_req *req) {
    struct er_httpd_sink *sink = req->sink;
    req->sink = NULL;
    sink->req = NULL;
    unlink(sink->path);
    if (!sink->busy) {
        free_sink(sink);
    }
}
