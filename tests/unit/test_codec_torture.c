// SPDX-License-Identifier: Apache-2.0
// Lua chunks over the codecs, crypto and the database, with every allocation from the n-th on failing, for each n until
// the chunk succeeds: ours, Lua's, jansson's, libyaml's, SQLite's and OpenSSL's. Nothing may crash or leak, a wrong
// result never counts as success, and afterwards the same state still works.
#include "check.h"
#include "embedded.h"
#include "er.h"

#include <lauxlib.h>
#include <lualib.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <sqlite3.h>
#include <yaml.h>

const struct er_embedded er_embedded[] = {{0}}; // none of these chunks requires a Lua module
const char er_embedded_lua[] = "";

enum { MOST_ALLOCATIONS = 20000 };

#define ER_MODULE(name, open) int open(lua_State *L);
#define CODECS                                                                                                         \
    ER_MODULE("secret", luaopen_eirun_core_secret)                                                                     \
    ER_MODULE("json", luaopen_eirun_core_json)                                                                         \
    ER_MODULE("yaml", luaopen_eirun_core_yaml)                                                                         \
    ER_MODULE("crypto", luaopen_eirun_core_crypto)                                                                     \
    ER_MODULE("db", luaopen_eirun_core_db)
CODECS
#undef ER_MODULE

// libyaml calls these by name, so that the program's own take their place.
#define SHARED __attribute__((visibility("default")))
SHARED void *yaml_malloc(size_t size);
SHARED void *yaml_realloc(void *block, size_t size);
SHARED void yaml_free(void *block);
SHARED yaml_char_t *yaml_strdup(const yaml_char_t *text);
static unsigned yaml_allocations;

void *yaml_malloc(size_t size) {
    yaml_allocations++;
    return er_alloc(size);
}
void *yaml_realloc(void *block, size_t size) { return er_realloc(block, size); }
void yaml_free(void *block) { er_free(block); }
yaml_char_t *yaml_strdup(const yaml_char_t *text) { return text ? (yaml_char_t *)er_strdup((const char *)text) : NULL; }

static void *openssl_alloc(size_t size, const char *file, int line) {
    (void)file, (void)line;
    return er_alloc(size);
}
static void *openssl_realloc(void *block, size_t size, const char *file, int line) {
    (void)file, (void)line;
    return er_realloc(block, size);
}
static void openssl_free(void *block, const char *file, int line) {
    (void)file, (void)line;
    er_free(block);
}

static void *sqlite_alloc(int size) { return er_alloc((size_t)size); }
static void *sqlite_realloc(void *block, int size) { return er_realloc(block, (size_t)size); }
static int sqlite_size(void *block) { return (int)malloc_usable_size(block); }
static int sqlite_round_up(int size) { return (size + 7) & ~7; }
static int sqlite_init(void *data) {
    (void)data;
    return SQLITE_OK;
}
static void sqlite_shutdown(void *data) { (void)data; }

static void take_over_allocators(void) {
    static const sqlite3_mem_methods methods = {sqlite_alloc,    er_free,     sqlite_realloc,  sqlite_size,
                                                sqlite_round_up, sqlite_init, sqlite_shutdown, NULL};
    CHECK(CRYPTO_set_mem_functions(openssl_alloc, openssl_realloc, openssl_free));
    CHECK(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods) == SQLITE_OK);
    CHECK(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) == SQLITE_OK);
}

static void *lua_allocator(void *data, void *block, size_t old_size, size_t size) {
    (void)data, (void)old_size;
    if (!size) {
        er_free(block);
        return NULL;
    }
    void *moved = er_realloc(block, size);
    return moved || size > old_size || !block ? moved : block; // Lua counts on shrinking
}

static lua_State *new_state(const char *chunk) {
    lua_State *L = lua_newstate(lua_allocator, NULL);
    luaL_openlibs(L);
#define ER_MODULE(name, open)                                                                                          \
    luaL_requiref(L, name, open, 1);                                                                                   \
    lua_pop(L, 1);
    CODECS
#undef ER_MODULE
    if (luaL_loadstring(L, chunk) != LUA_OK) {
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
        check_failures++;
    }
    return L;
}

// The chunk is on the stack and stays there. True when it returned true; it may raise, or return nil or false.
static bool succeeds(lua_State *L, bool loud) {
    lua_pushvalue(L, 1);
    int raised = lua_pcall(L, 0, 2, 0);
    er_mem_fail_from(0);
    bool success = !raised && lua_toboolean(L, 2);
    if (!success && loud) {
        fprintf(stderr, "%s\n", luaL_tolstring(L, raised ? -1 : 3, NULL));
    }
    lua_settop(L, 1);
    return success;
}

