// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "nap.h"

#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

static struct er_load_nap nap;
static struct epoll_event events[4];
static int bell;

static int64_t now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * INT64_C(1000000000) + at.tv_nsec;
}

static void begin(bool ringing) {
    nap = (struct er_load_nap){.epoll = epoll_create1(EPOLL_CLOEXEC)};
    bell = eventfd(ringing, EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    CHECK(epoll_ctl(nap.epoll, EPOLL_CTL_ADD, bell, &event) == 0);
}

static void end(void) {
    close(bell);
    close(nap.epoll);
}

// How many came of it; at least `least` nanoseconds must have passed.
static int takes(int64_t left, bool deaf, int64_t least) {
    int64_t began = now();
    int count = er_load_nap(&nap, events, 4, left, deaf);
    CHECK(now() - began >= least);
    return count;
}

static void nobody_wakes_before_it_is_time(void) {
    begin(false);
    for (int i = 0; i < 20; i++) {
        CHECK(takes(2000000, false, 2000000) == 0);
        CHECK(takes(50000, false, 50000) == 0);
        CHECK(takes(50000, true, 50000) == 0);
    }
    CHECK(takes(0, false, 0) == 0 && takes(-5, true, 0) == 0);
    end();
}

static void a_ready_socket_ends_the_wait_unless_it_is_deaf_and_then_it_is_seen_afterwards(void) {
    begin(true);
    CHECK(takes(INT64_MAX, false, 0) == 1 && takes(3600000000000, false, 0) == 1);
    CHECK(takes(INT64_MAX, true, 0) == 1 && takes(3600000000000, true, 0) == 1); // deaf for a moment only
    CHECK(takes(100000, true, 100000) == 1);
    end();
}

static void time_awake_is_bounded(void) {
    begin(false);
    nap.lead = 150000; // alarms seem to be very late: it wakes up early each time
    nap.credit = 0;
    int64_t began = nap.credited_at = now(), awake = 0;
    for (int i = 0; i < 200; i++) {
        int64_t credit = nap.credit, at = nap.credited_at;
        nap.lead = 150000;
        CHECK(takes(500000, false, 500000) == 0);
        awake += credit + (nap.credited_at - at) / 30 - nap.credit;
    }
    // What one wait may overdraw, a thirtieth of the time, and a process that others kept from running.
    CHECK(awake < (now() - began) / 30 + 10000000);
    end();
}

// After 200 turns with four answers each, `each` nanoseconds apart.
static struct er_load_pace paced(int64_t each) {
    struct er_load_pace pace = {0};
    for (int i = 0; i < 200; i++) {
        er_load_pace_note(&pace, 1000000000 + i * 4 * each, 4 * (uint64_t)i + 4);
    }
    return pace;
}

static bool about(int64_t value, int64_t wanted) { return value >= wanted * 99 / 100 && value <= wanted; }

static void a_loop_that_is_ahead_rests_for_a_quarter_of_a_requests_time(void) {
    struct er_load_pace fast = paced(6000), slow = paced(26000), none = {0};
    CHECK(about(er_load_pace_rest(&fast, 20), 30000)); // 20 under way, one done each 6 us: a request takes 120 us
    CHECK(er_load_pace_rest(&fast, 640) == 100000);    // but at most so long
    CHECK(er_load_pace_rest(&fast, 8) == 0);           // an alarm would come later
    CHECK(er_load_pace_rest(&slow, 640) == 0);         // four answers take longer
    CHECK(er_load_pace_rest(&none, 640) == 0);
}

static void a_pause_of_the_server_ends_the_rests(void) {
    struct er_load_pace pace = paced(6000);
    er_load_pace_note(&pace, pace.at + 1000000000, pace.answered + 1);
    CHECK(er_load_pace_rest(&pace, 640) == 0);
    int64_t at = pace.at;
    er_load_pace_note(&pace, at + 1000, pace.answered);
    CHECK(pace.at == at); // nothing came
}

int main(void) {
    return check_run((struct check_test[]){
        {"nobody_wakes_before_it_is_time", nobody_wakes_before_it_is_time},
        {"a_ready_socket_ends_the_wait_unless_it_is_deaf_and_then_it_is_seen_afterwards",
         a_ready_socket_ends_the_wait_unless_it_is_deaf_and_then_it_is_seen_afterwards},
        {"time_awake_is_bounded", time_awake_is_bounded},
        {"a_loop_that_is_ahead_rests_for_a_quarter_of_a_requests_time",
         a_loop_that_is_ahead_rests_for_a_quarter_of_a_requests_time},
        {"a_pause_of_the_server_ends_the_rests", a_pause_of_the_server_ends_the_rests},
        {0},
    });
}
