// SPDX-License-Identifier: Apache-2.0
// eirun.core.oss: start(opts) -> engine | nil, err; engine:keys(id, secret, token); engine:submit(tag, op);
// engine:wait() -> results; engine:moved(); engine:close(). authorization(opts) for tests of the signature.
#include "address.h"
#include "bind.h"
#include "engine.h"
#include "text.h"

#include <string.h>

int luaopen_eirun_core_oss(lua_State *L);

static const char *const engine_type = "eirun.oss.engine";

struct box {
    struct er_oss_engine *engine; // NULL: closed
};

struct options {
    const char *unix_path, *address, *host, *base, *bucket, *region, *agent, *tls_host, *ca_file;
    int64_t port, connections, attempts, connect_timeout, stall_timeout;
    double bandwidth;
    bool verify;
};

static const struct er_opt option_rows[] = {
    {"unix", ER_OPT_STRING, offsetof(struct options, unix_path), 0, false},
    {"address", ER_OPT_STRING, offsetof(struct options, address), 0, false},
    {"port", ER_OPT_INTEGER, offsetof(struct options, port), 0, false},
    {"host", ER_OPT_STRING, offsetof(struct options, host), 0, true},
    {"base", ER_OPT_STRING, offsetof(struct options, base), 0, true},
    {"bucket", ER_OPT_STRING, offsetof(struct options, bucket), 0, true},
    {"region", ER_OPT_STRING, offsetof(struct options, region), 0, true},
    {"agent", ER_OPT_STRING, offsetof(struct options, agent), 0, false},
    {"tls", ER_OPT_STRING, offsetof(struct options, tls_host), 0, false}, // the host that must prove itself
    {"ca_file", ER_OPT_STRING, offsetof(struct options, ca_file), 0, false},
    {"verify", ER_OPT_BOOLEAN, offsetof(struct options, verify), 0, false},
    {"connections", ER_OPT_INTEGER, offsetof(struct options, connections), 0, false},
    {"attempts", ER_OPT_INTEGER, offsetof(struct options, attempts), 0, false},
    {"bandwidth", ER_OPT_NUMBER, offsetof(struct options, bandwidth), 0, false},
    {"connect_timeout", ER_OPT_SECONDS, offsetof(struct options, connect_timeout), 0, false},
    {"stall_timeout", ER_OPT_SECONDS, offsetof(struct options, stall_timeout), 0, false},
};

// ---- opening and closing

static struct er_oss_engine *check_engine(lua_State *L) {
    struct box *box = luaL_checkudata(L, 1, engine_type);
    if (!box->engine) {
        luaL_error(L, "this engine is closed");
    }
    return box->engine;
}

static int l_close(lua_State *L) {
    struct box *box = luaL_checkudata(L, 1, engine_type);
    if (box->engine) {
        struct er_oss_engine *engine = box->engine;
        box->engine = NULL;
        er_op_done(&engine->waiting);
        er_oss_engine_free(engine);
    }
    return 0;
}

static enum er_status set_peer(const struct options *o, struct er_oss_peer *peer, struct er_error *err) {
    peer->connect_ms = (int)(o->connect_timeout / 1000000);
    peer->stall_ms = (int)(o->stall_timeout / 1000000);
    er_text_copy(peer->name, sizeof peer->name, o->host);
    return o->unix_path
               ? er_address_unix(&peer->address, &peer->address_length, o->unix_path, err)
               : er_address_inet(&peer->address, &peer->address_length, o->address ? o->address : "", o->port, err);
}

static enum er_status set_options(const struct options *o, struct er_oss_options *into, struct er_error *err) {
    if (o->connections < 1 || o->connections > 1024 || o->attempts < 1 || o->attempts > 100 || o->bandwidth < 0) {
        return er_fail(err, ER_INVALID, "connections, attempts or bandwidth is out of range");
    }
    into->connections = (size_t)o->connections;
    into->attempts = (int)o->attempts;
    into->bandwidth = o->bandwidth;
    if (!er_text_copy(into->host, sizeof into->host, o->host) ||
        !er_text_copy(into->base, sizeof into->base, o->base) ||
        !er_text_copy(into->bucket, sizeof into->bucket, o->bucket) ||
        !er_text_copy(into->region, sizeof into->region, o->region) ||
        !er_text_copy(into->agent, sizeof into->agent, o->agent ? o->agent : "eirun")) {
        return er_fail(err, ER_INVALID, "host, base, bucket, region or agent is too long");
    }
    return set_peer(o, &into->peer, err);
}

