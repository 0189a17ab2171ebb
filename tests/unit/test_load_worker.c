// SPDX-License-Identifier: Apache-2.0
// The worker's open loop: when requests go out, what their latency is, how answers are judged.
#include "load_sim.h"

static void latency_is_the_servers_to_the_microsecond(void) {
    begin(after_20_ms, ok_answer);
    struct er_plan plan;
    steady(&plan, 100, 5);
    struct er_load_config config = config_of(&plan);
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->planned == 500 && whole->outcomes[ER_LOAD_OK] == 500);
    CHECK(er_hdr_percentile(&whole->latency, 1) >= 20000 && er_hdr_percentile(&whole->latency, 99.9) <= 20000);
    CHECK(er_hdr_mean(&whole->latency) == 20000);
    CHECK(worker.ended == 4990000000 + 20000000);
    CHECK(worker.opened <= 3); // two in flight at most: 20 ms at 100/s
    for (size_t i = 0; i < 5; i++) {
        struct er_load_second s = er_load_stats_second(&worker.stats, i);
        CHECK(s.planned == 100 && s.sent == 100 && s.ok == 100 && s.errors == 0 && s.in_flight <= 3);
        CHECK(s.percentiles[ER_LOAD_P50] == 20000 && s.percentiles[3] == 20000);
    }
    CHECK(er_hdr_percentile(&worker.stats.lateness, 100) == 0);
    end(&worker, &plan);
}

static void many_requests_leave_together_but_none_is_late_by_more_than_it_may_be(void) {
    static const struct {
        double rate;
        uint64_t late, least, most; // most of all lateness; alarms
    } cases[] = {{500, 0, 99, 100}, {5000, 0, 999, 1000}, {15000, 67, 1500, 1700}, {100000, 100, 1800, 2100}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(at_once, ok_answer);
        struct er_plan plan;
        steady(&plan, cases[i].rate, 0.2);
        struct er_load_config config = config_of(&plan);
        config.gather = 100000;
        struct er_load_worker worker;
        start(&worker, &config);
        run_until(&worker, 2000 * second);
        CHECK(sim.finished && worker.stats.slices[0].outcomes[ER_LOAD_OK] == (uint64_t)(cases[i].rate / 5));
        CHECK(worker.stats.lateness.max <= cases[i].late);
        CHECK(sim.alarms >= cases[i].least && sim.alarms <= cases[i].most);
        end(&worker, &plan);
    }
}

static void a_pause_of_the_server_is_seen_by_every_request_that_fell_into_it(void) {
    begin(pausing, ok_answer);
    struct er_plan plan;
    steady(&plan, 100, 20);
    struct er_load_config config = config_of(&plan);
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_hdr *latency = &worker.stats.slices[0].latency;
    CHECK(latency->total == 2000);
    // A tenth of the requests waited 1 s down to 0: p95 is half a second. One connection in a closed loop would have
    // met the pause twice in 2000 requests and called p99 instant.
    CHECK(er_hdr_percentile(latency, 90) <= 10010);
    CHECK(er_hdr_percentile(latency, 95) >= 499000 && er_hdr_percentile(latency, 95) <= 511000);
    CHECK(er_hdr_percentile(latency, 100) == 1000000);
    CHECK(er_load_stats_second(&worker.stats, 0).in_flight >= 99);
    CHECK(worker.opened >= 99);
    end(&worker, &plan);
}

static void time_outs_count_as_their_time_out_and_close_the_connection(void) {
    begin(never, ok_answer);
    struct er_plan plan;
    steady(&plan, 10, 2);
    struct er_load_config config = config_of(&plan);
    config.timeout = 3 * second;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->outcomes[ER_LOAD_TIMEOUT] == 20);
    CHECK(whole->latency.min == 3000000 && whole->latency.max == 3000000);
    CHECK(worker.ended == 1900000000 + 3 * second);
    CHECK(worker.stats.seconds[4].in_flight > 0); // what hangs shows in the seconds in which nothing is sent
    end(&worker, &plan);
}

