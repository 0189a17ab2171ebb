// SPDX-License-Identifier: Apache-2.0
// A range of a file becomes a request's body. It is read once, through a buffer that stays in the processor's cache:
// hashed there and sent from there. A mapping would save that copy, and would end the process when somebody truncates
// the file.
#include "worker.h"

#include "crypto.h"
#include "encoding.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct source {
    int fd;
    struct stat stat; // as it was when the operation began
};

static const char *type_of(mode_t mode) {
    return S_ISDIR(mode) ? "directory" : S_ISFIFO(mode) ? "pipe" : S_ISSOCK(mode) ? "socket" : "device";
}

static enum er_oss_verdict changed(struct er_oss_op *op, const char *how, long long before, long long now) {
    er_fail(&op->error, ER_CONFLICT, "'%s' changed while it was read: %s (%lld bytes before, %lld now)", op->path, how,
            before, now);
    return ER_OSS_FAILED;
}

static enum er_oss_verdict open_source(struct er_oss_op *op, struct source *source) {
    source->fd = open(op->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (source->fd < 0 || fstat(source->fd, &source->stat) != 0) {
        return er_oss_file_failed(op, "open", errno);
    }
    if (!S_ISREG(source->stat.st_mode)) {
        er_fail(&op->error, ER_INVALID, "'%s' is a %s, not a file", op->path, type_of(source->stat.st_mode));
        return ER_OSS_FAILED;
    }
    if (op->size >= 0 && source->stat.st_size != op->size) {
        return changed(op, source->stat.st_size > op->size ? "it grew" : "it shrank", op->size, source->stat.st_size);
    }
    return ER_OSS_DONE;
}

// Asked before the last byte goes out, so that nothing is published of a file that somebody writes to.
static enum er_oss_verdict check_unchanged(struct er_oss_op *op, const struct source *source) {
    struct stat now;
    if (fstat(source->fd, &now) != 0) {
        return er_oss_file_failed(op, "look at", errno);
    }
    const struct stat *before = &source->stat;
    if (now.st_size != before->st_size) {
        return changed(op, now.st_size > before->st_size ? "it grew" : "it shrank", before->st_size, now.st_size);
    }
    if (now.st_mtim.tv_sec != before->st_mtim.tv_sec || now.st_mtim.tv_nsec != before->st_mtim.tv_nsec) {
        return changed(op, "it was written to", before->st_size, now.st_size);
    }
    return ER_OSS_DONE;
}

// The next piece of the range into the buffer.
static enum er_oss_verdict read_piece(struct er_oss_op *op, const struct source *source, char *into, size_t want,
                                      int64_t at) {
    for (size_t have = 0; have < want;) {
        ssize_t got = pread(source->fd, into + have, want - have, op->offset + at + (int64_t)have);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return er_oss_file_failed(op, "read", errno);
        }
        if (got == 0) {
            return changed(op, "it was truncated", source->stat.st_size, op->offset + at + (int64_t)have);
        }
        have += (size_t)got;
    }
    return ER_OSS_DONE;
}

static size_t piece_size(const struct er_oss_worker *worker, int64_t left) {
    double bandwidth = worker->engine->options.bandwidth;
    size_t most = ER_OSS_CHUNK;
    if (bandwidth > 0 && bandwidth / 20 < (double)most) {
        most = bandwidth / 20 > 4096 ? (size_t)(bandwidth / 20) : 4096;
    }
    return left < (int64_t)most ? (size_t)left : most;
}

// Does the server have these bytes already?
static enum er_oss_verdict compare(struct er_oss_worker *worker, struct er_oss_op *op, const struct source *source) {
    char *chunk = worker->buffer + ER_OSS_HEAD;
    struct er_digest md5 = {.open = false};
    unsigned char sum[ER_DIGEST_MAX];
    size_t size = 0;
    bool by_md5 = !op->has_crc_there;
    enum er_oss_verdict verdict = ER_OSS_DONE;
    uint64_t crc = 0;
    if (by_md5 && er_digest_open(&md5, ER_DIGEST_MD5) != ER_OK) {
        er_fail(&op->error, ER_NO_MEMORY, "not enough memory for a digest");
        return ER_OSS_FAILED;
    }
    for (int64_t at = 0; verdict == ER_OSS_DONE && at < op->length; at += (int64_t)size) {
        size = op->length - at < ER_OSS_CHUNK ? (size_t)(op->length - at) : ER_OSS_CHUNK;
        verdict = read_piece(op, source, chunk, size, at);
        if (atomic_load(&worker->engine->stopped)) {
            er_fail(&op->error, ER_CANCELLED, "stopped");
            verdict = ER_OSS_FAILED;
        }
        crc = verdict == ER_OSS_DONE ? er_crc64(crc, chunk, size) : crc;
        if (verdict == ER_OSS_DONE && by_md5) {
            er_digest_update(&md5, chunk, size);
        }
    }
    bool hashed = by_md5 && er_digest_final(&md5, sum, &size) == ER_OK;
    if (verdict == ER_OSS_DONE) {
        op->skipped = by_md5 ? hashed && memcmp(sum, op->md5_there, 16) == 0 : crc == op->crc_there;
        op->crc = crc;
    }
    return verdict;
}

struct body {
    const struct source *source;
    uint64_t crc;
    bool failed_here; // op->error says what, and no answer can change it
};

