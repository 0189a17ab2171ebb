// SPDX-License-Identifier: Apache-2.0
// A deadline for work that may hold the clock. It runs on the run's clock, except for held work under the virtual
// clock: that clock stands still, so a peer or a child that hangs is given up in real time.
#ifndef EIRUN_DEADLINE_H
#define EIRUN_DEADLINE_H

#include "runtime.h"

struct er_deadline {
    struct er_runtime *rt;
    bool real_time;
    struct er_timer timer;
    uv_timer_t *real; // freed by its own close callback
    void (*fire)(struct er_deadline *deadline);
};
void er_deadline_init(struct er_deadline *deadline, struct er_runtime *rt, bool held,
                      void (*fire)(struct er_deadline *deadline));
// The time that the deadline counts in; only differences mean something.
int64_t er_deadline_now(const struct er_deadline *deadline);
enum er_status er_deadline_start(struct er_deadline *deadline, int64_t at); // restarts; ER_NO_MEMORY
// From now on it runs on the run's clock. It is stopped: start it again.
void er_deadline_follow_clock(struct er_deadline *deadline);
void er_deadline_stop(struct er_deadline *deadline); // may run twice

#endif