static int64_t after_1_s(int64_t now) {
    (void)now;
    return 1000000000;
}

static void the_cap_delays_requests_but_not_their_clocks(void) {
    begin(after_1_s, ok_answer);
    struct er_plan plan;
    steady(&plan, 10, 2);
    struct er_load_config config = config_of(&plan);
    config.max_connections = 5; // 5/s served, 10/s planned
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(whole->outcomes[ER_LOAD_OK] == 20 && worker.opened == 5 && worker.unsent == 0);
    CHECK(worker.capped == 15);           // all but the first five waited
    CHECK(whole->latency.max == 2500000); // the last one: planned at 1.9, sent at 3.4, answered at 4.4
    end(&worker, &plan);
}

static void what_waits_longer_than_its_time_out_is_never_sent(void) {
    begin(never, ok_answer);
    struct er_plan plan;
    CHECK(er_plan_init_instants(&plan, (int64_t[]){0, 0, 0}, 3, NULL) == ER_OK);
    struct er_load_config config = config_of(&plan);
    config.max_connections = 1;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->planned == 3 && whole->outcomes[ER_LOAD_TIMEOUT] == 3);
    CHECK(worker.unsent == 2 && worker.capped == 2 && worker.stats.sent == 1);
    CHECK(whole->latency.min == 10000000 && whole->latency.max == 10000000);
    end(&worker, &plan);
}

static void a_client_gives_up_when_its_time_is_over_however_late_it_was_sent(void) {
    begin(after_1_s, ok_answer);
    struct er_plan plan;
    steady(&plan, 10, 10);
    struct er_load_config config = config_of(&plan);
    config.max_connections = 2;
    config.timeout = 2 * second;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->planned == 100 && er_load_slice_done(whole) == 100);
    CHECK(whole->outcomes[ER_LOAD_TIMEOUT] > 50 && whole->latency.max == 2000000);
    CHECK(er_hdr_percentile(&worker.stats.lateness, 50) > 1000000);
    end(&worker, &plan);
}

static void resets_are_counted_and_the_run_goes_on(void) {
    begin(at_once, reset_each_third);
    struct er_plan plan;
    steady(&plan, 30, 1);
    struct er_load_config config = config_of(&plan);
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(whole->outcomes[ER_LOAD_OK] == 20 && whole->outcomes[ER_LOAD_RESET] == 10);
    CHECK(whole->latency.total == 20);
    CHECK(worker.stats.example_count == ER_LOAD_EXAMPLES && worker.stats.examples[0].outcome == ER_LOAD_RESET);
    end(&worker, &plan);
}

struct answer_case {
    const char *answer;
    enum er_load_outcome outcome;
    uint64_t opened; // by 3 requests
    bool close_after;
};
static const struct answer_case *current;
static const char *current_answer(uint64_t served) {
    (void)served;
    return current->answer;
}

static char huge_headers[70000], failure[200];

static void one_answer(const struct answer_case *test, char *contains, unsigned status) {
    current = test;
    begin(at_once, current_answer);
    sim.close_after = test->close_after;
    struct er_plan plan;
    steady(&plan, 10, 0.3);
    struct er_load_config config = config_of(&plan);
    config.check.contains = contains;
    config.check.contains_length = contains ? strlen(contains) : 0;
    config.check.status = status;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    if (worker.stats.slices[0].outcomes[test->outcome] != 3 || worker.opened != test->opened) {
        fprintf(stderr, "answer '%.60s': %d of outcome %d, %d connections\n", test->answer,
                (int)worker.stats.slices[0].outcomes[test->outcome], (int)test->outcome, (int)worker.opened);
    }
    CHECK(worker.stats.slices[0].outcomes[test->outcome] == 3);
    CHECK(worker.opened == test->opened);
    snprintf(failure, sizeof failure, "%s", worker.stats.example_count ? worker.stats.examples[0].text : "");
    end(&worker, &plan);
}

