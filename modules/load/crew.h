// SPDX-License-Identifier: Apache-2.0
// Worker threads for real time: each has a part of the plan, an epoll of its own and no lock. Figures change hands by
// turns: a thread puts its counts on a shelf when asked, and goes on with empty ones; the loop's thread adds up what
// lies there.
#ifndef EIRUN_LOAD_CREW_H
#define EIRUN_LOAD_CREW_H

#include "engine.h"

struct er_load_crew;

// Starts `count` threads on load->worker's plan from load->worker.start on. False: none runs, the loop must do it.
bool er_load_crew_start(struct er_load *load, size_t count);
// Stops and joins them, and adds up everything. Their connections are closed.
void er_load_crew_stop(struct er_load_crew *crew);
// After er_load_crew_stop. The loop's handle is closed later; load may be gone by then.
void er_load_crew_free(struct er_load_crew *crew);

#endif
