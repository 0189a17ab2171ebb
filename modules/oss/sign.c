// SPDX-License-Identifier: Apache-2.0
#include "sign.h"

#include "crypto.h"
#include "encoding.h"
#include "text.h"

#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SHA256_SIZE = 32, HEX_SIZE = 64 };
static const char algorithm[] = "OSS4-HMAC-SHA256";

enum er_status er_oss_add_encoded(struct er_buf *into, const char *text, bool keep_slash) {
    char piece[3 * 64];
    for (size_t left = strlen(text); left;) {
        size_t length = left < 64 ? left : 64;
        size_t size = er_percent_size(text, length, keep_slash);
        er_percent_encode(piece, text, length, keep_slash);
        enum er_status status = er_buf_add(into, piece, size);
        if (status != ER_OK) {
            return status;
        }
        text += length;
        left -= length;
    }
    return ER_OK;
}

enum er_status er_oss_add_query(struct er_buf *into, const struct er_oss_request *request) {
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < request->query_count; i++) {
        const struct er_oss_pair *pair = &request->query[i];
        status = i ? er_buf_add(into, "&", 1) : ER_OK;
        status = status == ER_OK ? er_oss_add_encoded(into, pair->name, false) : status;
        if (status == ER_OK && *pair->value) {
            status = er_buf_add(into, "=", 1);
            status = status == ER_OK ? er_oss_add_encoded(into, pair->value, false) : status;
        }
    }
    return status;
}

static bool is_signed(const char *name) {
    return strncmp(name, "x-oss-", 6) == 0 || strcmp(name, "content-type") == 0 || strcmp(name, "content-md5") == 0;
}

static enum er_status add_resource(struct er_buf *into, const struct er_oss_request *request) {
    enum er_status status = er_buf_add(into, "/", 1);
    if (request->bucket && status == ER_OK) {
        status = er_buf_printf(into, "%s/", request->bucket);
        status = status == ER_OK ? er_oss_add_encoded(into, request->key, true) : status;
    }
    return status;
}

/* The receiver sees a value without the white space around it, and signs that. */
static enum er_status add_header(struct er_buf *into, const struct er_oss_pair *pair) {
    const char *value = pair->value + strspn(pair->value, " \t");
    size_t length = strlen(value);
    while (length > 0 && (value[length - 1] == ' ' || value[length - 1] == '\t')) {
        length--;
    }
    return er_buf_printf(into, "%s:%.*s\n", pair->name, (int)length, value);
}

static enum er_status add_headers(struct er_buf *into, const struct er_oss_request *request) {
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < request->header_count; i++) {
        const struct er_oss_pair *pair = &request->headers[i];
        if (is_signed(pair->name)) {
            status = add_header(into, pair);
        }
    }
    return status;
}

static enum er_status add_canonical(struct er_buf *into, const struct er_oss_request *request) {
    enum er_status status = er_buf_printf(into, "%s\n", request->method);
    status = status == ER_OK ? add_resource(into, request) : status;
    status = status == ER_OK ? er_buf_add(into, "\n", 1) : status;
    status = status == ER_OK ? er_oss_add_query(into, request) : status;
    status = status == ER_OK ? er_buf_add(into, "\n", 1) : status;
    status = status == ER_OK ? add_headers(into, request) : status;
    return status == ER_OK ? er_buf_add_str(into, "\n\nUNSIGNED-PAYLOAD") : status;
}

static bool hmac(const void *key, size_t key_length, const char *text, unsigned char into[ER_DIGEST_MAX]) {
    size_t length;
    return er_hmac(ER_DIGEST_SHA256, key, key_length, text, strlen(text), into, &length) == ER_OK;
}

static bool derive(struct er_oss_signer *signer, const char *day) {
    char seed[sizeof signer->secret + 16];
    unsigned char a[ER_DIGEST_MAX], b[ER_DIGEST_MAX];
    int length = snprintf(seed, sizeof seed, "aliyun_v4%s", signer->secret);
    bool ok = hmac(seed, (size_t)length, day, a) && hmac(a, SHA256_SIZE, signer->region, b) &&
              hmac(b, SHA256_SIZE, "oss", a) && hmac(a, SHA256_SIZE, "aliyun_v4_request", b);
    if (ok) {
        memcpy(signer->key, b, SHA256_SIZE);
        snprintf(signer->day, sizeof signer->day, "%s", day);
    }
    OPENSSL_cleanse(seed, sizeof seed);
    OPENSSL_cleanse(a, sizeof a);
    OPENSSL_cleanse(b, sizeof b);
    return ok;
}

enum er_status er_oss_signer_set(struct er_oss_signer *signer, const char *id, const char *secret, const char *region) {
    er_oss_signer_wipe(signer);
    bool fits =
        er_text_copy(signer->id, sizeof signer->id, id) && er_text_copy(signer->region, sizeof signer->region, region);
    return fits && er_text_copy(signer->secret, sizeof signer->secret, secret) ? ER_OK : ER_INVALID;
}

void er_oss_signer_wipe(struct er_oss_signer *signer) { OPENSSL_cleanse(signer, sizeof *signer); }

void er_oss_date(int64_t seconds, char into[ER_OSS_DATE_SIZE]) {
    time_t at = (time_t)seconds;
    struct tm parts;
    gmtime_r(&at, &parts);
    strftime(into, ER_OSS_DATE_SIZE, "%Y%m%dT%H%M%SZ", &parts);
}

// The hash of what was written to `scratch`, as hexadecimal.
static bool hash(const struct er_buf *scratch, char into[HEX_SIZE + 1]) {
    unsigned char sum[ER_DIGEST_MAX];
    size_t length;
    if (er_digest_once(ER_DIGEST_SHA256, scratch->data, scratch->length, sum, &length) != ER_OK) {
        return false;
    }
    er_hex_encode(into, sum, SHA256_SIZE);
    into[HEX_SIZE] = '\0';
    return true;
}

enum er_status er_oss_sign(struct er_oss_signer *signer, const struct er_oss_request *request, const char *date,
                           struct er_buf *scratch, struct er_buf *into) {
    char day[9], hex[HEX_SIZE + 1];
    unsigned char sum[ER_DIGEST_MAX];
    snprintf(day, sizeof day, "%.8s", date);
    er_buf_clear(scratch);
    enum er_status status = add_canonical(scratch, request);
    if (status != ER_OK) {
        return status;
    }
    if ((strcmp(day, signer->day) != 0 && !derive(signer, day)) || !hash(scratch, hex)) {
        return ER_INTERNAL;
    }
    er_buf_clear(scratch);
    status =
        er_buf_printf(scratch, "%s\n%s\n%s/%s/oss/aliyun_v4_request\n%s", algorithm, date, day, signer->region, hex);
    if (status != ER_OK) {
        return status;
    }
    if (!hmac(signer->key, SHA256_SIZE, scratch->data, sum)) {
        return ER_INTERNAL;
    }
    er_hex_encode(hex, sum, SHA256_SIZE);
    return er_buf_printf(into, "%s Credential=%s/%s/%s/oss/aliyun_v4_request,Signature=%s", algorithm, signer->id, day,
                         signer->region, hex);
}
