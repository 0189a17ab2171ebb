// SPDX-License-Identifier: Apache-2.0
#include "worker.h"

#include "encoding.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <time.h>

static const int64_t base_ns = 200000000, cap_ns = 20000000000; // of the pauses between attempts

struct er_oss_worker *er_oss_worker_new(struct er_oss_engine *engine) {
    struct er_oss_worker *worker = er_calloc(1, sizeof *worker);
    char *buffer = er_alloc(ER_OSS_HEAD + ER_OSS_CHUNK);
    if (!worker || !buffer) {
        er_free(worker);
        er_free(buffer);
        return NULL;
    }
    worker->engine = engine;
    worker->buffer = buffer;
    worker->conn.peer = &engine->options.peer;
    worker->conn.fd = -1;
    worker->scratch.max = worker->head.max = ER_OSS_HEAD;
    worker->random =
        (uint64_t)er_oss_engine_seconds(engine) ^ ((uint64_t)(uintptr_t)worker << 20) ^ 0x9E3779B97F4A7C15u;
    return worker;
}

static void forget_keys(struct er_oss_worker *worker) {
    er_oss_signer_wipe(&worker->signer);
    er_free_secret(worker->token, worker->token ? strlen(worker->token) : 0);
    worker->token = NULL;
}

void er_oss_worker_free(struct er_oss_worker *worker) {
    forget_keys(worker);
    er_oss_conn_release(&worker->conn);
    er_oss_reply_release(&worker->reply);
    er_buf_release(&worker->scratch);
    er_buf_release(&worker->head);
    er_free(worker->buffer);
    er_free(worker);
}

void er_oss_op_free(struct er_oss_op *op) {
    if (op) {
        er_free(op->location);
        er_free(op->body);
        er_free(op);
    }
}

// xorshift64: only so that threads that failed together do not come back together.
static double random_part(struct er_oss_worker *worker) {
    uint64_t x = worker->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    worker->random = x;
    return (double)(x >> 11) / 9007199254740992.0;
}

// ---- the head of a request

static enum er_status take_keys(struct er_oss_worker *worker) {
    struct er_oss_engine *engine = worker->engine;
    enum er_status status = ER_OK;
    pthread_mutex_lock(&engine->lock);
    if (worker->keys_generation != engine->keys_generation) {
        forget_keys(worker);
        status = engine->id ? er_oss_signer_set(&worker->signer, engine->id, engine->secret, engine->options.region)
                            : ER_INVALID;
        worker->token = engine->token ? er_strdup(engine->token) : NULL;
        worker->keys_generation = status == ER_OK ? engine->keys_generation : 0;
    }
    pthread_mutex_unlock(&engine->lock);
    return status;
}

enum { MOST_HEADERS = 64 };

struct headers {
    struct er_oss_pair list[MOST_HEADERS];
    size_t count;
};

// Keeps them in the order of their names.
static void put(struct headers *headers, const char *name, const char *value) {
    size_t at = headers->count;
    while (at && strcmp(headers->list[at - 1].name, name) > 0) {
        headers->list[at] = headers->list[at - 1];
        at--;
    }
    headers->list[at] = (struct er_oss_pair){name, value};
    headers->count++;
}

static enum er_status write_lines(struct er_oss_worker *worker, const struct er_oss_request *request, int64_t length) {
    const struct er_oss_options *options = &worker->engine->options;
    struct er_buf *head = &worker->head;
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < request->header_count; i++) {
        status = er_buf_printf(head, "%s: %s\r\n", request->headers[i].name, request->headers[i].value);
    }
    if (status == ER_OK && length >= 0) {
        status = er_buf_printf(head, "content-length: %lld\r\n", (long long)length);
    }
    status = status == ER_OK
                 ? er_buf_printf(head, "user-agent: %s\r\nhost: %s\r\nauthorization: ", options->agent, options->host)
                 : status;
    return status;
}

static enum er_status write_first_line(struct er_oss_worker *worker, const struct er_oss_request *request) {
    struct er_buf *head = &worker->head;
    er_buf_clear(head);
    enum er_status status = er_buf_printf(head, "%s %s", request->method, worker->engine->options.base);
    status = status == ER_OK ? er_oss_add_encoded(head, request->key, true) : status;
    status = status == ER_OK && request->query_count ? er_buf_add(head, "?", 1) : status;
    status = status == ER_OK ? er_oss_add_query(head, request) : status;
    return status == ER_OK ? er_buf_add_str(head, " HTTP/1.1\r\n") : status;
}

