// SPDX-License-Identifier: Apache-2.0
// Signature V4 of OSS, in headers: what a thread needs to sign thousands of requests a second.
#ifndef EIRUN_OSS_SIGN_H
#define EIRUN_OSS_SIGN_H

#include "er.h"

struct er_oss_pair {
    const char *name; // a header's in lower case, a query's not encoded
    const char *value;
};

struct er_oss_request {
    const char *method;
    const char *bucket;              // NULL: the service itself
    const char *key;                 // not encoded; "": the bucket itself
    const struct er_oss_pair *query; // values not encoded, "" for a sub-resource; in the order of their encoded names
    size_t query_count;
    const struct er_oss_pair *headers; // in the order of their names
    size_t header_count;
};

// Appends text with all bytes encoded but unreserved ones, and '/' where it is kept.
enum er_status er_oss_add_encoded(struct er_buf *into, const char *text, bool keep_slash);
// "a=1&b", encoded; the same on the wire and under the signature.
enum er_status er_oss_add_query(struct er_buf *into, const struct er_oss_request *request);

// Secrets come and go as bytes that the caller wipes. The derived key is kept for a day, a region and a secret.
struct er_oss_signer {
    char id[128], secret[128], region[64];
    char day[9];
    unsigned char key[32];
};
// Forgets what was derived. ER_INVALID: longer than such things are.
enum er_status er_oss_signer_set(struct er_oss_signer *signer, const char *id, const char *secret, const char *region);
void er_oss_signer_wipe(struct er_oss_signer *signer);

enum { ER_OSS_DATE_SIZE = 17 }; // 20250304T050607Z
void er_oss_date(int64_t seconds, char into[ER_OSS_DATE_SIZE]);

// Appends the value of Authorization. The headers hold x-oss-date with `date`, and x-oss-content-sha256.
enum er_status er_oss_sign(struct er_oss_signer *signer, const struct er_oss_request *request, const char *date,
                           struct er_buf *scratch, struct er_buf *into);

#endif
