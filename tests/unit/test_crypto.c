// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "crypto.h"
#include "encoding.h"

#include <isa-l/crc64.h>
#include <stdlib.h>

static char text[512];

static const char *hex_of(const unsigned char *bytes, size_t length) {
    er_hex_encode(text, bytes, length);
    text[2 * length] = '\0';
    return text;
}

static const char *digest_of(enum er_digest_kind kind, const char *input) {
    unsigned char bytes[ER_DIGEST_MAX];
    size_t length = 0;
    CHECK(er_digest_once(kind, input, strlen(input), bytes, &length) == ER_OK);
    return hex_of(bytes, length);
}

// RFC 1321 A.5; FIPS 180-4 examples.
static void digests_agree_with_their_standards(void) {
    CHECK_STR(digest_of(ER_DIGEST_MD5, ""), "d41d8cd98f00b204e9800998ecf8427e");
    CHECK_STR(digest_of(ER_DIGEST_MD5, "message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
    CHECK_STR(digest_of(ER_DIGEST_SHA1, "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    CHECK_STR(digest_of(ER_DIGEST_SHA256, "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_STR(digest_of(ER_DIGEST_SHA256, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK_STR(digest_of(ER_DIGEST_SHA512, "abc"), "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
                                                  "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
}

static void a_digest_in_pieces_equals_the_digest_of_the_whole(void) {
    static const enum er_digest_kind kinds[] = {ER_DIGEST_MD5, ER_DIGEST_SHA256, ER_DIGEST_CRC64};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct er_digest digest;
        unsigned char whole[ER_DIGEST_MAX], pieces[ER_DIGEST_MAX];
        size_t whole_length = 0, length = 0;
        CHECK(er_digest_once(kinds[i], "hello, world", 12, whole, &whole_length) == ER_OK);
        CHECK(er_digest_open(&digest, kinds[i]) == ER_OK);
        CHECK(er_digest_update(&digest, "hello", 5) == ER_OK);
        CHECK(er_digest_update(&digest, "", 0) == ER_OK);
        CHECK(er_digest_update(&digest, ", world", 7) == ER_OK);
        CHECK(er_digest_final(&digest, pieces, &length) == ER_OK);
        CHECK(length == whole_length && memcmp(whole, pieces, length) == 0);
        er_digest_close(&digest);
    }
}

static const char *hmac_of(enum er_digest_kind kind, const char *key, const char *input) {
    unsigned char bytes[ER_DIGEST_MAX];
    size_t length = 0;
    CHECK(er_hmac(kind, key, strlen(key), input, strlen(input), bytes, &length) == ER_OK);
    return hex_of(bytes, length);
}

static void hmac_agrees_with_rfc_2202_and_rfc_4231(void) {
    char long_key[132];
    memset(long_key, 0xaa, 131);
    long_key[131] = '\0';
    CHECK_STR(hmac_of(ER_DIGEST_SHA1, "Jefe", "what do ya want for nothing?"),
              "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
    CHECK_STR(hmac_of(ER_DIGEST_SHA256, "Jefe", "what do ya want for nothing?"),
              "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    CHECK_STR(hmac_of(ER_DIGEST_SHA256, long_key, "Test Using Larger Than Block-Size Key - Hash Key First"),
              "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

// The check value of the catalogue of parametrised CRC algorithms, CRC-64/XZ.
static void crc64_has_the_catalogues_check_value(void) {
    CHECK(er_crc64(0, "123456789", 9) == 0x995dc9bbdf1939fau);
    CHECK(er_crc64(0, "", 0) == 0);
    CHECK(er_crc64(er_crc64(0, "1234", 4), "56789", 5) == 0x995dc9bbdf1939fau);
}

// Bit by bit, as the catalogue defines it.
static uint64_t crc64_by_definition(const unsigned char *bytes, size_t length) {
    uint64_t crc = UINT64_MAX;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 1 ? crc >> 1 ^ 0xC96C5795D7870F42u : crc >> 1;
        }
    }
    return ~crc;
}

// The second one is what a processor without carry-less multiply gets.
static void crc64_is_right_with_carry_less_multiply_and_without(void) {
    unsigned char bytes[4096 + 16];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)(i * 2654435761u >> 13);
    }
    for (size_t length = 0; length <= 4096; length += length < 300 ? 1 : 97) {
        const unsigned char *at = bytes + length % 16; // any alignment
        uint64_t expected = crc64_by_definition(at, length);
        CHECK(er_crc64(0, at, length) == expected);
        CHECK(crc64_ecma_refl_base(0, at, length) == expected);
    }
}

static void crc64_parts_combine(void) {
    size_t size = 100000;
    unsigned char *bytes = malloc(size);
    struct er_random random = {0};
    er_random_seed(&random, 7);
    CHECK(bytes && er_random_bytes(&random, bytes, size) == ER_OK);
    uint64_t whole = er_crc64(0, bytes, size);
    static const size_t cuts[] = {0, 1, 2, 7, 8, 4096, 65535, 99999, 100000};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        uint64_t a = er_crc64(0, bytes, cuts[i]), b = er_crc64(0, bytes + cuts[i], size - cuts[i]);
        CHECK(er_crc64_combine(a, b, size - cuts[i]) == whole);
    }
    free(bytes);
}

// RFC 4648 section 10.
static void base64_agrees_with_rfc_4648(void) {
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        const char *plain = pairs[i][0], *coded = pairs[i][1];
        size_t size = er_base64_size(strlen(plain)), back = 0;
        CHECK(size == strlen(coded));
        er_base64_encode(text, plain, strlen(plain));
        CHECK(memcmp(text, coded, size) == 0);
        CHECK(er_base64_measure(coded, size, &back) && back == strlen(plain));
        er_base64_decode(text, coded, size);
        CHECK(memcmp(text, plain, back) == 0);
    }
}

static void text_that_is_not_base64_is_refused(void) {
    static const char *const wrong[] = {
        "Z", "Zg", "Zg=", "Zg===", "Zg=x", "=Zg=", "Zh==", "Zm9=", "Zm 9", "Zm9v!", "Z-_=", "===="};
    size_t size = 0;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        CHECK(!er_base64_measure(wrong[i], strlen(wrong[i]), &size));
    }
    CHECK(er_base64_measure("Zm9v\r\nYg==\n", 11, &size) && size == 4);
}

static void hex_goes_both_ways(void) {
    char bytes[4];
    CHECK(er_hex_decode(bytes, "00fFa5", 6) && memcmp(bytes, "\x00\xff\xa5", 3) == 0);
    CHECK_STR(hex_of((const unsigned char *)bytes, 3), "00ffa5");
    CHECK(!er_hex_decode(bytes, "0", 1));
    CHECK(!er_hex_decode(bytes, "0g", 2));
}

static const char *percent_of(const char *input, bool keep_slash) {
    size_t size = er_percent_size(input, strlen(input), keep_slash);
    er_percent_encode(text, input, strlen(input), keep_slash);
    text[size] = '\0';
    return text;
}

static void percent_encoding_keeps_what_rfc_3986_leaves_unreserved(void) {
    CHECK_STR(percent_of("AZaz09-._~", false), "AZaz09-._~");
    CHECK_STR(percent_of("a b+c*/?\xc3\xa9%", false), "a%20b%2Bc%2A%2F%3F%C3%A9%25");
    CHECK_STR(percent_of("dir/a b", true), "dir/a%20b");
}

static void a_seeded_generator_repeats_itself(void) {
    struct er_random a = {0}, b = {0}, c = {0}, real = {0};
    unsigned char first[33], second[33], third[33], fourth[33];
    er_random_seed(&a, 42);
    er_random_seed(&b, 42);
    er_random_seed(&c, 43);
    CHECK(er_random_bytes(&a, first, 33) == ER_OK && er_random_bytes(&b, second, 33) == ER_OK);
    CHECK(er_random_bytes(&c, third, 33) == ER_OK && er_random_bytes(&real, fourth, 33) == ER_OK);
    CHECK(memcmp(first, second, 33) == 0);
    CHECK(memcmp(first, third, 33) != 0);
    CHECK(memcmp(first, fourth, 33) != 0);
    CHECK(er_random_bytes(&a, second, 33) == ER_OK && memcmp(first, second, 33) != 0);
}

int main(void) {
    return check_run((struct check_test[]){
        {"digests_agree_with_their_standards", digests_agree_with_their_standards},
        {"a_digest_in_pieces_equals_the_digest_of_the_whole", a_digest_in_pieces_equals_the_digest_of_the_whole},
        {"hmac_agrees_with_rfc_2202_and_rfc_4231", hmac_agrees_with_rfc_2202_and_rfc_4231},
        {"crc64_has_the_catalogues_check_value", crc64_has_the_catalogues_check_value},
        {"crc64_is_right_with_carry_less_multiply_and_without", crc64_is_right_with_carry_less_multiply_and_without},
        {"crc64_parts_combine", crc64_parts_combine},
        {"base64_agrees_with_rfc_4648", base64_agrees_with_rfc_4648},
        {"text_that_is_not_base64_is_refused", text_that_is_not_base64_is_refused},
        {"hex_goes_both_ways", hex_goes_both_ways},
        {"percent_encoding_keeps_what_rfc_3986_leaves_unreserved",
         percent_encoding_keeps_what_rfc_3986_leaves_unreserved},
        {"a_seeded_generator_repeats_itself", a_seeded_generator_repeats_itself},
        {0},
    });
}