enum er_status er_oss_write_head(struct er_oss_worker *worker, const struct er_oss_op *op, const char *method,
                                 int64_t length, const char *md5, const char *range, struct er_error *err) {
    char date[ER_OSS_DATE_SIZE];
    struct headers headers = {.count = 0};
    enum er_status status = take_keys(worker);
    if (status != ER_OK || op->header_count > MOST_HEADERS - 6) {
        return er_fail(err, ER_INVALID, "no keys to sign with, or too many headers");
    }
    er_oss_date(er_oss_engine_seconds(worker->engine), date);
    for (size_t i = 0; i < op->header_count; i++) {
        put(&headers, op->headers[i].name, op->headers[i].value);
    }
    put(&headers, "x-oss-content-sha256", "UNSIGNED-PAYLOAD");
    put(&headers, "x-oss-date", date);
    const struct er_oss_pair more[] = {{"x-oss-security-token", worker->token},
                                       {"content-md5", md5},
                                       {"range", range},
                                       {"x-oss-range-behavior", range ? "standard" : NULL}};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        if (more[i].value) {
            put(&headers, more[i].name, more[i].value);
        }
    }
    struct er_oss_request request = {.method = method,
                                     .bucket = worker->engine->options.bucket,
                                     .key = op->key,
                                     .query = op->query,
                                     .query_count = op->query_count,
                                     .headers = headers.list,
                                     .header_count = headers.count};
    status = write_first_line(worker, &request);
    status = status == ER_OK ? write_lines(worker, &request, length) : status;
    status = status == ER_OK ? er_oss_sign(&worker->signer, &request, date, &worker->scratch, &worker->head) : status;
    status = status == ER_OK ? er_buf_add_str(&worker->head, "\r\n\r\n") : status;
    return status == ER_OK ? ER_OK : er_fail(err, status, "the head of the request is too long");
}

// ---- attempts

enum er_status er_oss_connect(struct er_oss_worker *worker, struct er_error *err) {
    if (worker->conn.fd >= 0 && er_oss_conn_readable(&worker->conn)) {
        er_oss_conn_close(&worker->conn); // it has ended, or is out of step
    }
    return worker->conn.fd >= 0 ? ER_OK : er_oss_conn_open(&worker->conn, err);
}

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t reserve(struct er_oss_engine *engine, size_t bytes) {
    int64_t now = monotonic_ns();
    pthread_mutex_lock(&engine->lock);
    int64_t at = engine->bandwidth_at > now ? engine->bandwidth_at : now;
    engine->bandwidth_at = at + (int64_t)((double)bytes * 1e9 / engine->options.bandwidth);
    pthread_mutex_unlock(&engine->lock);
    return at - now;
}

enum er_status er_oss_move(struct er_oss_worker *worker, size_t bytes) {
    worker->moved += (int64_t)bytes;
    atomic_fetch_add(&worker->engine->moved, (int64_t)bytes);
    if (worker->engine->options.bandwidth > 0) {
        int64_t pause = reserve(worker->engine, bytes);
        return pause > 0 ? er_oss_pause(worker->conn.peer, pause) : ER_OK;
    }
    return ER_OK;
}

enum er_oss_verdict er_oss_file_failed(struct er_oss_op *op, const char *action, int code) {
    er_fail(&op->error, er_status_of_errno(code), "cannot %s '%s': %s", action, op->path, uv_strerror(-code));
    return ER_OSS_FAILED;
}

enum er_oss_verdict er_oss_broken(struct er_oss_worker *worker, struct er_oss_op *op, bool reused,
                                  const struct er_error *err) {
    bool stale = reused && worker->reply.status == 0 && err->status == ER_NETWORK;
    er_oss_conn_close(&worker->conn);
    op->error = *err;
    if (err->status == ER_NETWORK || err->status == ER_TIMEOUT) {
        return stale ? ER_OSS_AGAIN_AT_ONCE : ER_OSS_AGAIN;
    }
    return ER_OSS_FAILED;
}

enum er_oss_verdict er_oss_rotten(struct er_oss_op *op) {
    op->rotten = true;
    er_fail(&op->error, ER_NETWORK, "arrived changed: the CRC-64 differs");
    return ER_OSS_AGAIN;
}

