// SPDX-License-Identifier: Apache-2.0
#include "db.h"
#include "runtime.h"
#include "text.h"

#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

static const struct {
    int code;
    const char *name;
    enum er_status status;
} codes[] = {
    {SQLITE_ERROR, "SQLITE_ERROR", ER_INVALID},
    {SQLITE_INTERNAL, "SQLITE_INTERNAL", ER_INTERNAL},
    {SQLITE_PERM, "SQLITE_PERM", ER_DENIED},
    {SQLITE_ABORT, "SQLITE_ABORT", ER_CANCELLED},
    {SQLITE_BUSY, "SQLITE_BUSY", ER_CONFLICT},
    {SQLITE_LOCKED, "SQLITE_LOCKED", ER_CONFLICT},
    {SQLITE_NOMEM, "SQLITE_NOMEM", ER_NO_MEMORY},
    {SQLITE_READONLY, "SQLITE_READONLY", ER_DENIED},
    {SQLITE_INTERRUPT, "SQLITE_INTERRUPT", ER_CANCELLED},
    {SQLITE_IOERR, "SQLITE_IOERR", ER_INTERNAL},
    {SQLITE_CORRUPT, "SQLITE_CORRUPT", ER_INTERNAL},
    {SQLITE_FULL, "SQLITE_FULL", ER_QUOTA},
    {SQLITE_CANTOPEN, "SQLITE_CANTOPEN", ER_NOT_FOUND},
    {SQLITE_SCHEMA, "SQLITE_SCHEMA", ER_CONFLICT},
    {SQLITE_TOOBIG, "SQLITE_TOOBIG", ER_QUOTA},
    {SQLITE_CONSTRAINT, "SQLITE_CONSTRAINT", ER_CONFLICT},
    {SQLITE_MISMATCH, "SQLITE_MISMATCH", ER_INVALID},
    {SQLITE_MISUSE, "SQLITE_MISUSE", ER_INTERNAL},
    {SQLITE_AUTH, "SQLITE_AUTH", ER_DENIED},
    {SQLITE_RANGE, "SQLITE_RANGE", ER_INVALID},
    {SQLITE_NOTADB, "SQLITE_NOTADB", ER_INVALID},
};

static size_t row_of(int code) {
    size_t i = 0;
    while (i + 1 < sizeof codes / sizeof *codes && codes[i].code != (code & 0xff)) {
        i++;
    }
    return i;
}

const char *er_db_code_name(int code) { return codes[row_of(code)].name; }

enum er_status er_db_check(struct er_db *db, int code, struct er_error *err) {
    if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE) {
        return ER_OK;
    }
    db->code = code;
    db->committing = false;
    return er_fail(err, codes[row_of(code)].status, "%s",
                   db->handle ? sqlite3_errmsg(db->handle) : sqlite3_errstr(code));
}

static int on_commit(void *data) {
    struct er_db *db = data;
    db->committing = true;
    return 0;
}

// The hook runs before the commit; it is done when SQLite is back in autocommit mode without a failure.
static void tell_commit(struct er_db *db) {
    if (db->committing && sqlite3_get_autocommit(db->handle)) {
        db->committing = false;
        er_event("commit");
    }
}

// SQLite would make it readable by all; its journals take over the mode. Only a file that nobody has open may be closed
// here: closing drops the process's locks on it.
static void create_private(const char *path) {
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0) {
        close(fd);
    }
}

static int open_flags(enum er_db_mode mode) {
    switch (mode) {
    case ER_DB_WRITE:
        return SQLITE_OPEN_READWRITE;
    case ER_DB_READ:
        return SQLITE_OPEN_READONLY;
    case ER_DB_MEMORY:
        return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MEMORY;
    default:
        return SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    }
}

static enum er_status configure(struct er_db *db, const struct er_db_opts *opts, struct er_error *err) {
    int64_t busy_ms = opts->busy_timeout_ns / 1000000;
    sqlite3_extended_result_codes(db->handle, 1);
    sqlite3_busy_timeout(db->handle, busy_ms < INT_MAX ? (int)busy_ms : INT_MAX);
    // "name" that is no column is a mistake, not a string.
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    sqlite3_db_config(db->handle, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    sqlite3_commit_hook(db->handle, on_commit, db);
    if (opts->mode == ER_DB_MEMORY || opts->mode == ER_DB_READ) {
        return ER_OK;
    }
    enum er_status status = er_db_exec(db, "pragma journal_mode = wal", err);
    return status == ER_OK
               ? er_db_exec(db, opts->durable ? "pragma synchronous = full" : "pragma synchronous = off", err)
               : status;
}

enum er_status er_db_open(struct er_db *db, const char *path, const struct er_db_opts *opts, struct er_error *err) {
    if (opts->mode == ER_DB_CREATE) {
        create_private(path);
    }
    const char *name = opts->mode == ER_DB_MEMORY ? ":memory:" : path;
    int code = sqlite3_open_v2(name, &db->handle, open_flags(opts->mode) | SQLITE_OPEN_NOMUTEX, NULL);
    enum er_status status = er_db_check(db, code, err);
    if (status == ER_OK) {
        status = configure(db, opts, err);
    }
    if (status != ER_OK) {
        er_db_close(db);
    }
    return status;
}

void er_db_close(struct er_db *db) {
    for (size_t i = 0; i < ER_DB_STATEMENTS; i++) {
        sqlite3_finalize(db->statements[i].handle);
        db->statements[i] = (struct er_db_statement){0};
    }
    sqlite3_finalize(db->spare.handle);
    db->spare = (struct er_db_statement){0};
    sqlite3_close(db->handle);
    db->handle = NULL;
}

bool er_db_in_use(const struct er_db *db) {
    bool busy = db->spare.busy;
    for (size_t i = 0; !busy && i < ER_DB_STATEMENTS; i++) {
        busy = db->statements[i].busy;
    }
    return busy;
}

static bool is_blank(const char *sql) {
    while (isspace((unsigned char)*sql) || *sql == ';') {
        sql++;
    }
    return !*sql;
}

static enum er_status run_to_end(struct er_db *db, sqlite3_stmt *handle, struct er_error *err) {
    int code;
    do {
        code = sqlite3_step(handle);
    } while (code == SQLITE_ROW);
    enum er_status status = er_db_check(db, code, err);
    sqlite3_finalize(handle);
    if (status == ER_OK) {
        tell_commit(db);
    }
    return status;
}

enum er_status er_db_exec(struct er_db *db, const char *sql, struct er_error *err) {
    enum er_status status = ER_OK;
    while (status == ER_OK && *sql) {
        sqlite3_stmt *handle = NULL;
        status = er_db_check(db, sqlite3_prepare_v2(db->handle, sql, -1, &handle, &sql), err);
        if (status == ER_OK && handle) { // NULL for a comment
            status = run_to_end(db, handle, err);
        }
    }
    return status;
}

// FNV-1a.
static uint64_t hash_of(const char *sql, size_t length) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)sql[i]) * 0x100000001b3u;
    }
    return hash;
}

