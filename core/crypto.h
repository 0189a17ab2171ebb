// SPDX-License-Identifier: Apache-2.0
// Digests, HMAC, CRC-64 and random bytes. No Lua here.
#ifndef EIRUN_CRYPTO_H
#define EIRUN_CRYPTO_H

#include "er.h"

// CRC-64/XZ (ECMA-182, reflected), what OSS calls crc64ecma. Continue with the last result; begin with 0.
uint64_t er_crc64(uint64_t crc, const void *bytes, size_t length);
// The checksum of A followed by B from those of A and of B, and B's length.
uint64_t er_crc64_combine(uint64_t a, uint64_t b, uint64_t length_of_b);

enum er_digest_kind { ER_DIGEST_MD5, ER_DIGEST_SHA1, ER_DIGEST_SHA256, ER_DIGEST_SHA512, ER_DIGEST_CRC64 };
#define ER_DIGEST_MAX 64
// "md5", "sha1", "sha256", "sha512", "crc64".
bool er_digest_kind_of(const char *name, enum er_digest_kind *kind);

// A digest of bytes that come in pieces. Zero-initialised it is closed.
struct er_digest {
    enum er_digest_kind kind;
    bool open;
    uint64_t crc; // the value, where kind is ER_DIGEST_CRC64
    struct evp_md_ctx_st *md;
};
enum er_status er_digest_open(struct er_digest *digest, enum er_digest_kind kind);
enum er_status er_digest_update(struct er_digest *digest, const void *bytes, size_t length);
// Closes it. A CRC-64 comes as its eight bytes, the highest first (and stays in `crc`).
enum er_status er_digest_final(struct er_digest *digest, unsigned char into[ER_DIGEST_MAX], size_t *length);
void er_digest_close(struct er_digest *digest); // may run twice

// Of bytes that are at hand.
enum er_status er_digest_once(enum er_digest_kind kind, const void *bytes, size_t length,
                              unsigned char into[ER_DIGEST_MAX], size_t *into_length);
enum er_status er_hmac(enum er_digest_kind kind, const void *key, size_t key_length, const void *bytes, size_t length,
                       unsigned char into[ER_DIGEST_MAX], size_t *into_length);

// OpenSSL's generator, unless it was seeded: then xoshiro256**, the same bytes for the same seed. The seeded one is
// predictable and only for runs under --sandbox, which are to be the same byte for byte; keys never come from it.
struct er_random {
    bool seeded;
    uint64_t state[4];
};
void er_random_seed(struct er_random *random, uint64_t seed);
enum er_status er_random_bytes(struct er_random *random, void *into, size_t length);

// Fills `err` with OpenSSL's reason for the last failure and empties its queue.
enum er_status er_openssl_fail(struct er_error *err, const char *action);

#endif