static void torture(const char *chunk, uint64_t fewest) {
    lua_State *L = new_state(chunk);
    CHECK(succeeds(L, true)); // and the libraries have made what they make once
    lua_close(L);
    bool success = false;
    uint64_t n = 0;
    while (!success && n < MOST_ALLOCATIONS) {
        n += 1 + n / 200; // OpenSSL makes ten thousand for a certificate
        L = new_state(chunk);
        er_mem_fail_from(n);
        success = succeeds(L, false);
        CHECK(success || succeeds(L, true));
        lua_close(L);
    }
    CHECK(success);
    CHECK(n > fewest);
}

static void secrets(void) {
    torture("local s = secret.concat('ab', secret.new('c')) "
            "return crypto.constant_time_equal(s, 'abc') and secret.is(crypto.base64(s))",
            2);
}

static void json_both_ways(void) {
    torture("local text = '{\"a\":[1,2.5,\"x\",null,true,{\"k\":[]}],\"b\":{},\"c\":\"' .. ('y'):rep(300) .. '\"}' "
            "return json.encode(assert(json.decode(text))) == text",
            30);
}

static void json_with_secrets(void) {
    torture("local text = json.encode({password = secret.new('p')}, {reveal = true, indent = false}) "
            "return crypto.constant_time_equal(text, '{\"password\":\"p\"}')",
            5);
}

static void json_errors(void) {
    torture("local value, err = json.decode('{\"a\": [1, }') local ok, why = pcall(json.encode, {a = {0/0}}) "
            "return value == nil and err.line == 1 and err.kind == 'invalid' and not ok and why:find('value.a[1]', 1, "
            "true)",
            10);
}

static void yaml_in(void) {
    torture(
        "local value, err = yaml.decode_all('a: &x {k: [1, 2.5, yes]}\\nb: *x\\nc:\\n  <<: *x\\n  1: |\\n    text\\n"
        "  2: !!binary Zm9v\\n---\\n~\\n') if not value then return nil, err end "
        "return json.encode(value) == "
        "'[{\"a\":{\"k\":[1,2.5,true]},\"b\":{\"k\":[1,2.5,true]},\"c\":{\"1\":\"text\\\\n\",\"2\":\"foo\",\"k\":[1,2."
        "5,true]}},null]'",
        60);
    CHECK(yaml_allocations > 1000);
}

static void yaml_out(void) {
    torture("return yaml.encode_all{{a = {1, {b = 'yes'}}, c = 'x\\ny'}, {}} == "
            "'a:\\n- 1\\n- b: \"yes\"\\nc: |-\\n  x\\n  y\\n--- {}\\n'",
            20);
}

static void digests(void) {
    torture("local d = crypto.digest('sha256') d:update('a') d:update('bc') "
            "return crypto.hex(d:final()) == crypto.hex(crypto.sha256('abc')) and #crypto.hmac_sha1('k', 'd') == 20 "
            "and crypto.unbase64(crypto.base64('abc')) == 'abc' and #crypto.random(100) == 100",
            5);
}

static void certificates(void) {
    torture("local ca, err = crypto.ca_create{name = 'ca', not_before = 0, not_after = 9} if not ca then return nil, "
            "err end "
            "return crypto.cert_issue{ca = ca, cn = 'x', names = {'a', '127.0.0.1'}, not_before = 0, not_after = 9}",
            100);
}

static void database(void) {
    torture("local d <close> = db.open('', {mode = 'memory'}) if not d then return nil end "
            "local function check(...) if not ... then error((select(2, ...)).message, 0) end return ... end "
            "check(d:exec('create table x (a, b)')) check(d:run('insert into x values (?, ?)', 1, '\\255')) "
            "check(d:run('insert into x values (?, ?)', 2.5, 'text')) "
            "local rows = check(d:rows('select a, b from x order by a')) "
            "return rows[1][2] == '\\255' and rows[2][2] == 'text' and d:row('select count(*) from x') == 2",
            50);
}

int main(void) {
    take_over_allocators();
    return check_run((struct check_test[]){
        {"secrets", secrets},
        {"json_both_ways", json_both_ways},
        {"json_with_secrets", json_with_secrets},
        {"json_errors", json_errors},
        {"yaml_in", yaml_in},
        {"yaml_out", yaml_out},
        {"digests", digests},
        {"certificates", certificates},
        {"database", database},
        {0},
    });
}