static int l_start(lua_State *L) {
    struct options o = {
        .connections = 16, .attempts = 6, .connect_timeout = 10000000000, .stall_timeout = 60000000000, .verify = true};
    struct er_oss_options options = {.attempts = 0};
    struct er_error err;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    er_read_opts(L, 1, option_rows, sizeof option_rows / sizeof *option_rows, &o);
    struct box *box = er_handle_new(L, sizeof *box, engine_type);
    if (set_options(&o, &options, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    struct er_runtime *rt = er_runtime_of(L);
    struct er_tls_options tls = {o.tls_host, o.ca_file, NULL, o.verify, false, er_now(rt)};
    if (er_oss_engine_new(rt, &options, o.tls_host ? &tls : NULL, &box->engine, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    return 1;
}

// keys(id, secret[, token]): for all requests from now on.
static int l_keys(lua_State *L) {
    struct er_oss_engine *engine = check_engine(L);
    struct er_oss_key id, secret, token = {.bytes = NULL};
    id.bytes = luaL_checklstring(L, 2, &id.length);
    secret.bytes = er_check_bytes(L, 3, &secret.length); // of a secret: no NUL at its end
    token.bytes = lua_isnoneornil(L, 4) ? NULL : er_check_bytes(L, 4, &token.length);
    if (er_oss_engine_keys(engine, id, secret, token) != ER_OK) {
        return luaL_error(L, "not enough memory for keys");
    }
    return 0;
}

// ---- operations

// Strings go behind the pairs; the first walk only measures.
struct packer {
    char *at; // NULL: measuring
    size_t size;
};

static const char *pack(struct packer *packer, const char *text, size_t length) {
    const char *start = packer->at;
    packer->size += length + 1;
    if (packer->at) {
        memcpy(packer->at, text, length);
        packer->at[length] = '\0';
        packer->at += length + 1;
    }
    return start;
}

// NULL when the field is nil. [-0, +0, v]
static const char *pack_field(lua_State *L, int table, const char *key, struct packer *packer, bool required) {
    int type = lua_getfield(L, table, key);
    const char *packed = NULL;
    if (type == LUA_TSTRING) {
        size_t length;
        const char *text = lua_tolstring(L, -1, &length);
        luaL_argcheck(L, strlen(text) == length, table, "a NUL in a string");
        packed = pack(packer, text, length);
    } else if (required || type != LUA_TNIL) {
        luaL_error(L, "option '%s' must be a string", key);
    }
    lua_pop(L, 1);
    return packed;
}

static bool is_plain(const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static void insert(struct er_oss_pair *pairs, size_t count, const char *name, const char *value) {
    size_t at = count;
    while (at && strcmp(pairs[at - 1].name, name) > 0) {
        pairs[at] = pairs[at - 1];
        at--;
    }
    pairs[at] = (struct er_oss_pair){name, value};
}

// Pairs of the table at `key`, in the order of their names. `pairs` may be NULL while measuring. [-0, +0, v]
static size_t pack_pairs(lua_State *L, int table, const char *key, struct packer *packer, struct er_oss_pair *pairs) {
    size_t count = 0;
    if (lua_getfield(L, table, key) == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1), count++) {
            size_t name_length, value_length;
            luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING && lua_isstring(L, -1), table,
                          "names and values are strings");
            const char *name = lua_tolstring(L, -2, &name_length);
            const char *value = lua_tolstring(L, -1, &value_length); // only the value is turned into a string
            luaL_argcheck(L, is_plain(name, name_length) && is_plain(value, value_length), table,
                          "a control character in a header or a query");
            name = pack(packer, name, name_length);
            value = pack(packer, value, value_length);
            if (pairs) {
                insert(pairs, count, name, value);
            }
        }
    }
    lua_pop(L, 1);
    return count;
}

static void pack_strings(lua_State *L, int table, struct packer *packer, struct er_oss_op *op) {
    op->key = pack_field(L, table, "key", packer, true);
    op->path = pack_field(L, table, "path", packer, true);
    op->target = pack_field(L, table, "target", packer, false);
    op->query_count = pack_pairs(L, table, "query", packer, op->query);
    op->header_count = pack_pairs(L, table, "headers", packer, op->headers);
}

static int64_t integer_of(lua_State *L, int table, const char *key, int64_t otherwise) {
    int is_integer = 0;
    int type = lua_getfield(L, table, key);
    int64_t value = lua_tointegerx(L, -1, &is_integer);
    lua_pop(L, 1);
    if (type != LUA_TNIL && !is_integer) {
        luaL_error(L, "option '%s' must be an integer", key);
    }
    return is_integer ? value : otherwise;
}

// known = { crc = integer, md5 = sixteen bytes }
static void read_known(lua_State *L, int table, struct er_oss_op *op) {
    if (lua_getfield(L, table, "known") == LUA_TTABLE) {
        int known = lua_gettop(L);
        size_t length = 0;
        op->has_crc_there = lua_getfield(L, known, "crc") != LUA_TNIL;
        op->crc_there = (uint64_t)lua_tointeger(L, -1);
        lua_getfield(L, known, "md5");
        const char *md5 = lua_tolstring(L, -1, &length);
        op->has_md5_there = length == sizeof op->md5_there;
        if (op->has_md5_there) {
            memcpy(op->md5_there, md5, length);
        }
        lua_pop(L, 2);
    }
    lua_pop(L, 1);
}

static void read_numbers(lua_State *L, int table, struct er_oss_op *op) {
    op->offset = integer_of(L, table, "offset", 0);
    op->length = integer_of(L, table, "length", 0);
    op->size = integer_of(L, table, "size", -1);
    luaL_argcheck(L, op->offset >= 0 && op->length >= 0, table, "offset and length must not be negative");
    lua_getfield(L, table, "part_of_object");
    op->part = lua_toboolean(L, -1);
    lua_pop(L, 1);
    read_known(L, table, op);
}

static enum er_oss_action action_of(lua_State *L, int table) {
    static const char *const names[] = {"send", "fetch", "allocate", NULL};
    lua_getfield(L, table, "action");
    int action = luaL_checkoption(L, -1, NULL, names);
    lua_pop(L, 1);
    return (enum er_oss_action)action;
}

// All that may raise is done before there is memory to lose; the second walk reads the same values.
static struct er_oss_op *read_op(lua_State *L, int table) {
    struct er_oss_op probe = {.tag = luaL_checkinteger(L, table - 1), .action = action_of(L, table)};
    struct packer packer = {.at = NULL};
    pack_strings(L, table, &packer, &probe);
    read_numbers(L, table, &probe);
    size_t count = probe.query_count + probe.header_count;
    struct er_oss_op *op = er_calloc(1, sizeof *op + count * sizeof *op->pairs + packer.size);
    if (!op) {
        luaL_error(L, "not enough memory for an operation");
        return NULL;
    }
    *op = probe;
    op->query = op->pairs;
    op->headers = op->pairs + probe.query_count;
    packer = (struct packer){.at = (char *)(op->pairs + count)};
    pack_strings(L, table, &packer, op);
    return op;
}

// submit(tag, op): the result comes with wait().
static int l_submit(lua_State *L) {
    struct er_oss_engine *engine = check_engine(L);
    struct er_error err;
    luaL_checktype(L, 3, LUA_TTABLE);
    lua_settop(L, 3);
    struct er_oss_op *op = read_op(L, 3);
    if (er_oss_engine_submit(engine, op, &err) != ER_OK) {
        er_oss_op_free(op);
        return er_push_fail(L, &err);
    }
    lua_pushboolean(L, true);
    return 1;
}

// ---- results

static void set_text(lua_State *L, const char *key, const char *text) {
    if (text && *text) {
        lua_pushstring(L, text);
        lua_setfield(L, -2, key);
    }
}

static void set_integer(lua_State *L, const char *key, int64_t value) {
    lua_pushinteger(L, value);
    lua_setfield(L, -2, key);
}

static void set_flag(lua_State *L, const char *key, bool value) {
    if (value) {
        lua_pushboolean(L, true);
        lua_setfield(L, -2, key);
    }
}

static void push_result(lua_State *L, const struct er_oss_op *op) {
    lua_createtable(L, 0, 8);
    set_integer(L, "tag", op->tag);
    set_integer(L, "status", op->status);
    set_integer(L, "crc", (int64_t)op->crc);
    set_integer(L, "length", op->length);
    set_integer(L, "resent", op->resent);
    set_integer(L, "retried", op->retried);
    set_text(L, "etag", op->etag);
    set_text(L, "request_id", op->request_id);
    set_text(L, "ec", op->ec);
    set_text(L, "location", op->location);
    set_text(L, "body", op->body);
    set_flag(L, "skipped", op->skipped);
    set_flag(L, "rotten", op->rotten);
    if (op->error.status != ER_OK) {
        er_push_error(L, &op->error);
        lua_setfield(L, -2, "error");
    }
}

// The list is freed by its owner, whatever is raised here.
struct results {
    struct er_oss_op *first;
};
static const char *const results_type = "eirun.oss.results";

static int l_results_close(lua_State *L) {
    struct results *results = luaL_checkudata(L, 1, results_type);
    while (results->first) {
        struct er_oss_op *op = results->first;
        results->first = op->next;
        er_oss_op_free(op);
    }
    return 0;
}

static int push_done(lua_State *L, struct er_oss_engine *engine) {
    struct results *results = er_handle_new(L, sizeof *results, results_type);
    int owner = lua_gettop(L);
    lua_newtable(L);
    results->first = er_oss_engine_take(engine);
    lua_Integer n = 0;
    while (results->first) {
        struct er_oss_op *op = results->first;
        push_result(L, op);
        lua_rawseti(L, -2, ++n);
        results->first = op->next;
        er_oss_op_free(op);
    }
    lua_remove(L, owner);
    return 1;
}

static int k_wait(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    er_task_check(L);
    struct er_oss_engine *engine = ((struct box *)luaL_checkudata(L, 1, engine_type))->engine;
    if (!engine) {
        lua_newtable(L); // closed meanwhile: nothing comes any more
        return 1;
    }
    return push_done(L, engine);
}

static void cancel_wait(struct er_op *op) { er_op_done(op); }

// wait(): results of what has ended, at least one unless it was woken for nothing.
static int l_wait(lua_State *L) {
    struct er_oss_engine *engine = check_engine(L);
    er_task_check_yieldable(L, "engine:wait");
    er_task_check(L);
    if (er_op_waiting(&engine->waiting)) {
        return luaL_error(L, "another task waits for this engine");
    }
    if (er_oss_engine_has_done(engine)) {
        return push_done(L, engine);
    }
    return er_op_wait(L, &engine->waiting, cancel_wait, k_wait, 0);
}

static int l_moved(lua_State *L) {
    lua_pushinteger(L, atomic_load(&check_engine(L)->moved));
    return 1;
}

// ---- the signature alone

struct signing {
    const char *method, *bucket, *key, *region, *id, *secret, *date;
};

static const struct er_opt signing_rows[] = {
    {"method", ER_OPT_STRING, offsetof(struct signing, method), 0, true},
    {"bucket", ER_OPT_STRING, offsetof(struct signing, bucket), 0, false},
    {"key", ER_OPT_STRING, offsetof(struct signing, key), 0, false},
    {"region", ER_OPT_STRING, offsetof(struct signing, region), 0, true},
    {"id", ER_OPT_STRING, offsetof(struct signing, id), 0, true},
    {"secret", ER_OPT_STRING, offsetof(struct signing, secret), 0, true},
    {"date", ER_OPT_STRING, offsetof(struct signing, date), 0, true},
    {"query", ER_OPT_ANY, 0, 0, false},
    {"headers", ER_OPT_ANY, 0, 0, false},
};

static struct er_oss_pair *read_pairs(lua_State *L, const char *key, size_t *count) {
    struct packer packer = {.at = NULL};
    *count = pack_pairs(L, 1, key, &packer, NULL);
    struct er_oss_pair *pairs = lua_newuserdatauv(L, (*count + 1) * sizeof *pairs + packer.size, 0);
    packer = (struct packer){.at = (char *)(pairs + *count + 1)};
    pack_pairs(L, 1, key, &packer, pairs);
    return pairs;
}

// authorization{method=, bucket=, key=, query=, headers=, region=, id=, secret=, date=}: the header's value.
static int l_authorization(lua_State *L) {
    struct signing s = {.key = ""};
    struct er_oss_signer signer;
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    er_read_opts(L, 1, signing_rows, sizeof signing_rows / sizeof *signing_rows, &s);
    struct er_oss_request request = {.method = s.method, .bucket = s.bucket, .key = s.key};
    request.query = read_pairs(L, "query", &request.query_count);
    request.headers = read_pairs(L, "headers", &request.header_count);
    struct er_buf scratch = {.max = 65536}, text = {.max = 4096};
    bool ok = er_oss_signer_set(&signer, s.id, s.secret, s.region) == ER_OK &&
              er_oss_sign(&signer, &request, s.date, &scratch, &text) == ER_OK;
    lua_pushstring(L, ok ? text.data : NULL);
    er_oss_signer_wipe(&signer);
    er_buf_release(&scratch);
    er_buf_release(&text);
    return 1;
}

static const luaL_Reg engine_methods[] = {
    {"keys", l_keys}, {"submit", l_submit}, {"wait", l_wait}, {"moved", l_moved}, {"close", l_close}, {NULL, NULL},
};

static const luaL_Reg functions[] = {{"start", l_start}, {"authorization", l_authorization}, {NULL, NULL}};

int luaopen_eirun_core_oss(lua_State *L) {
    er_handle_type(L, engine_type, engine_methods, l_close);
    er_handle_type(L, results_type, NULL, l_results_close);
    luaL_newlib(L, functions);
    return 1;
}