static enum er_status send_head_and(struct er_oss_worker *worker, size_t first, struct er_error *err) {
    char *at = worker->buffer + ER_OSS_HEAD - worker->head.length;
    memcpy(at, worker->head.data, worker->head.length);
    return er_oss_conn_send(&worker->conn, at, worker->head.length + first, err);
}

// Pieces after the first, which went out with the head.
static enum er_status send_rest(struct er_oss_worker *worker, struct er_oss_op *op, struct body *body, int64_t at,
                                struct er_error *err) {
    char *chunk = worker->buffer + ER_OSS_HEAD;
    enum er_status status = ER_OK;
    while (status == ER_OK && at < op->length) {
        size_t size = piece_size(worker, op->length - at);
        bool last = at + (int64_t)size == op->length;
        if (read_piece(op, body->source, chunk, size, at) != ER_OSS_DONE ||
            (last && check_unchanged(op, body->source) != ER_OSS_DONE)) {
            body->failed_here = true;
            return ER_CONFLICT;
        }
        body->crc = er_crc64(body->crc, chunk, size);
        status = er_oss_move(worker, size);
        if (status == ER_OK && !worker->conn.ssl && er_oss_conn_readable(&worker->conn)) {
            return ER_OK; // an answer before the end: a refusal
        }
        status =
            status == ER_OK ? er_oss_conn_send(&worker->conn, chunk, size, err) : er_fail(err, ER_CANCELLED, "stopped");
        at += (int64_t)size;
    }
    return status;
}

// What fits into the buffer is sent with its MD5, so that the server itself refuses what was changed on the way, and
// nobody ever sees it. For more, the CRC-64 of the answer has to do: MD5 is eight times slower.
static const char *md5_of(const struct er_oss_worker *worker, size_t length, char into[32]) {
    unsigned char sum[ER_DIGEST_MAX];
    size_t size;
    if (er_digest_once(ER_DIGEST_MD5, worker->buffer + ER_OSS_HEAD, length, sum, &size) != ER_OK) {
        return NULL;
    }
    er_base64_encode(into, sum, 16);
    into[er_base64_size(16)] = '\0';
    return into;
}

static enum er_oss_verdict settle(struct er_oss_worker *worker, struct er_oss_op *op, uint64_t crc) {
    enum er_oss_verdict verdict = er_oss_judge(worker, op);
    if (verdict == ER_OSS_FAILED && op->body && strstr(op->body, "<Code>InvalidDigest</Code>")) {
        return er_oss_rotten(op);
    }
    if (verdict == ER_OSS_DONE && worker->reply.has_crc && worker->reply.crc != crc) {
        return er_oss_rotten(op);
    }
    op->crc = crc;
    return verdict;
}

static enum er_oss_verdict attempt(struct er_oss_worker *worker, struct er_oss_op *op, void *context) {
    struct body body = {.source = context};
    struct er_error err = {.status = ER_OK};
    char md5[32];
    char *chunk = worker->buffer + ER_OSS_HEAD;
    size_t first = piece_size(worker, op->length);
    bool whole = (int64_t)first == op->length;
    if (read_piece(op, body.source, chunk, first, 0) != ER_OSS_DONE ||
        (whole && check_unchanged(op, body.source) != ER_OSS_DONE)) {
        return ER_OSS_FAILED;
    }
    body.crc = er_crc64(0, chunk, first);
    worker->reply.sink = NULL;
    er_oss_reply_begin(&worker->reply);
    if (er_oss_write_head(worker, op, "PUT", op->length, whole ? md5_of(worker, first, md5) : NULL, NULL, &op->error) !=
        ER_OK) {
        return ER_OSS_FAILED;
    }
    enum er_status status = er_oss_connect(worker, &err);
    if (status != ER_OK) {
        return er_oss_broken(worker, op, false, &err);
    }
    bool reused = worker->conn.used > 0;
    status = er_oss_move(worker, first);
    status = status == ER_OK ? send_head_and(worker, first, &err) : er_fail(&err, ER_CANCELLED, "stopped");
    status = status == ER_OK ? send_rest(worker, op, &body, (int64_t)first, &err) : status;
    if (body.failed_here) {
        er_oss_conn_close(&worker->conn);
        return ER_OSS_FAILED;
    }
    // A server that refuses may answer and close before it has read all: its answer says more than the broken pipe.
    if (status == ER_OK || status == ER_NETWORK) {
        struct er_error reading;
        enum er_status read = er_oss_reply_read(&worker->reply, &worker->conn, chunk, ER_OSS_CHUNK, &reading);
        err = read != ER_OK && status == ER_OK ? reading : err;
        if (read == ER_OK) {
            worker->reply.keep_alive &= status == ER_OK;
            return settle(worker, op, body.crc);
        }
    }
    return er_oss_broken(worker, op, reused, &err);
}

void er_oss_send_file(struct er_oss_worker *worker, struct er_oss_op *op) {
    struct source source = {.fd = -1};
    enum er_oss_verdict verdict = open_source(op, &source);
    if (verdict == ER_OSS_DONE && (op->has_crc_there || op->has_md5_there)) {
        verdict = compare(worker, op, &source);
    }
    if (verdict == ER_OSS_DONE && !op->skipped) {
        er_oss_repeat(worker, op, attempt, &source);
    }
    if (source.fd >= 0) {
        close(source.fd);
    }
}
