// SPDX-License-Identifier: Apache-2.0
#include "loopback.h"
#include "runtime_internal.h"

#include <string.h>

void er_listening_add(struct er_runtime *rt, struct er_listening *listening, const struct sockaddr *address) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)address;
    bool is_v6 = address->sa_family == AF_INET6;
    uv_inet_ntop(address->sa_family, is_v6 ? (const void *)&v6->sin6_addr : (const void *)&v4->sin_addr,
                 listening->host, sizeof listening->host);
    listening->port = ntohs(is_v6 ? v6->sin6_port : v4->sin_port);
    listening->next = rt->listening;
    rt->listening = listening;
}

void er_listening_remove(struct er_runtime *rt, struct er_listening *listening) {
    struct er_listening **at = &rt->listening;
    while (*at && *at != listening) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = listening->next;
    }
}

static bool is_any(const char *host) { return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0; }

// Both ends on one address: the peer is on this machine, and its port says whether it is ours.
bool er_listens_here(const struct er_runtime *rt, const char *peer, const char *local, int peer_port) {
    if (strcmp(peer, local) != 0) {
        return false;
    }
    for (const struct er_listening *at = rt->listening; at; at = at->next) {
        if (at->port == peer_port && (strcmp(at->host, peer) == 0 || is_any(at->host))) {
            return true;
        }
    }
    return false;
}

void er_loopback_begin(struct er_runtime *rt) { rt->loopbacks++; }

void er_loopback_end(struct er_runtime *rt) { rt->loopbacks--; }
