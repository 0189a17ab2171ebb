// SPDX-License-Identifier: Apache-2.0
#include "http_routes.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

// ---- URL

static enum er_status bad_url(struct er_error *err, const char *text, const char *reason) {
    return er_fail(err, ER_INVALID, "invalid url '%.200s': %s", text, reason);
}

// What stands before an @ may hold a password, so it is not repeated.
static enum er_status user_in_url(struct er_error *err, const char *behind) {
    return er_fail(err, ER_INVALID, "invalid url '...@%.200s': a user name and password do not belong in a url",
                   behind);
}

static const char *find_user(const char *host) { return memchr(host, '@', strcspn(host, "/?#")); }

static const char *skip_scheme(const char *text, bool *tls) {
    if (strncasecmp(text, "https://", 8) == 0) {
        *tls = true;
        return text + 8;
    }
    if (strncasecmp(text, "http://", 7) == 0) {
        *tls = false;
        return text + 7;
    }
    return NULL;
}

static bool is_host_char(char c, bool ipv6) {
    return isalnum((unsigned char)c) || c == '.' || (ipv6 ? c == ':' || c == '%' : c == '-' || c == '_');
}

// The host at *at into url->host; *at moves behind it.
static bool take_host(const char **at, struct er_url *url) {
    url->ipv6 = **at == '[';
    const char *start = *at + url->ipv6;
    size_t length = 0;
    while (is_host_char(start[length], url->ipv6)) {
        length++;
    }
    if (length == 0 || length >= sizeof url->host || (url->ipv6 && start[length] != ']')) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        url->host[i] = (char)tolower((unsigned char)start[i]);
    }
    url->host[length] = '\0';
    *at = start + length + url->ipv6;
    return true;
}

static bool take_port(const char **at, struct er_url *url) {
    url->port = url->tls ? 443 : 80;
    if (**at != ':') {
        return true;
    }
    char *end = NULL;
    if (!isdigit((unsigned char)(*at)[1])) {
        return false;
    }
    unsigned long port = strtoul(*at + 1, &end, 10);
    if (port == 0 || port > 65535) {
        return false;
    }
    url->port = (uint16_t)port;
    *at = end;
    return true;
}

enum er_status er_url_parse(const char *text, struct er_url *url, struct er_error *err) {
    const char *at = skip_scheme(text, &url->tls);
    if (!at) {
        return bad_url(err, text, "it does not start with http:// or https://");
    }
    const char *user = find_user(at);
    if (user) {
        return user_in_url(err, user + 1);
    }
    if (!take_host(&at, url)) {
        return bad_url(err, text, "the host is missing or has a character that hosts do not have");
    }
    if (!take_port(&at, url)) {
        return bad_url(err, text, "the port is not a number from 1 to 65535");
    }
    if (*at && *at != '/' && *at != '?') {
        return bad_url(err, text, "the host has a character that hosts do not have");
    }
    for (const char *c = at; *c; c++) {
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 127 || *c == '#') {
            return bad_url(err, text, "spaces, '#' and characters beyond ASCII must be percent-encoded");
        }
    }
    url->rest = at;
    return ER_OK;
}

// ---- table

// A star gives back one character at a time: fine for names of 255 characters at most.
bool er_host_matches(const char *pattern, const char *host) {
    for (; *pattern != '*'; pattern++, host++) {
        if (tolower((unsigned char)*pattern) != tolower((unsigned char)*host)) {
            return false;
        }
        if (!*pattern) {
            return true;
        }
    }
    while (pattern[1] == '*') {
        pattern++;
    }
    for (;; host++) {
        if (er_host_matches(pattern + 1, host)) {
            return true;
        }
        if (!*host) {
            return false;
        }
    }
}

const struct er_route *er_routes_find(const struct er_routes *routes, const char *host, uint16_t port) {
    for (size_t i = 0; i < routes->count; i++) {
        const struct er_route *route = &routes->list[i];
        if ((!route->port || route->port == port) && er_host_matches(route->host, host)) {
            return route;
        }
    }
    return NULL;
}

static void release_route(struct er_route *route) {
    er_free(route->host);
    er_free(route->unix_path);
    er_free(route->address);
}

enum er_status er_routes_add(struct er_routes *routes, const char *host, uint16_t port, const char *unix_path,
                             const char *address) {
    struct er_route *list = er_realloc(routes->list, (routes->count + 1) * sizeof *list);
    if (!list) {
        return ER_NO_MEMORY;
    }
    routes->list = list;
    struct er_route route = {.host = er_strdup(host),
                             .port = port,
                             .unix_path = unix_path ? er_strdup(unix_path) : NULL,
                             .address = address ? er_strdup(address) : NULL};
    if (!route.host || (unix_path && !route.unix_path) || (address && !route.address)) {
        release_route(&route);
        return ER_NO_MEMORY;
    }
    list[routes->count++] = route;
    return ER_OK;
}

void er_routes_release(struct er_routes *routes) {
    for (size_t i = 0; i < routes->count; i++) {
        release_route(&routes->list[i]);
    }
    er_free(routes->list);
    *routes = (struct er_routes){0};
}
