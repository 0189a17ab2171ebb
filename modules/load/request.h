// SPDX-License-Identifier: Apache-2.0
// One request, ready to be sent: the bytes of HTTP/1.1, and where HTTP/2 is spoken the fields that are found in them.
#ifndef EIRUN_LOAD_REQUEST_H
#define EIRUN_LOAD_REQUEST_H

#include "er.h"

#include <nghttp2/nghttp2.h>

enum er_load_protocol { ER_LOAD_HTTP1, ER_LOAD_H2_PLAIN, ER_LOAD_H2_TLS };

struct er_load_request {
    const char *bytes;
    size_t length;
    nghttp2_nv *fields; // NULL for HTTP/1.1; they point into the bytes
    size_t field_count;
    size_t body; // offset of the body; set for HTTP/2
    size_t target;
};

// Copies the bytes. ER_NO_MEMORY; ER_INVALID for bytes that are no request or have over a hundred headers.
enum er_status er_load_request_init(struct er_load_request *request, const char *bytes, size_t length, size_t target,
                                    enum er_load_protocol protocol);
// Whether its method may be repeated when nobody knows whether it was done (RFC 9110 9.2.2).
bool er_load_request_is_idempotent(const struct er_load_request *request);
bool er_load_request_is_head(const struct er_load_request *request); // its answer has no body
// Wipes and frees; a request may carry a token.
void er_load_request_release(struct er_load_request *request);

#endif
