// SPDX-License-Identifier: Apache-2.0
// What the driver tells by itself, XIDs above all. It is waited for on a thread of its own, a second at a time.
#ifndef EIRUN_GPU_EVENTS_H
#define EIRUN_GPU_EVENTS_H

#include "gpu.h"
#include "runtime.h"

// X(bit, name in Lua)
#define ER_GPU_EVENTS(X)                                                                                               \
    X(0x1, "ecc_corrected")                                                                                            \
    X(0x2, "ecc_uncorrected")                                                                                          \
    X(0x4, "performance_state")                                                                                        \
    X(0x8, "xid")                                                                                                      \
    X(0x10, "clock")                                                                                                   \
    X(0x80, "power_source")                                                                                            \
    X(0x100, "mig_config")                                                                                             \
    X(0x200, "ecc_corrected_storm")                                                                                    \
    X(0x400, "dram_retirement")                                                                                        \
    X(0x800, "dram_retirement_failure")                                                                                \
    X(0x1000, "poison")                                                                                                \
    X(0x2000, "poison_fatal")                                                                                          \
    X(0x4000, "unavailable")                                                                                           \
    X(0x8000, "recovery_action")

// Not the driver's: a GPU that answers that it is lost.
#define ER_GPU_EVENT_LOST (1ULL << 62)

struct er_gpu_event {
    uint64_t type, data; // data: of an xid its number
    int64_t at_ns;       // when it came, real time since the epoch
    int index;           // of the GPU; -1: not known
    int64_t gpu_instance;
};

struct er_gpu_watch;

// Listens for the events of `mask`. `wake` is called on the loop when there is something to take. NULL and `err` where
// it cannot start.
struct er_gpu_watch *er_gpu_watch_start(struct er_runtime *rt, uint64_t mask, void (*wake)(void *data), void *data,
                                        struct er_error *err);
enum er_gpu_watch_state { ER_GPU_WATCH_OPENING, ER_GPU_WATCH_LISTENING, ER_GPU_WATCH_ENDED };
// How it stands; `devices`: how many tell events; `err`: why it ended.
enum er_gpu_watch_state er_gpu_watch_state(struct er_gpu_watch *watch, unsigned *devices, struct er_error *err);
bool er_gpu_watch_take(struct er_gpu_watch *watch, struct er_gpu_event *event); // false: nothing waits
uint64_t er_gpu_watch_dropped(struct er_gpu_watch *watch); // events for which there was no room, so far
void er_gpu_watch_free(struct er_gpu_watch *watch);        // at any time

#endif
