// SPDX-License-Identifier: Apache-2.0
#include "bind_digests.h"

#include <lauxlib.h>

static const char *const names[] = {
    [ER_DIGEST_MD5] = "md5",       [ER_DIGEST_SHA1] = "sha1",   [ER_DIGEST_SHA256] = "sha256",
    [ER_DIGEST_SHA512] = "sha512", [ER_DIGEST_CRC64] = "crc64",
};

unsigned er_check_digests(lua_State *L, int index) {
    luaL_checktype(L, index, LUA_TTABLE);
    lua_Integer count = (lua_Integer)lua_rawlen(L, index);
    unsigned wanted = 0;
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, index, i);
        const char *name = lua_tostring(L, -1);
        enum er_digest_kind kind;
        if (!name || !er_digest_kind_of(name, &kind)) {
            luaL_error(L, "digest '%s' is not one of md5, sha1, sha256, sha512, crc64",
                       name ? name : luaL_typename(L, -1));
        } else {
            wanted |= ER_DIGEST_BIT(kind);
        }
        lua_pop(L, 1);
    }
    return wanted;
}

void er_set_digests(lua_State *L, const struct er_digests *digests) {
    for (int kind = 0; digests && kind < ER_DIGEST_KINDS; kind++) {
        if (!(digests->wanted & ER_DIGEST_BIT(kind))) {
            continue;
        }
        if (kind == ER_DIGEST_CRC64) {
            lua_pushinteger(L, (lua_Integer)digests->states[kind].crc);
        } else {
            lua_pushlstring(L, (const char *)digests->values[kind], digests->lengths[kind]);
        }
        lua_setfield(L, -2, names[kind]);
    }
}
