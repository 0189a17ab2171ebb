// SPDX-License-Identifier: Apache-2.0
// eirun.core.crypto. Data and keys are strings or secrets. What can be turned back (hex, base64, percent-encoding) is a
// secret when it was made of one; a digest is a string.
#include "bind_crypto.h"
#include "encoding.h"
#include "secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

#define DIGEST "eirun.crypto.digest"
#define MAX_BYTES ((size_t)1 << 30) // of one encoded text, and of one draw of random bytes

static int fail(lua_State *L, enum er_status status, const char *what) {
    if (status == ER_NO_MEMORY) {
        return luaL_error(L, "not enough memory");
    }
    return luaL_error(L, "%s failed", what);
}

// Digests.

static int push_once(lua_State *L, enum er_digest_kind kind) {
    size_t length, size;
    const char *bytes = er_check_bytes(L, 1, &length);
    unsigned char digest[ER_DIGEST_MAX];
    enum er_status status = er_digest_once(kind, bytes, length, digest, &size);
    if (status != ER_OK) {
        return fail(L, status, "digest");
    }
    lua_pushlstring(L, (const char *)digest, size);
    return 1;
}

static int l_md5(lua_State *L) { return push_once(L, ER_DIGEST_MD5); }
static int l_sha1(lua_State *L) { return push_once(L, ER_DIGEST_SHA1); }
static int l_sha256(lua_State *L) { return push_once(L, ER_DIGEST_SHA256); }
static int l_sha512(lua_State *L) { return push_once(L, ER_DIGEST_SHA512); }

static int push_hmac(lua_State *L, enum er_digest_kind kind) {
    size_t key_length, length, size;
    const char *key = er_check_bytes(L, 1, &key_length);
    const char *bytes = er_check_bytes(L, 2, &length);
    unsigned char digest[ER_DIGEST_MAX];
    enum er_status status = er_hmac(kind, key, key_length, bytes, length, digest, &size);
    if (status != ER_OK) {
        return fail(L, status, "hmac");
    }
    lua_pushlstring(L, (const char *)digest, size);
    return 1;
}

static int l_hmac_sha1(lua_State *L) { return push_hmac(L, ER_DIGEST_SHA1); }
static int l_hmac_sha256(lua_State *L) { return push_hmac(L, ER_DIGEST_SHA256); }

static int l_digest_close(lua_State *L) {
    er_digest_close(luaL_checkudata(L, 1, DIGEST));
    return 0;
}

static struct er_digest *check_digest(lua_State *L) {
    struct er_digest *digest = luaL_checkudata(L, 1, DIGEST);
    luaL_argcheck(L, digest->open, 1, "digest is closed");
    return digest;
}

static int l_digest(lua_State *L) {
    enum er_digest_kind kind;
    const char *name = luaL_checkstring(L, 1);
    luaL_argcheck(L, er_digest_kind_of(name, &kind), 1, "md5, sha1, sha256, sha512 or crc64 expected");
    struct er_digest *digest = er_handle_new(L, sizeof *digest, DIGEST);
    enum er_status status = er_digest_open(digest, kind);
    return status == ER_OK ? 1 : fail(L, status, "digest");
}

static int l_digest_update(lua_State *L) {
    struct er_digest *digest = check_digest(L);
    size_t length;
    const char *bytes = er_check_bytes(L, 2, &length);
    enum er_status status = er_digest_update(digest, bytes, length);
    lua_settop(L, 1);
    return status == ER_OK ? 1 : fail(L, status, "digest");
}

void er_push_digest(lua_State *L, struct er_digest *digest) {
    unsigned char bytes[ER_DIGEST_MAX];
    size_t size = 0;
    bool crc = digest->kind == ER_DIGEST_CRC64;
    enum er_status status = er_digest_final(digest, bytes, &size);
    if (status != ER_OK) {
        fail(L, status, "digest");
    } else if (crc) {
        lua_pushinteger(L, (lua_Integer)digest->crc);
    } else {
        lua_pushlstring(L, (const char *)bytes, size);
    }
}

static int l_digest_final(lua_State *L) {
    er_push_digest(L, check_digest(L));
    return 1;
}

static int l_crc64(lua_State *L) {
    size_t length;
    const char *bytes = er_check_bytes(L, 1, &length);
    lua_pushinteger(L, (lua_Integer)er_crc64((uint64_t)luaL_optinteger(L, 2, 0), bytes, length));
    return 1;
}

static int l_crc64_combine(lua_State *L) {
    uint64_t a = (uint64_t)luaL_checkinteger(L, 1), b = (uint64_t)luaL_checkinteger(L, 2);
    lua_Integer length = luaL_checkinteger(L, 3);
    luaL_argcheck(L, length >= 0, 3, "negative length");
    lua_pushinteger(L, (lua_Integer)er_crc64_combine(a, b, (uint64_t)length));
    return 1;
}

// x-oss-hash-crc64ecma and its like are unsigned; Lua's integers are not.
static int l_crc64_text(lua_State *L) {
    char text[24];
    snprintf(text, sizeof text, "%llu", (unsigned long long)luaL_checkinteger(L, 1));
    lua_pushstring(L, text);
    return 1;
}

static int l_crc64_parse(lua_State *L) {
    const char *text = luaL_checkstring(L, 1);
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno) {
        return er_push_fail(L, &(struct er_error){ER_INVALID, "not an unsigned 64-bit number"});
    }
    lua_pushinteger(L, (lua_Integer)value);
    return 1;
}

