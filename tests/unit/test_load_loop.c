// SPDX-License-Identifier: Apache-2.0
// The worker's closed loop, requests from a ring, plans that workers share, and requests that go out once more.
#include "load_sim.h"

static int64_t pausing_else_10_ms(int64_t now) {
    int64_t delay = pausing(now);
    return delay ? delay : 10000000;
}

static void a_closed_loop_sends_when_it_was_answered(void) {
    begin(after_20_ms, ok_answer);
    struct er_plan plan;
    er_plan_init_closed(&plan, 2);
    struct er_load_config config = config_of(&plan);
    config.closed = 4;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->planned == 400 && whole->outcomes[ER_LOAD_OK] == 400); // 4 times 2 s / 20 ms
    CHECK(worker.opened == 4 && whole->latency.max == 20000 && worker.ended == 2000000000);
    CHECK(worker.stats.seconds[0].sent == 200 && worker.stats.seconds[0].in_flight == 4);
    CHECK(er_load_stats_second(&worker.stats, 1).percentiles[ER_LOAD_P50] == 20000);
    end(&worker, &plan);
}

static void a_closed_loop_hides_a_pause(void) {
    begin(pausing, ok_answer);
    sim.delay = pausing_else_10_ms;
    struct er_plan plan;
    er_plan_init_closed(&plan, 20);
    struct er_load_config config = config_of(&plan);
    config.closed = 1;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_hdr *latency = &worker.stats.slices[0].latency;
    CHECK(latency->total > 1500 && er_hdr_percentile(latency, 99.8) <= 10010 && latency->max >= 990000);
    end(&worker, &plan);
}

static void a_closed_loop_goes_on_after_resets_and_ends_with_its_time(void) {
    begin(after_20_ms, reset_each_third);
    struct er_plan plan;
    er_plan_init_closed(&plan, 1);
    struct er_load_config config = config_of(&plan);
    config.closed = 2;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->planned == 100 && whole->outcomes[ER_LOAD_RESET] == 33);
    end(&worker, &plan);
}

static void a_closed_loop_ends_with_its_requests(void) {
    begin(after_20_ms, ok_answer);
    struct er_plan plan;
    er_plan_init_closed(&plan, 2);
    struct er_load_config config = config_of(&plan);
    config.closed = 4;
    config.most = 10;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->planned == 10 && whole->outcomes[ER_LOAD_OK] == 10 && worker.ended == 60000000);
    end(&worker, &plan);
}

static int64_t in_turn_700_and_900_ms(int64_t now) {
    static int count;
    (void)now;
    return count++ % 2 ? 900000000 : 700000000;
}

static void a_closed_loop_waits_for_its_last_answers_asleep(void) {
    begin(in_turn_700_and_900_ms, ok_answer);
    struct er_plan plan;
    er_plan_init_closed(&plan, 1);
    struct er_load_config config = config_of(&plan);
    config.closed = 2;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    CHECK(sim.finished && worker.stats.slices[0].outcomes[ER_LOAD_OK] == 4 && sim.alarms < 20);
    end(&worker, &plan);
}

static enum er_status put(struct er_load_ring *ring) {
    struct er_load_request request;
    CHECK(er_load_request_init(&request, get.bytes, get.length, 0, ER_LOAD_HTTP1) == ER_OK);
    enum er_status status = er_load_ring_put(ring, request);
    if (status != ER_OK) {
        er_load_request_release(&request);
    }
    return status;
}

static void requests_come_from_a_ring_and_an_empty_one_makes_them_late(void) {
    begin(at_once, ok_answer);
    struct er_load_ring ring;
    CHECK(er_load_ring_init(&ring, 4) == ER_OK);
    struct er_plan plan;
    steady(&plan, 10, 0.8);
    struct er_load_config config = config_of(&plan);
    config.ring = &ring;
    target.request_count = 0;
    for (int i = 0; i < 4; i++) {
        CHECK(put(&ring) == ER_OK);
    }
    CHECK(put(&ring) == ER_QUOTA);
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 1001 * second);
    CHECK(worker.stats.sent == 4 && worker.starved == 1 && !sim.finished);
    for (int i = 0; i < 4; i++) {
        CHECK(put(&ring) == ER_OK);
    }
    run_until(&worker, 1002 * second);
    const struct er_load_slice *whole = &worker.stats.slices[0];
    CHECK(sim.finished && whole->outcomes[ER_LOAD_OK] == 8);
    CHECK(whole->latency.max >= 599000 && whole->latency.max <= 602000); // planned at 0.4, sent at 1.0
    end(&worker, &plan);
    CHECK(put(&ring) == ER_OK);
    er_load_ring_release(&ring);
    er_load_ring_release(&ring);
}

