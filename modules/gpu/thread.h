// SPDX-License-Identifier: Apache-2.0
// Threads for a driver that may hang: nobody waits for their end, and they take no signals, which are the loop's. A
// program that ends while one is inside the driver leaves without tidying up the driver's library under its feet.
#ifndef EIRUN_GPU_THREAD_H
#define EIRUN_GPU_THREAD_H

#include <stdbool.h>

bool er_gpu_start_thread(void *(*run)(void *data), void *data);

#endif
