// SPDX-License-Identifier: Apache-2.0
// How a thread of the load engine waits for its next request to be due, or for sockets: to the microsecond where that
// is cheap, and with few alarms where many would be dear.
#ifndef EIRUN_LOAD_NAP_H
#define EIRUN_LOAD_NAP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

struct er_load_nap {
    int epoll;
    int64_t lead;        // how late the kernel's alarms mostly are
    int64_t credit;      // of time that may be spent awake before an alarm
    int64_t credited_at; // on the monotonic clock
};

// Sockets that are ready, at most `most`; 0 when `left` nanoseconds have passed (INT64_MAX: no limit); or -1, errno.
// `deaf`: for a moment the sockets need not be listened to, since the kernel notes when their bytes come.
int er_load_nap(struct er_load_nap *nap, struct epoll_event *events, int most, int64_t left, bool deaf);

#endif
