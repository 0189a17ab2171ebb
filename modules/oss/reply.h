// SPDX-License-Identifier: Apache-2.0
// The answer to one request as it is read: what of its headers matters here, its body to a sink or, of a refusal, kept.
#ifndef EIRUN_OSS_REPLY_H
#define EIRUN_OSS_REPLY_H

#include "conn.h"

#include <llhttp.h>

enum { ER_OSS_WORD = 96 };

struct er_oss_reply {
    llhttp_t parser;
    // Of the body of a 200 or 206, where set; anything but ER_OK ends the reading.
    enum er_status (*sink)(void *owner, const char *bytes, size_t length);
    void *owner;
    int status;
    char etag[ER_OSS_WORD], request_id[ER_OSS_WORD], ec[ER_OSS_WORD], location[512];
    uint64_t crc;
    bool has_crc;
    int64_t qos_delay_ms; // the service slowed this request down
    int64_t date;         // the server's clock, seconds since the epoch; 0: not said
    int64_t range_start;  // of a 206; -1: not said
    struct er_buf body;   // of a refusal
    bool complete, keep_alive;
    enum er_status sink_status;
    // While a header is read.
    char name[48], value[512];
    size_t name_length, value_length, header_bytes;
};

// Zero-initialise once; `body` is kept from reply to reply.
void er_oss_reply_begin(struct er_oss_reply *reply);
// Reads until the answer is complete.
enum er_status er_oss_reply_read(struct er_oss_reply *reply, struct er_oss_conn *conn, char *buffer, size_t size,
                                 struct er_error *err);
void er_oss_reply_release(struct er_oss_reply *reply);

#endif
