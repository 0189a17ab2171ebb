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

int main(void) {
    return check_run((struct check_test[]){
        {"nobody_wakes_before_it_is_time", nobody_wakes_before_it_is_time},
        {"a_ready_socket_ends_the_wait_unless_it_is_deaf_and_then_it_is_seen_afterwards",
         a_ready_socket_ends_the_wait_unless_it_is_deaf_and_then_it_is_seen_afterwards},
        {"time_awake_is_bounded", time_awake_is_bounded},
        {0},
    });
}
