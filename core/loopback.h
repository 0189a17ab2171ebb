// SPDX-License-Identifier: Apache-2.0
// TCP between two sockets of this program. A peer elsewhere holds the virtual clock, since nobody here knows what it is
// doing; this one waits on the same clock, and holding it would stop both.
#ifndef EIRUN_LOOPBACK_H
#define EIRUN_LOOPBACK_H

#include "runtime.h"

#include <netinet/in.h>

// An address that this program listens on. Embed; remove it before the struct goes.
struct er_listening {
    char host[INET6_ADDRSTRLEN];
    int port; // 0: never listened; kept when it no longer does
    struct er_listening *next;
};
void er_listening_add(struct er_runtime *rt, struct er_listening *listening, const struct sockaddr *address);
void er_listening_remove(struct er_runtime *rt, struct er_listening *listening); // may run twice

// Whether a connection with these two ends leads to a listener of this program.
bool er_listens_here(const struct er_runtime *rt, const char *peer, const char *local, int peer_port);

// While a transfer over such a connection is under way the loop looks twice before the clock jumps: the kernel may hand
// bytes over a moment after they were sent.
void er_loopback_begin(struct er_runtime *rt);
void er_loopback_end(struct er_runtime *rt);

#endif
