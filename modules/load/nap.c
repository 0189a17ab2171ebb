// SPDX-License-Identifier: Apache-2.0
#include "nap.h"

#include <errno.h>
#include <time.h>

// An alarm of the kernel costs some 15 microseconds of CPU on a virtual machine, two and a half requests, and is 20 to
// 80 late. So who waits for long wakes up early by as much as alarms are late, and stays awake until it is time, which
// costs a share of a core that is bounded; and who waits for a moment is woken once, not by each answer too.
static const int64_t moment_ns = 250000, long_ns = 300000, lead_max_ns = 150000;
enum { AWAKE_SHARE = 30, LATER = 4, EARLIER = 64 }; // one thirtieth of a core; how fast the lead follows what is seen
static const int64_t credit_max_ns = 5000000;

// A wait costs as much CPU as several requests, whether an alarm ends it or an answer; and each answer that ends one
// costs the server as much again. So who is ahead of a server waits for several answers. Alarms come some 25 us late.
static const int64_t rest_max_ns = 100000, rest_min_ns = 25000;
enum { REST_SHARE = 4, REST_FEWEST = 4, PACE_WEIGHT = 8 };

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static struct timespec span_of(int64_t ns) {
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

// To the microsecond where the kernel can, else to the millisecond below and then again.
static int wait_at_most(const struct er_load_nap *nap, struct epoll_event *events, int most, int64_t left) {
    struct timespec span = span_of(left);
    int count = epoll_pwait2(nap->epoll, events, most, &span, NULL);
    if (count < 0 && errno == ENOSYS) {
        count = epoll_wait(nap->epoll, events, most, (int)(left / 1000000));
    }
    return count;
}

static int64_t affordable_lead(struct er_load_nap *nap, int64_t now) {
    int64_t earned = nap->credited_at ? (now - nap->credited_at) / AWAKE_SHARE : credit_max_ns;
    nap->credit = nap->credit + earned < credit_max_ns ? nap->credit + earned : credit_max_ns;
    nap->credited_at = now;
    return nap->credit > nap->lead ? nap->lead : 0;
}

// Rises fast and falls slowly, so that most alarms are in time.
static void learn(struct er_load_nap *nap, int64_t late) {
    nap->lead += (late - nap->lead) / (late > nap->lead ? LATER : EARLIER);
    nap->lead = nap->lead < lead_max_ns ? nap->lead : lead_max_ns;
}

static int stay_awake(struct er_load_nap *nap, struct epoll_event *events, int most, int64_t until) {
    int64_t began = now_ns(), now = began;
    int count = 0;
    while (count == 0 && now < until) {
        count = epoll_wait(nap->epoll, events, most, 0);
        now = now_ns();
    }
    nap->credit -= now - began;
    return count;
}

static int wait_punctually(struct er_load_nap *nap, struct epoll_event *events, int most, int64_t left) {
    int64_t now = now_ns(), until = now + left;
    int64_t alarm = until - (left > long_ns ? affordable_lead(nap, now) : 0);
    int count = wait_at_most(nap, events, most, alarm - now);
    if (count != 0) {
        return count;
    }
    learn(nap, now_ns() - alarm);
    return stay_awake(nap, events, most, until);
}

int er_load_nap(struct er_load_nap *nap, struct epoll_event *events, int most, int64_t left, bool deaf) {
    if (left == INT64_MAX || left <= 0) {
        return epoll_wait(nap->epoll, events, most, left > 0 ? -1 : 0);
    }
    if (!deaf || left > moment_ns) {
        return wait_punctually(nap, events, most, left);
    }
    er_load_rest(left);
    return epoll_wait(nap->epoll, events, most, 0);
}

void er_load_rest(int64_t span) {
    struct timespec length = span_of(span);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &length, NULL);
}

void er_load_pace_note(struct er_load_pace *pace, int64_t now, uint64_t answered) {
    int64_t came = (int64_t)(answered - pace->answered);
    if (came > 0) {
        pace->each += pace->at ? ((now - pace->at) / came - pace->each) / PACE_WEIGHT : 0;
        pace->at = now;
        pace->answered = answered;
    }
}

int64_t er_load_pace_rest(const struct er_load_pace *pace, size_t in_flight) {
    int64_t span = (int64_t)in_flight * pace->each / REST_SHARE;
    span = span < rest_max_ns ? span : rest_max_ns;
    return span >= rest_min_ns && span >= REST_FEWEST * pace->each ? span : 0;
}
