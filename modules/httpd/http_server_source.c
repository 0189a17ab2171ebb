// SPDX-License-Identifier: Apache-2.0
// A file as a reply: one block is sent while the thread pool reads the next.
#include "http_server_impl.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INLINE_SIZE = 64 << 10 };

struct er_httpd_source {
    struct er_work job;
    struct er_runtime *rt;
    struct er_httpd_req *req; // NULL when abandoned
    int fd;
    uint64_t offset, left;
    char *block, *next; // being sent, being read
    size_t next_size;
    bool busy, ready, failed;
};

static void free_source(struct er_httpd_source *source) {
    close(source->fd);
    er_free(source->block);
    er_free(source->next);
    er_free(source);
}

static enum er_status cannot(struct er_error *err, const char *action, const char *path, int code) {
    enum er_status status = code == ENOENT ? ER_NOT_FOUND : code == EACCES ? ER_DENIED : ER_INTERNAL;
    return er_fail(err, status, "cannot %s '%s': %s", action, path, strerrordesc_np(code));
}

static enum er_status open_range(const char *path, uint64_t offset, uint64_t length, int *fd, struct er_error *err) {
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (opened < 0) {
        return cannot(err, "open", path, errno);
    }
    struct stat st;
    enum er_status status = ER_OK;
    if (fstat(opened, &st) < 0) {
        status = cannot(err, "read", path, errno);
    } else if (!S_ISREG(st.st_mode)) {
        status = er_fail(err, ER_INVALID, "cannot send '%s': not a regular file", path);
    } else if (offset > (uint64_t)st.st_size || length > (uint64_t)st.st_size - offset) {
        status = er_fail(err, ER_INVALID, "cannot send '%s': the range ends after its %lld bytes", path,
                         (long long)st.st_size);
    }
    if (status != ER_OK) {
        close(opened);
        return status;
    }
    *fd = opened;
    return ER_OK;
}

static size_t min_size(uint64_t a, size_t b) { return a < b ? (size_t)a : b; }

enum er_status er_httpd_source_open(struct er_httpd_req *req, const char *path, uint64_t offset, uint64_t length,
                                    struct er_error *err) {
    int fd = -1;
    enum er_status status = open_range(path, offset, length, &fd, err);
    if (status != ER_OK) {
        return status;
    }
    struct er_httpd_source *source = er_calloc(1, sizeof *source);
    size_t size = min_size(length, BLOCK_SIZE);
    char *block = er_alloc(size), *next = length > INLINE_SIZE ? er_alloc(size) : NULL;
    if (!source || !block || (length > INLINE_SIZE && !next)) {
        er_free(source);
        er_free(block);
        er_free(next);
        close(fd);
        return er_fail(err, ER_NO_MEMORY, "cannot send '%s': out of memory", path);
    }
    *source = (struct er_httpd_source){.rt = req->server->rt, .req = req, .fd = fd, .offset = offset, .left = length};
    source->block = block;
    source->next = next;
    req->source = source;
    return ER_OK;
}

static bool read_all(int fd, char *into, size_t length, uint64_t offset) {
    while (length > 0) {
        ssize_t count = pread(fd, into, length, (off_t)offset);
        if (count == 0 || (count < 0 && errno != EINTR)) {
            return false;
        }
        size_t step = count < 0 ? 0 : (size_t)count;
        into += step;
        length -= step;
        offset += step;
    }
    return true;
}

static void run_job(struct er_work *work) {
    struct er_httpd_source *source = (struct er_httpd_source *)work;
    source->failed = !read_all(source->fd, source->next, source->next_size, source->offset);
}

// The head is out and promised more than the file has: only a cut tells the peer.
static void give_up(struct er_httpd_req *req) {
    er_httpd_reply_fail(req, ER_INTERNAL, "the file became shorter or could not be read");
    er_httpd_req_abort(req);
}

static void pump(struct er_httpd_source *source);

static void job_done(struct er_work *work) {
    struct er_httpd_source *source = (struct er_httpd_source *)work;
    er_touch(source->rt);
    source->busy = false;
    if (!source->req) {
        free_source(source);
    } else if (source->failed) {
        give_up(source->req);
    } else {
        source->ready = true;
        source->offset += source->next_size;
        source->left -= source->next_size;
        pump(source);
    }
}

static void read_next(struct er_httpd_source *source) {
    source->next_size = min_size(source->left, BLOCK_SIZE);
    if (source->next_size == 0) {
        return;
    }
    if (er_work_submit(source->rt, &source->job, run_job, job_done) == ER_OK) {
        source->busy = true;
    } else {
        give_up(source->req);
    }
}

// Sends the block that was read, once the one before it is out, and has the next one read.
static void pump(struct er_httpd_source *source) {
    struct er_httpd_req *req = source->req;
    struct er_httpd_conn *conn = req->conn;
    if (!source->ready || conn->sending) {
        return;
    }
    struct er_httpd_bytes body = {source->next, source->next_size}, none = {0};
    source->ready = false;
    source->next = source->block;
    source->block = (char *)body.data;
    read_next(source);
    if (req->conn != conn) {
        return; // given up
    }
    if (!source->busy) {
        req->reply = REPLY_LAST;
    }
    er_httpd_conn_send(conn, none, body, none);
}

void er_httpd_source_sent(struct er_httpd_req *req) { pump(req->source); }

static void send_at_once(struct er_httpd_source *source, struct er_httpd_bytes head) {
    struct er_httpd_req *req = source->req;
    size_t size = (size_t)source->left;
    if (!read_all(source->fd, source->block, size, source->offset)) {
        give_up(req);
        return;
    }
    req->reply = REPLY_LAST;
    er_httpd_conn_send(req->conn, head, (struct er_httpd_bytes){source->block, size}, (struct er_httpd_bytes){0});
}

void er_httpd_source_start(struct er_httpd_req *req, struct er_httpd_bytes head) {
    struct er_httpd_source *source = req->source;
    struct er_httpd_conn *conn = req->conn;
    if (source->left <= INLINE_SIZE) {
        send_at_once(source, head);
        return;
    }
    read_next(source);
    if (req->conn == conn) {
        er_httpd_conn_send(conn, head, (struct er_httpd_bytes){0}, (struct er_httpd_bytes){0});
    }
}

void er_httpd_source_abandon(struct er_httpd_req *req) {
    struct er_httpd_source *source = req->source;
    req->source = NULL;
    source->req = NULL;
    if (!source->busy) {
        free_source(source);
    }
}
