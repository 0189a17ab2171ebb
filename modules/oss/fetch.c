// SPDX-License-Identifier: Apache-2.0
// An object, or a range of one, becomes (a part of) a file. A range that is cut short goes on where it stopped.
#include "worker.h"

#include "crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct place {
    struct er_oss_worker *worker;
    struct er_oss_op *op;
    int fd;
    int64_t got; // bytes of it that are written
    uint64_t crc;
    bool ended; // the disk said no
};

static enum er_status write_all(struct place *place, const char *bytes, size_t length) {
    while (length) {
        ssize_t put = pwrite(place->fd, bytes, length, place->op->offset + place->got);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            er_oss_file_failed(place->op, "write", errno);
            place->ended = true;
            return ER_QUOTA;
        }
        place->crc = er_crc64(place->crc, bytes, (size_t)put);
        place->got += put;
        bytes += put;
        length -= (size_t)put;
    }
    return ER_OK;
}

static enum er_status on_bytes(void *owner, const char *bytes, size_t length) {
    struct place *place = owner;
    const struct er_oss_reply *reply = &place->worker->reply;
    if (place->op->part && (reply->status != 206 || place->got + (int64_t)length > place->op->length)) {
        er_fail(&place->op->error, ER_INTERNAL, "a range was asked for and something else came");
        place->ended = true;
        return ER_INTERNAL;
    }
    enum er_status status = er_oss_move(place->worker, length);
    if (status != ER_OK) {
        er_fail(&place->op->error, ER_CANCELLED, "stopped");
        place->ended = true;
        return status;
    }
    return write_all(place, bytes, length);
}

static const char *range_of(const struct place *place, char into[64]) {
    const struct er_oss_op *op = place->op;
    if (!op->part) {
        return NULL;
    }
    snprintf(into, 64, "bytes=%lld-%lld", (long long)op->offset + (long long)place->got,
             (long long)op->offset + (long long)op->length - 1);
    return into;
}

// A whole object begins anew: the server may have another one by now.
static enum er_oss_verdict restart(struct place *place) {
    if (place->op->part) {
        return ER_OSS_DONE;
    }
    place->got = 0;
    place->crc = 0;
    return ftruncate(place->fd, 0) == 0 ? ER_OSS_DONE : er_oss_file_failed(place->op, "write", errno);
}

static enum er_oss_verdict settle(struct place *place) {
    struct er_oss_op *op = place->op;
    const struct er_oss_reply *reply = &place->worker->reply;
    enum er_oss_verdict verdict = er_oss_judge(place->worker, op);
    if (verdict != ER_OSS_DONE) {
        return verdict;
    }
    if (op->part && place->got != op->length) {
        er_fail(&op->error, ER_NETWORK, "%lld bytes of a range came instead of %lld", (long long)place->got,
                (long long)op->length);
        return ER_OSS_AGAIN;
    }
    if (!op->part && reply->has_crc && reply->crc != place->crc) {
        return er_oss_rotten(op);
    }
    op->crc = place->crc;
    op->length = place->got;
    return ER_OSS_DONE;
}

static enum er_oss_verdict attempt(struct er_oss_worker *worker, struct er_oss_op *op, void *context) {
    struct place *place = context;
    struct er_error err = {.status = ER_OK};
    char range[64];
    if (restart(place) != ER_OSS_DONE) {
        return ER_OSS_FAILED;
    }
    worker->reply.sink = on_bytes;
    worker->reply.owner = place;
    er_oss_reply_begin(&worker->reply);
    if (er_oss_write_head(worker, op, "GET", -1, NULL, range_of(place, range), &op->error) != ER_OK) {
        return ER_OSS_FAILED;
    }
    enum er_status status = er_oss_connect(worker, &err);
    if (status != ER_OK) {
        return er_oss_broken(worker, op, false, &err);
    }
    bool reused = worker->conn.used > 0;
    status = er_oss_conn_send(&worker->conn, worker->head.data, worker->head.length, &err);
    if (status == ER_OK) {
        status = er_oss_reply_read(&worker->reply, &worker->conn, worker->buffer, ER_OSS_HEAD + ER_OSS_CHUNK, &err);
    }
    if (place->ended) {
        er_oss_conn_close(&worker->conn);
        return ER_OSS_FAILED;
    }
    return status == ER_OK ? settle(place) : er_oss_broken(worker, op, reused, &err);
}

static bool is_done(const struct er_oss_op *op) {
    return op->error.status == ER_OK && (op->status == 200 || op->status == 206);
}

// Into its place in one step, when it is whole.
static void close_place(struct place *place) {
    struct er_oss_op *op = place->op;
    if (close(place->fd) != 0 && is_done(op)) {
        er_oss_file_failed(op, "write", errno);
    }
    if (is_done(op) && op->target && rename(op->path, op->target) != 0) {
        er_fail(&op->error, er_status_of_errno(errno), "cannot rename '%s' to '%s': %s", op->path, op->target,
                uv_strerror(-errno));
    }
    if (!is_done(op) && op->target) {
        unlink(op->path);
    }
}

void er_oss_fetch_file(struct er_oss_worker *worker, struct er_oss_op *op) {
    int fresh = op->part ? 0 : O_TRUNC;
    struct place place = {.worker = worker, .op = op};
    place.fd = open(op->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | fresh, 0666);
    if (place.fd < 0) {
        er_oss_file_failed(op, "write", errno);
        return;
    }
    er_oss_repeat(worker, op, attempt, &place);
    close_place(&place);
}

void er_oss_allocate_file(struct er_oss_worker *worker, struct er_oss_op *op) {
    (void)worker;
    int fd = open(op->path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_TRUNC, 0666);
    if (fd < 0) {
        er_oss_file_failed(op, "make", errno);
        return;
    }
    int code = op->length ? posix_fallocate(fd, 0, op->length) : 0;
    if (code == EOPNOTSUPP || code == EINVAL) {
        code = ftruncate(fd, op->length) == 0 ? 0 : errno;
    }
    close(fd);
    if (code) {
        er_oss_file_failed(op, "make room for", code);
        unlink(op->path);
    }
}
