// SPDX-License-Identifier: Apache-2.0
// One connection of one thread: it waits in poll, and a bell that all threads hear ends each wait.
#ifndef EIRUN_OSS_CONN_H
#define EIRUN_OSS_CONN_H

#include "tls_client.h"

#include <sys/socket.h>

struct er_oss_peer {
    struct sockaddr_storage address;
    socklen_t address_length;
    char name[300];           // for messages
    const struct er_tls *tls; // NULL: none
    int bell;                 // an eventfd: readable when all is to end
    int connect_ms, stall_ms;
};

struct er_oss_conn {
    const struct er_oss_peer *peer;
    int fd; // -1: closed
    struct ssl_st *ssl;
    struct ssl_session_st *session;
    uint64_t used; // requests that it has carried
};

// ER_CANCELLED when the bell rings, ER_TIMEOUT, ER_NETWORK.
enum er_status er_oss_conn_open(struct er_oss_conn *conn, struct er_error *err);
void er_oss_conn_close(struct er_oss_conn *conn);   // may run twice; keeps the TLS session
void er_oss_conn_release(struct er_oss_conn *conn); // that too
enum er_status er_oss_conn_send(struct er_oss_conn *conn, const char *bytes, size_t length, struct er_error *err);
// `got` 0: the peer has ended the stream.
enum er_status er_oss_conn_receive(struct er_oss_conn *conn, char *into, size_t size, size_t *got,
                                   struct er_error *err);
// Something can be read, or the peer has gone: asked without waiting.
bool er_oss_conn_readable(const struct er_oss_conn *conn);
// Sleeps; ER_CANCELLED when the bell rings.
enum er_status er_oss_pause(const struct er_oss_peer *peer, int64_t nanoseconds);

#endif
