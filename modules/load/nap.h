// SPDX-License-Identifier: Apache-2.0
// How a thread of the load engine waits for its next request to be due, or for sockets: to the microsecond where that
// is cheap, and with few alarms where many would be dear.
#ifndef EIRUN_LOAD_NAP_H
#define EIRUN_LOAD_NAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

struct er_load_nap {
    int epoll;
    int64_t lead;        // how late the kernel's alarms mostly are
    int64_t credit;      // of time that may be spent awake before an alarm
    int64_t credited_at; // on the monotonic clock
};

// How fast answers come to a closed loop.
struct er_load_pace {
    int64_t at;        // when it was last looked at
    uint64_t answered; // by then
    int64_t each;      // nanoseconds from one answer to the next, of late
};

// Sockets that are ready, at most `most`; 0 when `left` nanoseconds have passed (INT64_MAX: no limit); or -1, errno.
// `deaf`: for a moment the sockets need not be listened to, since the kernel notes when their bytes come.
int er_load_nap(struct er_load_nap *nap, struct epoll_event *events, int most, int64_t left, bool deaf);

// To be told at each turn of a closed loop how many answers have come by `now`.
void er_load_pace_note(struct er_load_pace *pace, int64_t now, uint64_t answered);
// How long a loop that is ahead of its server may leave answers unread, to find several at once: a quarter of the time
// that a request takes, and at most a tenth of a millisecond; 0 where that would gather nothing.
int64_t er_load_pace_rest(const struct er_load_pace *pace, size_t in_flight);
// Sleeps; sockets are not listened to.
void er_load_rest(int64_t span);

#endif
