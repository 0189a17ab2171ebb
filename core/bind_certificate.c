// SPDX-License-Identifier: Apache-2.0
// crypto.ca_create and crypto.cert_issue.
#include "bind_crypto.h"
#include "certificate.h"

#include <math.h>

#define ISSUE "eirun.crypto.issue"
#define MAX_PEM ((size_t)64 << 10)
#define MAX_NAMES 256

// What one call fills; a userdata, so that a raise in the middle leaks nothing.
struct issue {
    struct er_certificate wanted;
    const char *names[MAX_NAMES]; // owned by the table in `names`, which stays on the stack
    double not_before, not_after;
    struct er_buf cert, key;
};

static int l_issue_close(lua_State *L) {
    struct issue *issue = luaL_checkudata(L, 1, ISSUE);
    er_buf_release(&issue->cert);
    er_buf_release(&issue->key);
    return 0;
}

static struct issue *new_issue(lua_State *L) {
    struct issue *issue = er_handle_new(L, sizeof *issue, ISSUE);
    issue->cert.max = issue->key.max = MAX_PEM;
    issue->key.secret = true;
    issue->wanted.random = er_random_of(L);
    return issue;
}

// Year 1 to 9999: what X.509 can write.
static int64_t whole_seconds(lua_State *L, double seconds) {
    if (!(seconds >= -62135596800.0 && seconds <= 253402300799.0)) {
        luaL_error(L, "not_before and not_after are seconds since 1970");
    }
    return (int64_t)floor(seconds);
}

// Issues what `issue` says and pushes {cert_pem, key_pem}, or nil and the error.
static int push_issued(lua_State *L, struct issue *issue) {
    issue->wanted.not_before_s = whole_seconds(L, issue->not_before);
    issue->wanted.not_after_s = whole_seconds(L, issue->not_after);
    struct er_error err;
    if (er_certificate_issue(&issue->wanted, &issue->cert, &issue->key, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_createtable(L, 0, 2);
    lua_pushlstring(L, issue->cert.data, issue->cert.length);
    lua_setfield(L, -2, "cert_pem");
    er_push_secret(L, issue->key.data, issue->key.length);
    lua_setfield(L, -2, "key_pem");
    er_buf_release(&issue->key);
    return 1;
}

static int l_ca_create(lua_State *L) {
    static const struct er_opt rows[] = {
        {.key = "name", .type = ER_OPT_STRING, .offset = offsetof(struct issue, wanted.common_name), .required = true},
        {.key = "not_before", .type = ER_OPT_NUMBER, .offset = offsetof(struct issue, not_before), .required = true},
        {.key = "not_after", .type = ER_OPT_NUMBER, .offset = offsetof(struct issue, not_after), .required = true},
    };
    lua_settop(L, 1);
    struct issue *issue = new_issue(L);
    er_read_opts(L, 1, rows, sizeof rows / sizeof *rows, issue);
    issue->wanted.authority = true;
    return push_issued(L, issue);
}

// Leaves the list on the stack: it owns the strings.
static void read_names(lua_State *L, struct issue *issue) {
    if (lua_getfield(L, 1, "names") == LUA_TNIL) {
        return;
    }
    luaL_argcheck(L, lua_istable(L, -1), 1, "names is a list of host names and addresses");
    lua_Unsigned count = lua_rawlen(L, -1);
    luaL_argcheck(L, count <= MAX_NAMES, 1, "too many names");
    for (lua_Unsigned i = 0; i < count; i++) {
        int type = lua_rawgeti(L, -1, (lua_Integer)i + 1);
        luaL_argcheck(L, type == LUA_TSTRING, 1, "names is a list of host names and addresses");
        issue->names[i] = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    issue->wanted.names = issue->names;
    issue->wanted.name_count = count;
}

// One half of options.ca: a string or a secret, left on the stack.
static struct er_pem read_pem(lua_State *L, int ca, const char *field) {
    struct er_pem pem = {NULL, 0};
    lua_getfield(L, ca, field);
    pem.bytes = er_to_bytes(L, -1, &pem.length);
    luaL_argcheck(L, pem.bytes, 1, "ca is {cert_pem, key_pem}");
    return pem;
}

static void read_ca(lua_State *L, struct issue *issue) {
    lua_getfield(L, 1, "ca");
    luaL_argcheck(L, lua_istable(L, -1), 1, "ca is {cert_pem, key_pem}");
    int ca = lua_gettop(L);
    issue->wanted.ca_cert = read_pem(L, ca, "cert_pem");
    issue->wanted.ca_key = read_pem(L, ca, "key_pem");
}

static int l_cert_issue(lua_State *L) {
    static const struct er_opt rows[] = {
        {.key = "ca", .type = ER_OPT_ANY, .required = true},
        {.key = "cn", .type = ER_OPT_STRING, .offset = offsetof(struct issue, wanted.common_name), .required = true},
        {.key = "organization", .type = ER_OPT_STRING, .offset = offsetof(struct issue, wanted.organization)},
        {.key = "names", .type = ER_OPT_ANY},
        {.key = "client", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct issue, wanted.client)},
        {.key = "not_before", .type = ER_OPT_NUMBER, .offset = offsetof(struct issue, not_before), .required = true},
        {.key = "not_after", .type = ER_OPT_NUMBER, .offset = offsetof(struct issue, not_after), .required = true},
    };
    lua_settop(L, 1);
    struct issue *issue = new_issue(L);
    er_read_opts(L, 1, rows, sizeof rows / sizeof *rows, issue);
    read_names(L, issue);
    read_ca(L, issue);
    return push_issued(L, issue);
}

void er_add_certificates(lua_State *L) {
    er_handle_type(L, ISSUE, NULL, l_issue_close);
    lua_pushcfunction(L, l_ca_create);
    lua_setfield(L, -2, "ca_create");
    lua_pushcfunction(L, l_cert_issue);
    lua_setfield(L, -2, "cert_issue");
}
