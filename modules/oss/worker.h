// SPDX-License-Identifier: Apache-2.0
// What one thread has: a connection, a buffer, its copy of the keys.
#ifndef EIRUN_OSS_WORKER_H
#define EIRUN_OSS_WORKER_H

#include "engine.h"

enum { ER_OSS_CHUNK = 256 * 1024, ER_OSS_HEAD = 16 * 1024 };

struct er_oss_worker {
    struct er_oss_engine *engine;
    struct er_oss_conn conn;
    struct er_oss_signer signer;
    char *token; // NULL: none
    uint64_t keys_generation;
    struct er_oss_reply reply;
    struct er_buf scratch, head;
    char *buffer; // room for a head, then a chunk
    uint64_t random;
    int64_t moved; // of the attempt under way
};

// How an attempt ended.
enum er_oss_verdict { ER_OSS_DONE, ER_OSS_FAILED, ER_OSS_AGAIN, ER_OSS_AGAIN_AT_ONCE };

struct er_oss_worker *er_oss_worker_new(struct er_oss_engine *engine); // NULL: no memory
void er_oss_worker_free(struct er_oss_worker *worker);

// Does the operation, repeats included; the result is in `op`.
void er_oss_work(struct er_oss_worker *worker, struct er_oss_op *op);
// The head of a request into worker->head. `length` -1: no body. `md5` may be NULL.
enum er_status er_oss_write_head(struct er_oss_worker *worker, const struct er_oss_op *op, const char *method,
                                 int64_t length, const char *md5, const char *range, struct er_error *err);

// Runs `attempt` until it is done, has failed for good or may not be repeated any more.
void er_oss_repeat(struct er_oss_worker *worker, struct er_oss_op *op,
                   enum er_oss_verdict (*attempt)(struct er_oss_worker *worker, struct er_oss_op *op, void *context),
                   void *context);
// A connection to send on, an old one where it still stands.
enum er_status er_oss_connect(struct er_oss_worker *worker, struct er_error *err);
// Bytes of a body that are under way or have come; waits where a bandwidth is set.
enum er_status er_oss_move(struct er_oss_worker *worker, size_t bytes);
// What the answer means; ER_OSS_DONE: a success whose CRC is still to be compared.
enum er_oss_verdict er_oss_judge(struct er_oss_worker *worker, struct er_oss_op *op);
// A failure of the connection: the next one may do better.
enum er_oss_verdict er_oss_broken(struct er_oss_worker *worker, struct er_oss_op *op, bool reused,
                                  const struct er_error *err);
// "cannot ACTION 'path': reason" into op->error.
enum er_oss_verdict er_oss_file_failed(struct er_oss_op *op, const char *action, int code);
// It arrived changed.
enum er_oss_verdict er_oss_rotten(struct er_oss_op *op);

// By action.
void er_oss_send_file(struct er_oss_worker *worker, struct er_oss_op *op);
void er_oss_fetch_file(struct er_oss_worker *worker, struct er_oss_op *op);
void er_oss_allocate_file(struct er_oss_worker *worker, struct er_oss_op *op);

#endif
