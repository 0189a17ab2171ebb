// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "db.h"
#include "runtime.h"

static int events;

void er_event(const char *what) {
    CHECK_STR(what, "commit");
    events++;
}

static void open_memory(struct er_db *db) {
    struct er_error err = {0};
    *db = (struct er_db){0};
    CHECK(er_db_open(db, "", &(struct er_db_opts){.mode = ER_DB_MEMORY}, &err) == ER_OK);
    CHECK(er_db_exec(db, "create table x (a unique)", &err) == ER_OK);
    events = 0;
}

static enum er_status run(struct er_db *db, const char *sql) {
    struct er_error err;
    return er_db_exec(db, sql, &err);
}

static enum er_status run_prepared(struct er_db *db, const char *sql, int steps) {
    struct er_error err;
    struct er_db_statement *statement;
    bool row;
    enum er_status status = er_db_prepare(db, sql, &statement, &err);
    for (int i = 0; status == ER_OK && i < steps; i++) {
        status = er_db_step(db, statement, &row, &err);
    }
    enum er_status finished = er_db_finish(db, statement, NULL);
    return status == ER_OK ? finished : status;
}

static void each_commit_is_one_event(void) {
    struct er_db db;
    open_memory(&db);
    CHECK(run(&db, "insert into x values (1)") == ER_OK && events == 1);
    CHECK(run(&db, "begin; insert into x values (2); insert into x values (3)") == ER_OK && events == 1);
    CHECK(run(&db, "commit") == ER_OK && events == 2);
    CHECK(run(&db, "insert into x values (4); insert into x values (5)") == ER_OK && events == 4);
    CHECK(run_prepared(&db, "insert into x values (6)", 1) == ER_OK && events == 5);
    er_db_close(&db);
}

static void what_changes_nothing_for_good_is_no_event(void) {
    struct er_db db;
    open_memory(&db);
    CHECK(run(&db, "select * from x; begin; commit") == ER_OK && events == 0);
    CHECK(run(&db, "begin; insert into x values (1); rollback") == ER_OK && events == 0);
    CHECK(run(&db, "insert into x values (1)") == ER_OK && events == 1);
    CHECK(run(&db, "insert into x values (1)") == ER_CONFLICT && events == 1);
    CHECK(run(&db, "select 1") == ER_OK && events == 1);
    er_db_close(&db);
}

static void a_statement_that_returns_rows_commits_when_it_is_finished(void) {
    struct er_db db;
    open_memory(&db);
    CHECK(run_prepared(&db, "insert into x values (1) returning a", 1) == ER_OK);
    CHECK(events == 1);
    er_db_close(&db);
}

static void statements_are_kept_and_a_busy_one_is_not_shared(void) {
    struct er_db db;
    open_memory(&db);
    struct er_error err;
    struct er_db_statement *one, *again, *second;
    CHECK(er_db_prepare(&db, "select 1", &one, &err) == ER_OK);
    sqlite3_stmt *handle = one->handle;
    CHECK(er_db_in_use(&db));
    CHECK(er_db_prepare(&db, "select 1", &second, &err) == ER_OK);
    CHECK(second->handle != handle);
    CHECK(er_db_finish(&db, second, &err) == ER_OK);
    CHECK(er_db_finish(&db, one, &err) == ER_OK);
    CHECK(er_db_prepare(&db, "select 1", &again, &err) == ER_OK);
    CHECK(again->handle == handle);
    CHECK(er_db_finish(&db, again, &err) == ER_OK);
    CHECK(!er_db_in_use(&db));
    er_db_close(&db);
}

static void more_statements_than_places_are_refused_and_not_mixed_up(void) {
    struct er_db db;
    open_memory(&db);
    struct er_error err;
    struct er_db_statement *statements[ER_DB_STATEMENTS + 1], *extra;
    char sql[32];
    for (int i = 0; i <= ER_DB_STATEMENTS; i++) {
        snprintf(sql, sizeof sql, "select %d", i);
        CHECK(er_db_prepare(&db, sql, &statements[i], &err) == ER_OK);
    }
    CHECK(er_db_prepare(&db, "select -1", &extra, &err) == ER_CONFLICT);
    for (int i = 0; i <= ER_DB_STATEMENTS; i++) {
        bool row = false;
        CHECK(er_db_step(&db, statements[i], &row, &err) == ER_OK && row);
        CHECK(sqlite3_column_int(statements[i]->handle, 0) == i);
        CHECK(er_db_finish(&db, statements[i], &err) == ER_OK);
    }
    er_db_close(&db);
    er_db_close(&db);
}

int main(void) {
    return check_run((struct check_test[]){
        {"each_commit_is_one_event", each_commit_is_one_event},
        {"what_changes_nothing_for_good_is_no_event", what_changes_nothing_for_good_is_no_event},
        {"a_statement_that_returns_rows_commits_when_it_is_finished",
         a_statement_that_returns_rows_commits_when_it_is_finished},
        {"statements_are_kept_and_a_busy_one_is_not_shared", statements_are_kept_and_a_busy_one_is_not_shared},
        {"more_statements_than_places_are_refused_and_not_mixed_up",
         more_statements_than_places_are_refused_and_not_mixed_up},
        {0},
    });
}
