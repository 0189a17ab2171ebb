// SPDX-License-Identifier: Apache-2.0
// One SQLite database, used from one thread, with its prepared statements kept. No Lua here.
#ifndef EIRUN_DB_H
#define EIRUN_DB_H

#include "er.h"

#include <sqlite3.h>

enum er_db_mode {
    ER_DB_CREATE, // read and write, made when it does not exist (readable by its owner alone)
    ER_DB_WRITE,  // read and write, must exist
    ER_DB_READ,
    ER_DB_MEMORY, // nothing on disk
};
struct er_db_opts {
    enum er_db_mode mode;
    bool durable;            // a commit survives a power cut; without it, the death of the process
    int64_t busy_timeout_ns; // how long a statement waits for another process
};

#define ER_DB_STATEMENTS 64
struct er_db_statement {
    sqlite3_stmt *handle;
    size_t length; // of its SQL
    uint64_t hash;
    uint64_t used; // when, counted in statements
    bool busy;
};
// Zero-initialised it is closed; open, it must not move. The statements below stay valid until the next er_db_prepare
// or er_db_close.
struct er_db {
    sqlite3 *handle;
    int code; // SQLite's, of the last failure
    bool committing;
    uint64_t clock;
    struct er_db_statement statements[ER_DB_STATEMENTS];
    struct er_db_statement spare; // when all others are busy: prepared for one use
};

enum er_status er_db_open(struct er_db *db, const char *path, const struct er_db_opts *opts, struct er_error *err);
void er_db_close(struct er_db *db);        // may run twice
bool er_db_in_use(const struct er_db *db); // a statement was prepared and not yet finished

// Runs all statements of a script. Each commit is an er_event.
enum er_status er_db_exec(struct er_db *db, const char *sql, struct er_error *err);

// One statement, ready to bind; er_db_finish it, whatever happens.
enum er_status er_db_prepare(struct er_db *db, const char *sql, struct er_db_statement **statement,
                             struct er_error *err);
enum er_status er_db_bind_bytes(struct er_db *db, struct er_db_statement *statement, int index, const char *bytes,
                                size_t length,
                                struct er_error *err); // text where it is UTF-8, else a blob; not copied
// `*row` says whether there is one to read.
enum er_status er_db_step(struct er_db *db, struct er_db_statement *statement, bool *row, struct er_error *err);
enum er_status er_db_finish(struct er_db *db, struct er_db_statement *statement, struct er_error *err);

// ER_OK or the failure that SQLite's `code` means, with SQLite's words.
enum er_status er_db_check(struct er_db *db, int code, struct er_error *err);
// "SQLITE_BUSY" and so on.
const char *er_db_code_name(int code);

#endif