static const char *first_failure(const struct answer_case *test, unsigned status) {
    one_answer(test, NULL, status);
    return failure;
}

static void answers_are_judged_and_connections_kept_or_closed(void) {
    memset(huge_headers, 'a', sizeof huge_headers - 1);
    memcpy(huge_headers, "HTTP/1.1 200 OK\r\nX: ", 20);
    static const struct answer_case cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ER_LOAD_OK, 1, false},
        {"HTTP/1.1 204 No Content\r\n\r\n", ER_LOAD_OK, 1, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", ER_LOAD_OK, 1, false},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nT: t\r\n\r\n", ER_LOAD_OK, 1, false},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", ER_LOAD_OK, 1, false},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", ER_LOAD_OK, 3, false},
        {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", ER_LOAD_OK, 3, false},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", ER_LOAD_OK, 3, true},
        {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut", ER_LOAD_RESET, 3, true},
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", ER_LOAD_OK, 3, false},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", ER_LOAD_OK, 1, false},
        {"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", ER_LOAD_OK, 1, false},
        {"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", ER_LOAD_STATUS_4XX, 1, false},
        {"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy", ER_LOAD_STATUS_5XX, 1, false},
        {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ER_LOAD_PROTOCOL, 3, false},
        {"SSH-2.0-OpenSSH\r\n", ER_LOAD_PROTOCOL, 3, false},
        {huge_headers, ER_LOAD_PROTOCOL, 3, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        one_answer(&cases[i], NULL, 0);
    }
}

