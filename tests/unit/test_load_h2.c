// SPDX-License-Identifier: Apache-2.0
// HTTP/2 of the load engine against a server whose frames are written here one by one, under a clock that stands still.
#include "check.h"
#include "worker.h"

#include <stdio.h>
#include <unistd.h>

enum { FRAME = 9, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, GOAWAY = 7, DATA = 0, END_STREAM = 1, END_HEADERS = 4 };

static const int64_t second = 1000000000;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static struct {
    int64_t clock;
    int listener;
    struct er_load_conn *watched[8], *dead[8];
    size_t dead_count;
    bool finished;
    struct er_plan plan;
    struct er_load_request request;
    struct er_load_target target;
    struct er_load_worker worker;
} sim;

static int64_t sim_now(struct er_load_worker *worker) {
    (void)worker;
    return sim.clock;
}
static enum er_status sim_wake_at(struct er_load_worker *worker, int64_t at) {
    (void)worker, (void)at;
    return ER_OK;
}
static enum er_status sim_watch(struct er_load_conn *conn) {
    for (size_t i = 0; i < 8; i++) {
        if (!sim.watched[i]) {
            sim.watched[i] = conn;
            conn->watcher = &sim.watched[i];
            return ER_OK;
        }
    }
    return ER_NO_MEMORY;
}
static void sim_want_write(struct er_load_conn *conn, bool yes) { (void)conn, (void)yes; }
static void sim_unwatch(struct er_load_conn *conn) {
    *(struct er_load_conn **)conn->watcher = NULL;
    sim.dead[sim.dead_count++] = conn;
}
static void sim_finished(struct er_load_worker *worker) {
    (void)worker;
    sim.finished = true;
}
static const struct er_load_io io = {.now = sim_now,
                                     .wake_at = sim_wake_at,
                                     .watch = sim_watch,
                                     .want_write = sim_want_write,
                                     .unwatch = sim_unwatch,
                                     .finished = sim_finished};

static void look(void) {
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 8; i++) {
            if (sim.watched[i]) {
                er_load_conn_ready(sim.watched[i], true, true);
            }
        }
        er_load_worker_wake(&sim.worker);
        while (sim.dead_count) {
            er_load_conn_free(sim.dead[--sim.dead_count]);
        }
    }
}

// `count` requests at once, 4 streams a connection.
static void begin(size_t count) {
    static const char text[] = "POST /a HTTP/1.1\r\nHost: x\r\nX-Name: value\r\nConnection: close\r\n\r\nbody";
    memset(&sim, 0, sizeof sim);
    sim.clock = 1000 * second;
    snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "test-load-h2-%d", (int)getpid());
    sim.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(bind(sim.listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(sim.listener, 8) == 0);
    int64_t instants[8] = {0};
    CHECK(er_plan_init_instants(&sim.plan, instants, count, NULL) == ER_OK);
    CHECK(er_load_request_init(&sim.request, text, sizeof text - 1, 0, ER_LOAD_H2_PLAIN) == ER_OK);
    sim.target = (struct er_load_target){.requests = &sim.request, .request_count = 1, .address_count = 1};
    sim.target.addresses[0].length = sizeof address;
    memcpy(&sim.target.addresses[0].at, &address, sizeof address);
    struct er_load_config config = {.plan = &sim.plan,
                                    .targets = &sim.target,
                                    .target_count = 1,
                                    .protocol = ER_LOAD_H2_PLAIN,
                                    .streams = 4,
                                    .keep_alive = true,
                                    .timeout = 10 * second,
                                    .max_connections = 4,
                                    .max_body = 100};
    CHECK(er_load_worker_init(&sim.worker, &config, &io) == ER_OK);
    er_load_worker_start(&sim.worker);
}

static uint64_t outcomes(enum er_load_outcome outcome) { return sim.worker.stats.slices[0].outcomes[outcome]; }

