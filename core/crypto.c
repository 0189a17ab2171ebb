// SPDX-License-Identifier: Apache-2.0
#include "crypto.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

enum er_status er_openssl_fail(struct er_error *err, const char *action) {
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    bool memory = code && ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE;
    ERR_clear_error();
    return er_fail(err, memory ? ER_NO_MEMORY : ER_INTERNAL, "%s: %s", action, reason ? reason : "unknown reason");
}

static const struct {
    const char *name;
    const EVP_MD *(*md)(void);
} kinds[] = {
    [ER_DIGEST_MD5] = {"md5", EVP_md5},          [ER_DIGEST_SHA1] = {"sha1", EVP_sha1},
    [ER_DIGEST_SHA256] = {"sha256", EVP_sha256}, [ER_DIGEST_SHA512] = {"sha512", EVP_sha512},
    [ER_DIGEST_CRC64] = {"crc64", NULL},
};

bool er_digest_kind_of(const char *name, enum er_digest_kind *kind) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            *kind = (enum er_digest_kind)i;
            return true;
        }
    }
    return false;
}

enum er_status er_digest_open(struct er_digest *digest, enum er_digest_kind kind) {
    *digest = (struct er_digest){.kind = kind};
    if (kind != ER_DIGEST_CRC64) {
        digest->md = EVP_MD_CTX_new();
        if (!digest->md || !EVP_DigestInit_ex(digest->md, kinds[kind].md(), NULL)) {
            er_digest_close(digest);
            return er_openssl_fail(NULL, "digest");
        }
    }
    digest->open = true;
    return ER_OK;
}

enum er_status er_digest_update(struct er_digest *digest, const void *bytes, size_t length) {
    if (digest->kind == ER_DIGEST_CRC64) {
        digest->crc = er_crc64(digest->crc, bytes, length);
        return ER_OK;
    }
    return EVP_DigestUpdate(digest->md, bytes, length) ? ER_OK : er_openssl_fail(NULL, "digest");
}

static void big_endian(unsigned char into[8], uint64_t value) {
    for (int i = 7; i >= 0; i--, value >>= 8) {
        into[i] = (unsigned char)value;
    }
}

enum er_status er_digest_final(struct er_digest *digest, unsigned char into[ER_DIGEST_MAX], size_t *length) {
    enum er_status status = ER_OK;
    unsigned size = 8;
    if (digest->kind == ER_DIGEST_CRC64) {
        big_endian(into, digest->crc);
    } else if (!EVP_DigestFinal_ex(digest->md, into, &size)) {
        status = er_openssl_fail(NULL, "digest");
    }
    *length = size;
    er_digest_close(digest);
    return status;
}

void er_digest_close(struct er_digest *digest) {
    EVP_MD_CTX_free(digest->md);
    digest->md = NULL;
    digest->open = false;
}

enum er_status er_digest_once(enum er_digest_kind kind, const void *bytes, size_t length,
                              unsigned char into[ER_DIGEST_MAX], size_t *into_length) {
    if (kind == ER_DIGEST_CRC64) {
        big_endian(into, er_crc64(0, bytes, length));
        *into_length = 8;
        return ER_OK;
    }
    unsigned size = 0;
    if (!EVP_Digest(bytes, length, into, &size, kinds[kind].md(), NULL)) {
        return er_openssl_fail(NULL, "digest");
    }
    *into_length = size;
    return ER_OK;
}

enum er_status er_hmac(enum er_digest_kind kind, const void *key, size_t key_length, const void *bytes, size_t length,
                       unsigned char into[ER_DIGEST_MAX], size_t *into_length) {
    unsigned size = 0;
    if (key_length > INT_MAX || !kinds[kind].md) {
        return ER_INVALID;
    }
    if (!HMAC(kinds[kind].md(), key, (int)key_length, bytes, length, into, &size)) {
        return er_openssl_fail(NULL, "hmac");
    }
    *into_length = size;
    return ER_OK;
}

// splitmix64, which xoshiro's authors recommend for spreading a seed.
static uint64_t split_mix(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

void er_random_seed(struct er_random *random, uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        random->state[i] = split_mix(&seed);
    }
    random->seeded = true;
}

static uint64_t rotate(uint64_t value, int by) { return value << by | value >> (64 - by); }

// xoshiro256**, Blackman and Vigna.
static uint64_t next_word(uint64_t s[4]) {
    uint64_t result = rotate(s[1] * 5, 7) * 9, shifted = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= shifted;
    s[3] = rotate(s[3], 45);
    return result;
}

enum er_status er_random_bytes(struct er_random *random, void *into, size_t length) {
    if (!random->seeded) {
        return length <= INT_MAX && RAND_bytes(into, (int)length) == 1 ? ER_OK : er_openssl_fail(NULL, "random");
    }
    unsigned char *at = into;
    while (length) {
        unsigned char word[8];
        big_endian(word, next_word(random->state));
        size_t part = length < sizeof word ? length : sizeof word;
        memcpy(at, word, part);
        at += part;
        length -= part;
    }
    return ER_OK;
}
