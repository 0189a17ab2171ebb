// SPDX-License-Identifier: Apache-2.0
// X.509 certificates for machines that we own: a CA of one's own and what it signs. ECDSA on P-256 with SHA-256.
#ifndef EIRUN_CERTIFICATE_H
#define EIRUN_CERTIFICATE_H

#include "crypto.h"

struct er_pem {
    const char *bytes;
    size_t length;
};

struct er_certificate {
    const char *common_name;
    const char *organization; // NULL for none; a Kubernetes group in client certificates
    const char *const *names; // DNS names and IP addresses for the subject's alternative names
    size_t name_count;
    bool authority;                    // a CA, signed by itself; otherwise signed by the CA below
    bool client;                       // for client authentication instead of server authentication
    int64_t not_before_s, not_after_s; // seconds since the epoch
    struct er_pem ca_cert, ca_key;
    struct er_random *random; // of the serial number; keys always come from OpenSSL's generator
};

// PEM texts into buffers whose `max` the caller sets; `key` should be a `secret` one. ER_INVALID when the CA's PEM
// cannot be read, its two halves do not belong together, or a name is not one.
enum er_status er_certificate_issue(const struct er_certificate *wanted, struct er_buf *cert, struct er_buf *key,
                                    struct er_error *err);

#endif