static void end(void) {
    er_load_worker_stop(&sim.worker);
    look();
    CHECK(sim.worker.live == 0 && sim.worker.in_flight == 0);
    er_load_worker_release(&sim.worker);
    er_load_request_release(&sim.request);
    er_plan_release(&sim.plan);
    close(sim.listener);
}

static void put(int peer, unsigned type, unsigned flags, unsigned stream, const char *payload, size_t length) {
    unsigned char frame[FRAME + 256] = {0, 0, (unsigned char)length, (unsigned char)type, (unsigned char)flags};
    frame[8] = (unsigned char)stream;
    memcpy(frame + FRAME, payload, length);
    CHECK(send(peer, frame, FRAME + length, MSG_NOSIGNAL) == (ssize_t)(FRAME + length));
}

// The server's settings open the door: what was planned is sent.
static int accept_and_greet(const char *settings, size_t length) {
    int peer = accept4(sim.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(peer >= 0);
    put(peer, SETTINGS, 0, 0, settings, length);
    look();
    return peer;
}

static void ok(int peer, unsigned stream) {
    put(peer, HEADERS, END_HEADERS, stream, "\x88", 1);
    put(peer, DATA, END_STREAM, stream, "fine", 4);
    look();
}

// Frames of a type that the client has sent; all that it has sent so far is taken.
static size_t count_frames(int peer, unsigned wanted, size_t preface) {
    unsigned char bytes[65536];
    ssize_t got = recv(peer, bytes, sizeof bytes, 0);
    size_t count = 0;
    for (size_t at = preface; got > 0 && at + FRAME <= (size_t)got;) {
        count += bytes[at + 3] == wanted;
        at += FRAME + ((size_t)bytes[at] << 16 | (size_t)bytes[at + 1] << 8 | bytes[at + 2]);
    }
    return count;
}

static void requests_share_a_connection_and_answers_find_theirs(void) {
    begin(3);
    int peer = accept_and_greet("", 0);
    CHECK(sim.worker.opened == 1 && sim.worker.in_flight == 3);
    CHECK(count_frames(peer, HEADERS, 24) == 3);
    sim.clock += second;
    ok(peer, 5);
    sim.clock += second;
    ok(peer, 1);
    put(peer, HEADERS, END_HEADERS | END_STREAM, 3, "\x8e", 1); // 500
    look();
    CHECK(outcomes(ER_LOAD_OK) == 2 && outcomes(ER_LOAD_STATUS_5XX) == 1 && sim.finished);
    CHECK(sim.worker.stats.slices[0].latency.min == 1000000 && sim.worker.stats.slices[0].latency.max == 2000000);
    CHECK(sim.worker.stats.examples[0].status == 500);
    close(peer);
    end();
}

static void more_streams_than_the_server_allows_take_more_connections(void) {
    begin(3);
    int peer = accept_and_greet("\0\3\0\0\0\2", 6); // two at one time
    CHECK(sim.worker.opened == 2 && sim.worker.in_flight == 3);
    CHECK(count_frames(peer, HEADERS, 24) == 2);
    close(peer);
    end();
}

static void what_the_server_did_not_take_goes_out_once_more(void) {
    begin(2);
    int peer = accept_and_greet("", 0);
    put(peer, GOAWAY, 0, 0, "\0\0\0\1\0\0\0\0", 8); // the first stream was taken, the second was not
    ok(peer, 1);
    CHECK(outcomes(ER_LOAD_OK) == 1 && sim.worker.resent == 1 && sim.worker.opened == 2);
    int other = accept_and_greet("", 0);
    ok(other, 1);
    CHECK(outcomes(ER_LOAD_OK) == 2 && sim.finished);
    close(peer);
    close(other);
    end();
}

// Servers that say goodbye after a hundred requests do so on connections that were just chosen, too.
static void goodbye_after_goodbye_loses_nothing(void) {
    begin(1);
    int first = accept_and_greet("", 0);
    put(first, GOAWAY, 0, 0, "\0\0\0\0\0\0\0\0", 8);
    look();
    int second_one = accept_and_greet("", 0);
    put(second_one, GOAWAY, 0, 0, "\0\0\0\0\0\0\0\0", 8);
    look();
    CHECK(sim.worker.resent == 2 && outcomes(ER_LOAD_RESET) == 0);
    int last = accept_and_greet("", 0);
    ok(last, 1);
    CHECK(outcomes(ER_LOAD_OK) == 1 && sim.finished);
    close(first);
    close(second_one);
    close(last);
    end();
}

static void a_stream_that_is_reset_is_an_error_and_refused_twice_too(void) {
    begin(2);
    int peer = accept_and_greet("", 0);
    put(peer, RST_STREAM, 0, 1, "\0\0\0\2", 4); // internal error
    look();
    CHECK(outcomes(ER_LOAD_RESET) == 1 && sim.worker.resent == 0);
    put(peer, RST_STREAM, 0, 3, "\0\0\0\7", 4); // refused: goes out as stream 5
    look();
    CHECK(outcomes(ER_LOAD_RESET) == 1 && sim.worker.resent == 1);
    put(peer, RST_STREAM, 0, 5, "\0\0\0\7", 4);
    look();
    CHECK(outcomes(ER_LOAD_RESET) == 2 && sim.worker.resent == 1 && sim.finished);
    close(peer);
    end();
}

static void a_body_over_the_limit_and_a_lost_connection_are_errors(void) {
    static const char long_body[120] = "";
    begin(2);
    int peer = accept_and_greet("", 0);
    put(peer, HEADERS, END_HEADERS, 1, "\x88", 1);
    put(peer, DATA, 0, 1, long_body, sizeof long_body);
    look();
    CHECK(outcomes(ER_LOAD_PROTOCOL) == 1);
    CHECK_STR(sim.worker.stats.examples[0].text, "body over max_body");
    close(peer);
    look();
    CHECK(outcomes(ER_LOAD_RESET) == 1 && sim.finished);
    end();
}

static void a_time_out_takes_the_request_back_and_keeps_the_connection(void) {
    begin(2);
    int peer = accept_and_greet("", 0);
    sim.clock += 2 * second;
    ok(peer, 1);
    count_frames(peer, HEADERS, 24);
    sim.clock += 9 * second;
    look();
    CHECK(outcomes(ER_LOAD_OK) == 1 && outcomes(ER_LOAD_TIMEOUT) == 1 && sim.finished);
    end();
    close(peer);
}

static void a_server_of_http_1_is_told_before_the_first_request(void) {
    begin(1);
    int peer = accept4(sim.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    CHECK(send(peer, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL) == 28);
    look();
    CHECK(sim.finished && sim.worker.error.status == ER_NETWORK && sim.worker.stats.slices[0].planned == 0);
    CHECK_STR(sim.worker.error.message, "cannot connect: the server answers in HTTP/1.1, not HTTP/2");
    close(peer);
    end();
}

int main(void) {
    return check_run((struct check_test[]){
        {"requests_share_a_connection_and_answers_find_theirs", requests_share_a_connection_and_answers_find_theirs},
        {"more_streams_than_the_server_allows_take_more_connections",
         more_streams_than_the_server_allows_take_more_connections},
        {"what_the_server_did_not_take_goes_out_once_more", what_the_server_did_not_take_goes_out_once_more},
        {"goodbye_after_goodbye_loses_nothing", goodbye_after_goodbye_loses_nothing},
        {"a_stream_that_is_reset_is_an_error_and_refused_twice_too",
         a_stream_that_is_reset_is_an_error_and_refused_twice_too},
        {"a_body_over_the_limit_and_a_lost_connection_are_errors",
         a_body_over_the_limit_and_a_lost_connection_are_errors},
        {"a_time_out_takes_the_request_back_and_keeps_the_connection",
         a_time_out_takes_the_request_back_and_keeps_the_connection},
        {"a_server_of_http_1_is_told_before_the_first_request", a_server_of_http_1_is_told_before_the_first_request},
        {0},
    });
}
