// SPDX-License-Identifier: Apache-2.0
// curl's codes and texts as our errors: what, where, why.
#include "http_internal.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>

struct meaning {
    CURLcode code;
    enum er_status status;
    bool retryable;
    const char *reason; // NULL: errno of the socket, else curl's own text
};

static const struct meaning meanings[] = {
    {CURLE_COULDNT_RESOLVE_HOST, ER_NETWORK, true, "the host's name is not known"},
    {CURLE_COULDNT_RESOLVE_PROXY, ER_NETWORK, true, "the proxy's name is not known"},
    {CURLE_COULDNT_CONNECT, ER_NETWORK, true, NULL},
    {CURLE_OPERATION_TIMEDOUT, ER_TIMEOUT, true, NULL},
    {CURLE_PROXY, ER_NETWORK, true, NULL},
    {CURLE_SSL_CONNECT_ERROR, ER_NETWORK, true, NULL},
    {CURLE_SEND_ERROR, ER_NETWORK, true, NULL},
    {CURLE_RECV_ERROR, ER_NETWORK, true, NULL},
    {CURLE_GOT_NOTHING, ER_NETWORK, true, "it was closed before the answer"},
    {CURLE_ABORTED_BY_CALLBACK, ER_NETWORK, true, "it was closed before the answer"},
    {CURLE_PARTIAL_FILE, ER_NETWORK, true, NULL},
    {CURLE_SEND_FAIL_REWIND, ER_NETWORK, true, NULL},
    {CURLE_HTTP2, ER_NETWORK, true, NULL},
    {CURLE_HTTP2_STREAM, ER_NETWORK, true, NULL},
    {CURLE_OUT_OF_MEMORY, ER_NO_MEMORY, false, "not enough memory"},
    {CURLE_WRITE_ERROR, ER_NO_MEMORY, false,
     "not enough memory"}, // a callback of ours stopped and noted no other reason
    {CURLE_URL_MALFORMAT, ER_INVALID, false, NULL},
    {CURLE_UNSUPPORTED_PROTOCOL, ER_NETWORK, false, "the answer is not HTTP"},
};

static const struct meaning *meaning_of(CURLcode code) {
    static const struct meaning other = {CURLE_OK, ER_NETWORK, false, NULL};
    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++) {
        if (meanings[i].code == code) {
            return &meanings[i];
        }
    }
    return &other;
}

static const char *skip_prefix(const char *text, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(text, prefix, length) == 0 ? text + length : text;
}

// "OpenSSL SSL_read: error:0A00045C:SSL routines::tlsv13 alert certificate required, errno 0" -> its last part.
static void clean(char *into, size_t size, const char *text) {
    static const char *const noise[] = {"SSL certificate problem: ", "SSL: ", "Recv failure: ", "Send failure: "};
    for (size_t i = 0; i < sizeof noise / sizeof *noise; i++) {
        text = skip_prefix(text, noise[i]);
    }
    for (const char *part; (part = strstr(text, "::"));) {
        text = part + 2;
    }
    snprintf(into, size, "%s", text);
    char *end = strstr(into, ", errno 0");
    if (end) {
        *end = '\0';
    }
    for (size_t length = strlen(into); length && isspace((unsigned char)into[length - 1]);) {
        into[--length] = '\0';
    }
    if (isupper((unsigned char)into[0]) && !isupper((unsigned char)into[1])) {
        into[0] = (char)tolower((unsigned char)into[0]);
    }
}

// What a SOCKS proxy answered.
static const struct refusal {
    CURLproxycode code;
    bool retryable;
    const char *reason;
} refusals[] = {
    {CURLPX_NO_AUTH, false, "it wants a user and a password"},
    {CURLPX_USER_REJECTED, false, "it does not know the user or the password"},
    {CURLPX_REPLY_NOT_ALLOWED, false, "its rules do not allow it"},
    {CURLPX_REPLY_CONNECTION_REFUSED, true, "connection refused"},
    {CURLPX_REPLY_HOST_UNREACHABLE, true, "the host cannot be reached"},
    {CURLPX_REPLY_NETWORK_UNREACHABLE, true, "the network cannot be reached"},
    {CURLPX_REPLY_GENERAL_SERVER_FAILURE, true, "it failed and says no more"},
};