static struct er_db_statement *find(struct er_db *db, const char *sql, size_t length, uint64_t hash) {
    for (size_t i = 0; i < ER_DB_STATEMENTS; i++) {
        struct er_db_statement *one = &db->statements[i];
        if (one->handle && !one->busy && one->hash == hash && one->length == length &&
            memcmp(sqlite3_sql(one->handle), sql, length) == 0) {
            return one;
        }
    }
    return NULL;
}

// An empty place, else the one that was used the longest time ago and is not in use.
static struct er_db_statement *make_room(struct er_db *db) {
    struct er_db_statement *oldest = &db->spare;
    for (size_t i = 0; i < ER_DB_STATEMENTS; i++) {
        struct er_db_statement *one = &db->statements[i];
        if (!one->busy && (oldest == &db->spare || one->used < oldest->used)) {
            oldest = one;
        }
    }
    return oldest;
}

static enum er_status prepare_into(struct er_db *db, struct er_db_statement *place, const char *sql, size_t length,
                                   struct er_error *err) {
    const char *tail = NULL;
    sqlite3_stmt *handle = NULL;
    if (length > INT_MAX - 1) {
        return er_fail(err, ER_QUOTA, "SQL is too long");
    }
    int code = sqlite3_prepare_v3(db->handle, sql, (int)length + 1, SQLITE_PREPARE_PERSISTENT, &handle, &tail);
    enum er_status status = er_db_check(db, code, err);
    if (status == ER_OK && (!handle || !is_blank(tail))) {
        sqlite3_finalize(handle);
        db->code = SQLITE_ERROR;
        return er_fail(err, ER_INVALID, handle ? "more than one statement" : "no statement");
    }
    if (status == ER_OK) {
        sqlite3_finalize(place->handle);
        *place = (struct er_db_statement){.handle = handle, .length = strlen(sqlite3_sql(handle))};
        place->hash = hash_of(sqlite3_sql(handle), place->length);
    }
    return status;
}

enum er_status er_db_prepare(struct er_db *db, const char *sql, struct er_db_statement **statement,
                             struct er_error *err) {
    size_t length = strlen(sql);
    struct er_db_statement *one = find(db, sql, length, hash_of(sql, length));
    if (!one) {
        one = make_room(db);
        if (one->busy) {
            return er_fail(err, ER_CONFLICT, "too many statements in use");
        }
        enum er_status status = prepare_into(db, one, sql, length, err);
        if (status != ER_OK) {
            return status;
        }
    }
    one->used = ++db->clock;
    one->busy = true;
    *statement = one;
    return ER_OK;
}

enum er_status er_db_bind_bytes(struct er_db *db, struct er_db_statement *statement, int index, const char *bytes,
                                size_t length, struct er_error *err) {
    int code = er_utf8_valid(bytes, length)
                   ? sqlite3_bind_text64(statement->handle, index, bytes, length, SQLITE_STATIC, SQLITE_UTF8)
                   : sqlite3_bind_blob64(statement->handle, index, bytes, length, SQLITE_STATIC);
    return er_db_check(db, code, err);
}

enum er_status er_db_step(struct er_db *db, struct er_db_statement *statement, bool *row, struct er_error *err) {
    int code = sqlite3_step(statement->handle);
    *row = code == SQLITE_ROW;
    enum er_status status = er_db_check(db, code, err);
    if (code == SQLITE_DONE) {
        tell_commit(db);
    }
    return status;
}

// A statement that returned rows commits only here. Its code repeats the failure of the last step.
enum er_status er_db_finish(struct er_db *db, struct er_db_statement *statement, struct er_error *err) {
    enum er_status status = er_db_check(db, sqlite3_reset(statement->handle), err);
    sqlite3_clear_bindings(statement->handle);
    statement->busy = false;
    if (status == ER_OK) {
        tell_commit(db);
    }
    return status;
}
