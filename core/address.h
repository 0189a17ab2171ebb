// SPDX-License-Identifier: Apache-2.0
// Socket addresses from text.
#ifndef EIRUN_ADDRESS_H
#define EIRUN_ADDRESS_H

#include "er.h"

#include <sys/socket.h>

// A socket's path; "@name" is an abstract one. ER_INVALID: empty or too long.
enum er_status er_address_unix(struct sockaddr_storage *into, socklen_t *length, const char *path,
                               struct er_error *err);
// An IPv4 or IPv6 address and a port. ER_INVALID: neither.
enum er_status er_address_inet(struct sockaddr_storage *into, socklen_t *length, const char *host, int64_t port,
                               struct er_error *err);

#endif
