// SPDX-License-Identifier: Apache-2.0
// Where a URL leads: its host and port, and the table that sends some hosts to a socket of our own choice.
#ifndef EIRUN_HTTP_ROUTES_H
#define EIRUN_HTTP_ROUTES_H

#include "er.h"

struct er_url {
    bool tls;
    char host[256]; // lower case, an IPv6 address without its brackets
    bool ipv6;
    uint16_t port;
    const char *rest; // into the text: path and query, "" when there are none
};
// Takes http(s)://host[:port][/path][?query] and nothing looser: no user, no fragment, no control character, so that no
// other reader of the same text can see another host in it.
enum er_status er_url_parse(const char *text, struct er_url *url, struct er_error *err);

struct er_route {
    char *host;      // "*.aliyuncs.com": a star stands for any characters
    uint16_t port;   // 0: every port
    char *unix_path; // "@name" is an abstract socket; NULL: address
    char *address;   // "127.0.0.1:1234"
};
struct er_routes {
    struct er_route *list;
    size_t count;
    bool closed; // hosts that no row names are refused
};
bool er_host_matches(const char *pattern, const char *host);
// The first row that fits, or NULL.
const struct er_route *er_routes_find(const struct er_routes *routes, const char *host, uint16_t port);
// Copies its arguments. One of unix_path and address is NULL.
enum er_status er_routes_add(struct er_routes *routes, const char *host, uint16_t port, const char *unix_path,
                             const char *address);
void er_routes_release(struct er_routes *routes); // may run twice

#endif