static void keep_refusal(struct er_oss_op *op, const struct er_oss_reply *reply) {
    er_free(op->body);
    er_free(op->location);
    op->body = reply->body.length ? er_strndup(reply->body.data, reply->body.length) : NULL;
    op->location = reply->location[0] ? er_strdup(reply->location) : NULL;
    memcpy(op->ec, reply->ec, sizeof op->ec);
}

static bool says(const struct er_oss_reply *reply, const char *text) {
    return reply->body.data && strstr(reply->body.data, text);
}

// The server's clock is what signatures are measured with.
static enum er_oss_verdict follow_clock(struct er_oss_worker *worker, const struct er_oss_reply *reply) {
    struct er_oss_engine *engine = worker->engine;
    int64_t skew = reply->date - (er_oss_engine_seconds(engine) - atomic_load(&engine->skew));
    if (!reply->date || atomic_exchange(&engine->skew, skew) == skew) {
        return ER_OSS_FAILED;
    }
    return ER_OSS_AGAIN_AT_ONCE;
}

enum er_oss_verdict er_oss_judge(struct er_oss_worker *worker, struct er_oss_op *op) {
    const struct er_oss_reply *reply = &worker->reply;
    bool busy = reply->status == 503 || reply->status == 429;
    er_oss_engine_pace(worker->engine, busy || reply->qos_delay_ms > 0);
    worker->conn.used++;
    if (!reply->keep_alive) {
        er_oss_conn_close(&worker->conn);
    }
    op->status = reply->status;
    op->error = (struct er_error){.status = ER_OK};
    memcpy(op->etag, reply->etag, sizeof op->etag);
    memcpy(op->request_id, reply->request_id, sizeof op->request_id);
    if (reply->status == 200 || reply->status == 206) {
        return ER_OSS_DONE;
    }
    keep_refusal(op, reply);
    if (says(reply, "<Code>RequestTimeTooSkewed</Code>")) {
        return follow_clock(worker, reply);
    }
    return busy || reply->status >= 500 || reply->status == 408 ? ER_OSS_AGAIN : ER_OSS_FAILED;
}

static int64_t pause_of(struct er_oss_worker *worker, int attempt) {
    int64_t whole = base_ns << (attempt < 7 ? attempt : 7);
    whole = whole < cap_ns ? whole : cap_ns;
    return (int64_t)((double)whole * (0.5 + random_part(worker) / 2));
}

// What an attempt that is repeated had moved was for nothing, unless it is gone on with.
static void take_back(struct er_oss_worker *worker, const struct er_oss_op *op) {
    if (!op->part) {
        atomic_fetch_sub(&worker->engine->moved, worker->moved);
    }
    worker->moved = 0;
}

enum { STALE_MAX = 3 }; // repeats at once: connections that had ended, or the clock

void er_oss_repeat(struct er_oss_worker *worker, struct er_oss_op *op,
                   enum er_oss_verdict (*attempt)(struct er_oss_worker *worker, struct er_oss_op *op, void *context),
                   void *context) {
    int at_once = 0;
    for (int n = 0; n < worker->engine->options.attempts;) {
        worker->moved = 0;
        op->rotten = false;
        enum er_oss_verdict verdict = attempt(worker, op, context);
        if (verdict == ER_OSS_DONE || verdict == ER_OSS_FAILED) {
            return;
        }
        if (verdict == ER_OSS_AGAIN_AT_ONCE && at_once++ < STALE_MAX) {
            take_back(worker, op);
            continue;
        }
        if (++n == worker->engine->options.attempts) {
            return;
        }
        take_back(worker, op);
        op->resent += op->rotten;
        op->retried += !op->rotten;
        if (!op->rotten && er_oss_pause(worker->conn.peer, pause_of(worker, n)) != ER_OK) {
            er_fail(&op->error, ER_CANCELLED, "stopped");
            return;
        }
    }
}

void er_oss_work(struct er_oss_worker *worker, struct er_oss_op *op) {
    static void (*const actions[])(struct er_oss_worker *, struct er_oss_op *) = {
        [ER_OSS_SEND] = er_oss_send_file, [ER_OSS_FETCH] = er_oss_fetch_file, [ER_OSS_ALLOCATE] = er_oss_allocate_file};
    actions[op->action](worker, op);
}