static void two_workers_share_a_plan_without_a_gap(void) {
    struct er_load_stats all;
    uint32_t in_flight[2][16] = {{0}};
    CHECK(er_load_stats_init(&all, NULL, 0, 12 * second) == ER_OK);
    for (size_t i = 0; i < 2; i++) {
        begin(after_20_ms, ok_answer);
        struct er_plan plan;
        steady(&plan, 99, 2);
        struct er_load_config config = config_of(&plan);
        config.first = i;
        config.step = 2;
        struct er_load_worker worker;
        start(&worker, &config);
        worker.stats.keep_live = true;
        run_until(&worker, 2000 * second);
        CHECK(worker.stats.slices[0].planned == 99);
        er_load_stats_drain(&all, &worker.stats, in_flight[i]);
        CHECK(worker.stats.slices[0].planned == 0 && worker.stats.sent == 0);
        end(&worker, &plan);
    }
    er_load_stats_settle(&all, INT64_MAX);
    CHECK(all.slices[0].outcomes[ER_LOAD_OK] == 198 && all.sent == 198 && all.slices[0].latency.total == 198);
    CHECK(all.seconds[0].planned == 99 && all.seconds[1].planned == 99 &&
          all.seconds[0].percentiles[ER_LOAD_P50] == 20000);
    CHECK(all.seconds[0].in_flight >= 2);
    er_load_stats_release(&all);
}

// The server hangs up on the second request it reads: the connection had been idle for two seconds.
static const char *hang_up_on_the_second(uint64_t served) { return served == 2 ? NULL : ok_answer(served); }

struct meeting {
    uint64_t ok, resent, opened;
    struct er_load_example first; // failure
};

static struct meeting meet_a_closing_server(struct er_load_request *request, int64_t gap) {
    begin(at_once, hang_up_on_the_second);
    struct er_plan plan;
    CHECK(er_plan_init_instants(&plan, (int64_t[]){0, gap}, 2, NULL) == ER_OK);
    struct er_load_config config = config_of(&plan);
    target.requests = request;
    struct er_load_worker worker;
    start(&worker, &config);
    run_until(&worker, 2000 * second);
    CHECK(sim.finished && worker.stats.slices[0].planned == 2);
    struct meeting seen = {.ok = worker.stats.slices[0].outcomes[ER_LOAD_OK],
                           .resent = worker.resent,
                           .opened = worker.opened,
                           .first = worker.stats.examples[0]};
    end(&worker, &plan);
    return seen;
}

static void a_request_that_meets_the_close_of_an_idle_connection_goes_out_once_more(void) {
    struct meeting seen = meet_a_closing_server(&get, 2 * second);
    CHECK(seen.ok == 2 && seen.resent == 1 && seen.opened == 2 && seen.first.outcome == ER_LOAD_OK);
}

static void it_is_an_error_where_the_connection_was_in_use_a_moment_ago(void) {
    struct meeting seen = meet_a_closing_server(&get, second / 2);
    CHECK(seen.ok == 1 && seen.resent == 0 && seen.first.outcome == ER_LOAD_RESET);
}

// RFC 9110 9.2.2: the server may have done it.
static void a_request_that_is_not_idempotent_is_never_sent_twice(void) {
    struct er_load_request post = {.bytes = "POST / HTTP/1.1\r\nHost: x\r\n\r\n", .length = 28};
    struct meeting seen = meet_a_closing_server(&post, 2 * second);
    CHECK(seen.ok == 1 && seen.resent == 0 && seen.first.outcome == ER_LOAD_RESET);
    CHECK_STR(seen.first.text, "the connection was closed while it was idle, and this method is not sent twice");
}

int main(void) {
    return check_run((struct check_test[]){
        {"a_closed_loop_sends_when_it_was_answered", a_closed_loop_sends_when_it_was_answered},
        {"a_closed_loop_hides_a_pause", a_closed_loop_hides_a_pause},
        {"a_closed_loop_ends_with_its_requests", a_closed_loop_ends_with_its_requests},
        {"a_closed_loop_goes_on_after_resets_and_ends_with_its_time",
         a_closed_loop_goes_on_after_resets_and_ends_with_its_time},
        {"a_closed_loop_waits_for_its_last_answers_asleep", a_closed_loop_waits_for_its_last_answers_asleep},
        {"requests_come_from_a_ring_and_an_empty_one_makes_them_late",
         requests_come_from_a_ring_and_an_empty_one_makes_them_late},
        {"two_workers_share_a_plan_without_a_gap", two_workers_share_a_plan_without_a_gap},
        {"a_request_that_meets_the_close_of_an_idle_connection_goes_out_once_more",
         a_request_that_meets_the_close_of_an_idle_connection_goes_out_once_more},
        {"it_is_an_error_where_the_connection_was_in_use_a_moment_ago",
         it_is_an_error_where_the_connection_was_in_use_a_moment_ago},
        {"a_request_that_is_not_idempotent_is_never_sent_twice", a_request_that_is_not_idempotent_is_never_sent_twice},
        {0},
    });
}
