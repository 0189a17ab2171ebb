// SPDX-License-Identifier: Apache-2.0
// eirun.core.db: SQLite, synchronous. Integers keep 64 bits; a string is stored as text where it is UTF-8, else as a
// blob, and comes back as the same bytes; NULL is nil (and json.null goes in as NULL).
#include "bind.h"
#include "db.h"

#include <limits.h>
#include <string.h>

#define DB "eirun.db"

static int push_failure(lua_State *L, const struct er_db *db, const struct er_error *err) {
    lua_pushnil(L);
    er_push_error(L, err);
    lua_pushstring(L, er_db_code_name(db->code));
    lua_setfield(L, -2, "code");
    lua_pushboolean(L, (db->code & 0xff) == SQLITE_BUSY || (db->code & 0xff) == SQLITE_LOCKED);
    lua_setfield(L, -2, "retryable");
    return 2;
}

static int l_close(lua_State *L) {
    struct er_db *db = luaL_checkudata(L, 1, DB);
    if (er_db_in_use(db)) {
        return luaL_error(L, "the database is in use");
    }
    er_db_close(db);
    return 0;
}

static struct er_db *check_db(lua_State *L) {
    struct er_db *db = luaL_checkudata(L, 1, DB);
    luaL_argcheck(L, db->handle, 1, "database is closed");
    return db;
}

static const char *check_sql(lua_State *L) {
    size_t length;
    const char *sql = luaL_checklstring(L, 2, &length);
    luaL_argcheck(L, strlen(sql) == length, 2, "SQL with a NUL byte");
    return sql;
}

struct open_opts {
    const char *mode;
    bool durable;
    int64_t busy_timeout;
};

static enum er_db_mode mode_of(lua_State *L, const char *name) {
    static const char *const names[] = {
        [ER_DB_CREATE] = "create", [ER_DB_WRITE] = "write", [ER_DB_READ] = "read", [ER_DB_MEMORY] = "memory"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            return (enum er_db_mode)i;
        }
    }
    luaL_argerror(L, 2, "mode is create, write, read or memory");
    return ER_DB_CREATE;
}

static int l_open(lua_State *L) {
    static const struct er_opt rows[] = {
        {.key = "mode", .type = ER_OPT_STRING, .offset = offsetof(struct open_opts, mode)},
        {.key = "durable", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct open_opts, durable)},
        {.key = "busy_timeout", .type = ER_OPT_SECONDS, .offset = offsetof(struct open_opts, busy_timeout)},
    };
    struct open_opts read = {.mode = "create", .durable = true, .busy_timeout = INT64_C(5000000000)};
    const char *path = luaL_checkstring(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        er_read_opts(L, 2, rows, sizeof rows / sizeof *rows, &read);
    }
    struct er_db_opts opts = {mode_of(L, read.mode), read.durable, read.busy_timeout};
    struct er_db *db = er_handle_new(L, sizeof *db, DB);
    struct er_error err, named;
    enum er_status status = er_db_open(db, path, &opts, &err);
    if (status != ER_OK) {
        er_fail(&named, status, "cannot open '%s': %s", path, err.message);
        return push_failure(L, db, &named);
    }
    return 1;
}

static int l_exec(lua_State *L) {
    struct er_db *db = check_db(L);
    struct er_error err;
    if (er_db_exec(db, check_sql(L), &err) != ER_OK) {
        return push_failure(L, db, &err);
    }
    lua_pushboolean(L, 1);
    return 1;
}

// Parameters: argument 3 and what follows.

static bool is_null(lua_State *L, int index) {
    return lua_isnil(L, index) || (lua_islightuserdata(L, index) && !lua_touserdata(L, index));
}

static void check_parameters(lua_State *L) {
    for (int i = 3; i <= lua_gettop(L); i++) {
        int type = lua_type(L, i);
        luaL_argcheck(L, type == LUA_TSTRING || type == LUA_TNUMBER || type == LUA_TBOOLEAN || is_null(L, i), i,
                      "a database holds strings, numbers, booleans and nil");
    }
}

static enum er_status bind_one(lua_State *L, struct er_db *db, struct er_db_statement *statement, int index,
                               int argument, struct er_error *err) {
    if (is_null(L, argument)) {
        return er_db_check(db, sqlite3_bind_null(statement->handle, index), err);
    }
    switch (lua_type(L, argument)) {
    case LUA_TSTRING: {
        size_t length;
        const char *bytes = lua_tolstring(L, argument, &length);
        return er_db_bind_bytes(db, statement, index, bytes, length, err);
    }
    case LUA_TBOOLEAN:
        return er_db_check(db, sqlite3_bind_int(statement->handle, index, lua_toboolean(L, argument)), err);
    default:
        return er_db_check(db,
                           lua_isinteger(L, argument)
                               ? sqlite3_bind_int64(statement->handle, index, lua_tointeger(L, argument))
                               : sqlite3_bind_double(statement->handle, index, lua_tonumber(L, argument)),
                           err);
    }
}