static const struct refusal *refusal_of(const struct er_transfer *t) {
    long code = 0;
    if (t->client->curl->easy_getinfo(t->easy, CURLINFO_PROXY_ERROR, &code) != CURLE_OK || !code) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        if ((long)refusals[i].code == code) {
            return &refusals[i];
        }
    }
    return NULL;
}

// The proxy is there and will not go on to the server.
static bool explain_refusal(struct er_transfer *t) {
    long status = 0;
    const struct refusal *refusal = refusal_of(t);
    char reason[64];
    if (refusal) {
        t->reply.retryable = refusal->retryable;
        snprintf(reason, sizeof reason, "%s", refusal->reason);
    } else if (t->client->curl->easy_getinfo(t->easy, CURLINFO_HTTP_CONNECTCODE, &status) == CURLE_OK &&
               status >= 400) {
        t->reply.retryable = status >= 500;
        snprintf(reason, sizeof reason, status == 407 ? "it wants a user and a password (HTTP %ld)" : "HTTP %ld",
                 status);
    } else {
        return false;
    }
    er_fail(&t->reply.error, ER_NETWORK, "the proxy does not connect to %s:%u: %s", t->place.host, t->place.port,
            reason);
    return true;
}

// curl names whom it could not reach: another one than the server is a proxy.
static void name_proxy(const struct er_transfer *t, char *into, size_t size) {
    char host[256];
    unsigned port = 0;
    into[0] = '\0';
    if (t->routed || sscanf(t->curl_error, "Failed to connect to %255s port %u", host, &port) != 2) {
        return;
    }
    if (port != t->place.port || strcmp(host, t->place.host) != 0) {
        snprintf(into, size, " through proxy %s:%u", host, port);
    }
}

static void find_reason(struct er_transfer *t, const struct meaning *meaning, CURLcode code, char *into, size_t size) {
    const struct er_curl *curl = t->client->curl;
    long number = 0;
    if (meaning->reason) {
        snprintf(into, size, "%s", meaning->reason);
    } else if (code == CURLE_COULDNT_CONNECT && curl->easy_getinfo(t->easy, CURLINFO_OS_ERRNO, &number) == CURLE_OK &&
               number) {
        snprintf(into, size, "%s", uv_strerror((int)-number));
    } else {
        clean(into, size, t->curl_error[0] ? t->curl_error : curl->easy_strerror(code));
    }
}

void er_http_explain(struct er_transfer *t, CURLcode code) {
    if (t->reply.error.status != ER_OK) {
        return; // noted by a callback
    }
    if (!t->connected && explain_refusal(t)) {
        return;
    }
    if (!t->connected && t->client->session.bad_ca) {
        er_fail(&t->reply.error, ER_NETWORK, "cannot connect to %s:%u: error importing CA certificate blob",
                t->place.host, t->place.port);
        return;
    }
    if (!t->connected && t->client->identity.bad) {
        er_fail(&t->reply.error, ER_INVALID,
                "cannot connect to %s:%u: the client's certificate and its key are no PEM that belongs together",
                t->place.host, t->place.port);
        return;
    }
    const struct meaning *meaning = meaning_of(code);
    char reason[CURL_ERROR_SIZE], proxy[300];
    name_proxy(t, proxy, sizeof proxy);
    find_reason(t, meaning, code, reason, sizeof reason);
    t->reply.retryable = meaning->retryable;
    er_fail(&t->reply.error, meaning->status,
            t->connected ? "connection to %s:%u%s%s%s failed: %s" : "cannot connect to %s:%u%s%s%s: %s", t->place.host,
            t->place.port, proxy, t->unix_path ? " at " : "", t->unix_path ? t->unix_path : "", reason);
}

enum er_status er_http_note(struct er_transfer *t, enum er_status status, const char *format, ...) {
    char text[sizeof t->reply.error.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return er_fail(&t->reply.error, status, "%s", text);
}
