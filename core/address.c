// SPDX-License-Identifier: Apache-2.0
#include "address.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/un.h>

// An abstract socket has a NUL in front, and its length says where it ends.
enum er_status er_address_unix(struct sockaddr_storage *into, socklen_t *length, const char *path,
                               struct er_error *err) {
    struct sockaddr_un *address = (struct sockaddr_un *)into;
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof address->sun_path) {
        return er_fail(err, ER_INVALID, "the path of the socket is empty or too long: '%s'", path);
    }
    bool abstract = path[0] == '@';
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, size + 1);
    if (abstract) {
        address->sun_path[0] = '\0';
    }
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + !abstract);
    return ER_OK;
}

enum er_status er_address_inet(struct sockaddr_storage *into, socklen_t *length, const char *host, int64_t port,
                               struct er_error *err) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)into;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)into;
    if (port < 1 || port > 65535) {
        return er_fail(err, ER_INVALID, "a port is between 1 and 65535");
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        *length = (socklen_t)sizeof *v4;
        return ER_OK;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        *length = (socklen_t)sizeof *v6;
        return ER_OK;
    }
    return er_fail(err, ER_INVALID, "'%s' is not an IP address", host);
}