static enum er_status bind_all(lua_State *L, struct er_db *db, struct er_db_statement *statement, int count,
                               struct er_error *err) {
    enum er_status status = ER_OK;
    for (int i = 1; status == ER_OK && i <= count; i++) {
        status = bind_one(L, db, statement, i, i + 2, err);
    }
    return status;
}

// One call of run, rows or row. `collect` steps the statement and pushes the results; it runs protected, because a
// statement that a raise left in the middle would keep its lock on the database.
struct call {
    struct er_db *db;
    struct er_db_statement *statement;
    enum er_status status;
    struct er_error err;
};

static int call_protected(lua_State *L, struct call *call, lua_CFunction collect) {
    int base = lua_gettop(L);
    lua_pushcfunction(L, collect);
    lua_pushlightuserdata(L, call);
    int raised = lua_pcall(L, 1, LUA_MULTRET, 0);
    struct er_error *err = call->status == ER_OK ? &call->err : NULL;
    enum er_status finished = er_db_finish(call->db, call->statement, err);
    if (raised) {
        return lua_error(L);
    }
    if (call->status != ER_OK || finished != ER_OK) {
        return push_failure(L, call->db, &call->err);
    }
    return lua_gettop(L) - base;
}

static int run_statement(lua_State *L, lua_CFunction collect) {
    struct call call = {.db = check_db(L)};
    const char *sql = check_sql(L);
    check_parameters(L);
    luaL_checkstack(L, LUA_MINSTACK, "database");
    if (er_db_prepare(call.db, sql, &call.statement, &call.err) != ER_OK) {
        return push_failure(L, call.db, &call.err);
    }
    int wanted = sqlite3_bind_parameter_count(call.statement->handle), given = lua_gettop(L) - 2;
    if (wanted != given) {
        er_db_finish(call.db, call.statement, NULL);
        return luaL_error(L, "the statement has %d parameters and got %d", wanted, given);
    }
    if (bind_all(L, call.db, call.statement, given, &call.err) != ER_OK) {
        er_db_finish(call.db, call.statement, NULL);
        return push_failure(L, call.db, &call.err);
    }
    return call_protected(L, &call, collect);
}

static bool step(struct call *call) {
    bool row = false;
    call->status = er_db_step(call->db, call->statement, &row, &call->err);
    return row;
}

static void push_bytes(lua_State *L, sqlite3_stmt *handle, int column) {
    const void *bytes = sqlite3_column_blob(handle, column); // NULL for no bytes, and when memory ran out
    int length = sqlite3_column_bytes(handle, column);
    if (!bytes && length) {
        luaL_error(L, "not enough memory");
    }
    lua_pushlstring(L, bytes ? bytes : "", bytes ? (size_t)length : 0);
}

static void push_column(lua_State *L, sqlite3_stmt *handle, int column) {
    switch (sqlite3_column_type(handle, column)) {
    case SQLITE_INTEGER:
        lua_pushinteger(L, sqlite3_column_int64(handle, column));
        break;
    case SQLITE_FLOAT:
        lua_pushnumber(L, sqlite3_column_double(handle, column));
        break;
    case SQLITE_NULL:
        lua_pushnil(L);
        break;
    default:
        push_bytes(L, handle, column);
        break;
    }
}

static int collect_changes(lua_State *L) {
    struct call *call = lua_touserdata(L, 1);
    sqlite3_int64 before = sqlite3_total_changes64(call->db->handle);
    while (step(call)) {
    }
    bool changed = sqlite3_total_changes64(call->db->handle) != before;
    lua_pushinteger(L, changed ? sqlite3_changes64(call->db->handle) : 0);
    return 1;
}

static int collect_row(lua_State *L) {
    struct call *call = lua_touserdata(L, 1);
    if (!step(call)) {
        return 0;
    }
    int count = sqlite3_column_count(call->statement->handle);
    luaL_checkstack(L, count + LUA_MINSTACK, "columns");
    for (int i = 0; i < count; i++) {
        push_column(L, call->statement->handle, i);
    }
    return count;
}

static int collect_rows(lua_State *L) {
    struct call *call = lua_touserdata(L, 1);
    lua_newtable(L);
    for (lua_Integer at = 1; step(call); at++) {
        int count = sqlite3_data_count(call->statement->handle); // a step may have learnt of a new schema
        lua_createtable(L, count, 0);
        for (int i = 0; i < count; i++) {
            push_column(L, call->statement->handle, i);
            lua_rawseti(L, -2, i + 1);
        }
        lua_rawseti(L, -2, at);
    }
    return 1;
}

static int l_run(lua_State *L) { return run_statement(L, collect_changes); }
static int l_row(lua_State *L) { return run_statement(L, collect_row); }
static int l_rows(lua_State *L) { return run_statement(L, collect_rows); }

int luaopen_eirun_core_db(lua_State *L);
int luaopen_eirun_core_db(lua_State *L) {
    static const luaL_Reg methods[] = {{"exec", l_exec}, {"run", l_run},     {"row", l_row},
                                       {"rows", l_rows}, {"close", l_close}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", l_open}, {NULL, NULL}};
    er_handle_type(L, DB, methods, l_close);
    luaL_newlib(L, functions);
    return 1;
}