// Encodings.

// Where `size` bytes of a result go: into a secret when argument 1 is one. finish_text pushes it.
static char *begin_text(lua_State *L, luaL_Buffer *buffer, size_t size) {
    if (er_is_secret(L, 1)) {
        return er_secret_new(L, size);
    }
    return luaL_buffinitsize(L, buffer, size);
}

static int finish_text(lua_State *L, luaL_Buffer *buffer, size_t size) {
    if (!er_is_secret(L, 1)) {
        luaL_pushresultsize(buffer, size);
    }
    return 1;
}

static const char *check_text(lua_State *L, size_t *length) {
    const char *bytes = er_check_bytes(L, 1, length);
    luaL_argcheck(L, *length <= MAX_BYTES, 1, "too long");
    return bytes;
}

static int l_hex(lua_State *L) {
    luaL_Buffer buffer;
    size_t length;
    const char *bytes = check_text(L, &length);
    er_hex_encode(begin_text(L, &buffer, 2 * length), bytes, length);
    return finish_text(L, &buffer, 2 * length);
}

static int l_unhex(lua_State *L) {
    luaL_Buffer buffer;
    size_t length;
    const char *text = check_text(L, &length);
    if (!er_hex_decode(begin_text(L, &buffer, length / 2), text, length)) {
        return er_push_fail(L, &(struct er_error){ER_INVALID, "not hexadecimal"});
    }
    return finish_text(L, &buffer, length / 2);
}

static int l_base64(lua_State *L) {
    luaL_Buffer buffer;
    size_t length;
    const char *bytes = check_text(L, &length);
    size_t size = er_base64_size(length);
    er_base64_encode(begin_text(L, &buffer, size), bytes, length);
    return finish_text(L, &buffer, size);
}

static int l_unbase64(lua_State *L) {
    luaL_Buffer buffer;
    size_t length, size;
    const char *text = check_text(L, &length);
    if (!er_base64_measure(text, length, &size)) {
        return er_push_fail(L, &(struct er_error){ER_INVALID, "not base64"});
    }
    er_base64_decode(begin_text(L, &buffer, size), text, length);
    return finish_text(L, &buffer, size);
}

static int l_percent_encode(lua_State *L) {
    static const char *const sets[] = {"rfc3986", "path", NULL};
    luaL_Buffer buffer;
    size_t length;
    const char *bytes = check_text(L, &length);
    bool path = luaL_checkoption(L, 2, "rfc3986", sets) == 1;
    size_t size = er_percent_size(bytes, length, path);
    er_percent_encode(begin_text(L, &buffer, size), bytes, length, path);
    return finish_text(L, &buffer, size);
}

static int l_constant_time_equal(lua_State *L) {
    size_t left_length, right_length;
    const char *left = er_check_bytes(L, 1, &left_length), *right = er_check_bytes(L, 2, &right_length);
    lua_pushboolean(L, left_length == right_length && CRYPTO_memcmp(left, right, left_length) == 0);
    return 1;
}

// Random bytes.

static const char random_key; // its address is the registry's key of the state's generator

struct er_random *er_random_of(lua_State *L) {
    luaL_checkstack(L, 2, "random");
    lua_rawgetp(L, LUA_REGISTRYINDEX, &random_key);
    struct er_random *random = lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!random) {
        random = lua_newuserdatauv(L, sizeof *random, 0);
        *random = (struct er_random){0};
        lua_rawsetp(L, LUA_REGISTRYINDEX, &random_key);
    }
    return random;
}

static int l_random_seed(lua_State *L) {
    uint64_t seed = (uint64_t)luaL_checkinteger(L, 1);
    er_random_seed(er_random_of(L), seed);
    return 0;
}

static int l_random(lua_State *L) {
    lua_Integer length = luaL_checkinteger(L, 1);
    luaL_argcheck(L, length >= 0 && (size_t)length <= MAX_BYTES, 1, "length out of range");
    struct er_random *random = er_random_of(L);
    luaL_Buffer buffer;
    char *bytes = luaL_buffinitsize(L, &buffer, (size_t)length);
    enum er_status status = er_random_bytes(random, bytes, (size_t)length);
    if (status != ER_OK) {
        return fail(L, status, "random");
    }
    luaL_pushresultsize(&buffer, (size_t)length);
    return 1;
}

static const luaL_Reg functions[] = {
    {"md5", l_md5},
    {"sha1", l_sha1},
    {"sha256", l_sha256},
    {"sha512", l_sha512},
    {"hmac_sha1", l_hmac_sha1},
    {"hmac_sha256", l_hmac_sha256},
    {"digest", l_digest},
    {"crc64", l_crc64},
    {"crc64_combine", l_crc64_combine},
    {"crc64_text", l_crc64_text},
    {"crc64_parse", l_crc64_parse},
    {"hex", l_hex},
    {"unhex", l_unhex},
    {"base64", l_base64},
    {"unbase64", l_unbase64},
    {"percent_encode", l_percent_encode},
    {"constant_time_equal", l_constant_time_equal},
    {"random", l_random},
    {"random_seed", l_random_seed},
    {NULL, NULL},
};

int luaopen_eirun_core_crypto(lua_State *L);
int luaopen_eirun_core_crypto(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"update", l_digest_update}, {"final", l_digest_final}, {"close", l_digest_close}, {NULL, NULL}};
    er_handle_type(L, DIGEST, methods, l_digest_close);
    luaL_newlib(L, functions);
    er_add_certificates(L);
    return 1;
}
