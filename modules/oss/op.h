// SPDX-License-Identifier: Apache-2.0
// One operation: a range of a file to the server, an object or a range of one into a file, or room for a file. Done as
// a whole by one thread, repeats included.
#ifndef EIRUN_OSS_OP_H
#define EIRUN_OSS_OP_H

#include "reply.h"
#include "sign.h"

enum er_oss_action { ER_OSS_SEND, ER_OSS_FETCH, ER_OSS_ALLOCATE };

struct er_oss_op {
    struct er_oss_op *next;
    int64_t tag; // the caller's
    enum er_oss_action action;
    const char *key, *path, *target; // target: where the file is renamed to, NULL: it stays
    struct er_oss_pair *query, *headers;
    size_t query_count, header_count;
    int64_t offset, length;
    int64_t size; // that the whole source file has; -1: whatever it has
    bool part;    // a ranged fetch: the CRC that the server tells is another's
    // What the server has of it: nothing is sent when the file has the same.
    uint64_t crc_there;
    unsigned char md5_there[16];
    bool has_crc_there, has_md5_there;

    // The result: an error from here, or the server's last answer (status 0: none was needed).
    struct er_error error;
    int status;
    uint64_t crc;
    char etag[ER_OSS_WORD], request_id[ER_OSS_WORD], ec[ER_OSS_WORD];
    char *location, *body; // of a refusal; NULL: none
    bool skipped;
    bool rotten; // the last repeat arrived changed as well
    int resent;  // times that it arrived changed and was sent again
    int retried; // times that it was sent again for another reason

    struct er_oss_pair pairs[]; // query and headers, and behind them the text that all strings point into
};

void er_oss_op_free(struct er_oss_op *op); // NULL is fine

#endif