static void an_answer_to_head_has_no_body_whatever_its_length_says(void) {
    static const struct answer_case test = {"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n", ER_LOAD_OK, 1, false};
    static struct er_load_request head = {.bytes = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", .length = 28};
    current = &test;
    begin(at_once, current_answer);
    struct er_plan plan;
    steady(&plan, 10, 0.3);
    struct er_load_config config = config_of(&plan);
    target.requests = &head;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    CHECK(worker.stats.slices[0].outcomes[ER_LOAD_OK] == 3 && worker.opened == 1);
    end(&worker, &plan);
}

static void the_first_failures_say_what_happened(void) {
    static const struct {
        struct answer_case answer;
        const char *text;
    } cases[] = {
        {{"", ER_LOAD_RESET, 3, true}, "the server closed the connection without an answer"},
        {{"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\ncut", ER_LOAD_RESET, 3, true}, "the answer was cut short"},
        {{"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nslow", ER_LOAD_TIMEOUT, 3, false},
         "the answer was not whole within the time-out"},
        {{"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ER_LOAD_PROTOCOL, 3, false},
         "the server has left HTTP: it switches protocols"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_STR(first_failure(&cases[i].answer, 0), cases[i].text);
    }
    static const struct answer_case fine = {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ER_LOAD_CHECK, 1, false};
    CHECK_STR(first_failure(&fine, 201), "the status is not 201");
}

static void checks_look_at_status_and_body(void) {
    static const struct answer_case good = {"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{\"a\":1}", ER_LOAD_OK, 1,
                                            false};
    struct answer_case bad = good;
    bad.outcome = ER_LOAD_CHECK;
    one_answer(&good, "\"a\"", 0);
    one_answer(&good, NULL, 200);
    one_answer(&bad, "\"b\"", 0);
    one_answer(&bad, NULL, 201);
}

static void nobody_listening_fails_before_the_first_request(void) {
    begin(at_once, ok_answer);
    struct er_plan plan;
    steady(&plan, 10, 1);
    struct er_load_config config = config_of(&plan);
    ((struct sockaddr_un *)&target.addresses[0].at)->sun_path[6] = 'X';
    struct er_load_worker worker;
    start(&worker, &config);
    CHECK(sim.finished && worker.error.status == ER_NETWORK && worker.stats.slices[0].planned == 0);
    CHECK_STR(worker.error.message, "cannot connect: no such file or directory");
    end(&worker, &plan);
}

static void stop_counts_what_was_in_flight_as_aborted(void) {
    begin(never, ok_answer);
    struct er_plan plan;
    steady(&plan, 10, 100);
    struct er_load_config config = config_of(&plan);
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 1001 * second + 1);
    er_load_worker_stop(&worker);
    CHECK(worker.ended == second + 1); // it was watched that long, though nothing was answered
    CHECK(sim.finished && worker.aborted == 11 && er_load_slice_done(&worker.stats.slices[0]) == 0);
    end(&worker, &plan);
}

static void slices_count_what_was_planned_in_them(void) {
    begin(pausing, ok_answer);
    struct er_plan plan;
    steady(&plan, 100, 10);
    struct er_load_slice window[] = {{.from = 2 * second, .to = 5 * second}};
    struct er_load_config config = config_of(&plan);
    config.slices = window;
    config.slice_count = 1;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *slice = &worker.stats.slices[1];
    CHECK(slice->planned == 300 && slice->outcomes[ER_LOAD_OK] == 300 && slice->latency.max == 1);
    CHECK(worker.stats.slices[0].latency.max == 1000000);
    end(&worker, &plan);
}

static void memory_failures_neither_crash_nor_leak(void) {
    for (uint64_t n = 1; n < 60; n++) {
        begin(at_once, ok_answer);
        struct er_plan plan;
        steady(&plan, 10, 1);
        struct er_load_config config = config_of(&plan);
        struct er_load_worker worker;
        er_mem_fail_from(n);
        if (er_load_worker_init(&worker, &config, &sim_io) == ER_OK) {
            er_load_worker_start(&worker);
            run_until(&worker, 2000 * second);
            er_mem_fail_from(0);
            CHECK(sim.finished);
            end(&worker, &plan);
        } else {
            er_mem_fail_from(0);
            er_plan_release(&plan);
            close(sim.listener);
            unlink(address.sun_path);
        }
    }
}

int main(void) {
    return check_run((struct check_test[]){
        {"latency_is_the_servers_to_the_microsecond", latency_is_the_servers_to_the_microsecond},
        {"many_requests_leave_together_but_none_is_late_by_more_than_it_may_be",
         many_requests_leave_together_but_none_is_late_by_more_than_it_may_be},
        {"a_pause_of_the_server_is_seen_by_every_request_that_fell_into_it",
         a_pause_of_the_server_is_seen_by_every_request_that_fell_into_it},
        {"time_outs_count_as_their_time_out_and_close_the_connection",
         time_outs_count_as_their_time_out_and_close_the_connection},
        {"the_cap_delays_requests_but_not_their_clocks", the_cap_delays_requests_but_not_their_clocks},
        {"what_waits_longer_than_its_time_out_is_never_sent", what_waits_longer_than_its_time_out_is_never_sent},
        {"a_client_gives_up_when_its_time_is_over_however_late_it_was_sent",
         a_client_gives_up_when_its_time_is_over_however_late_it_was_sent},
        {"resets_are_counted_and_the_run_goes_on", resets_are_counted_and_the_run_goes_on},
        {"answers_are_judged_and_connections_kept_or_closed", answers_are_judged_and_connections_kept_or_closed},
        {"an_answer_to_head_has_no_body_whatever_its_length_says",
         an_answer_to_head_has_no_body_whatever_its_length_says},
        {"the_first_failures_say_what_happened", the_first_failures_say_what_happened},
        {"checks_look_at_status_and_body", checks_look_at_status_and_body},
        {"nobody_listening_fails_before_the_first_request", nobody_listening_fails_before_the_first_request},
        {"stop_counts_what_was_in_flight_as_aborted", stop_counts_what_was_in_flight_as_aborted},
        {"slices_count_what_was_planned_in_them", slices_count_what_was_planned_in_them},
        {"memory_failures_neither_crash_nor_leak", memory_failures_neither_crash_nor_leak},
        {0},
    });
}
