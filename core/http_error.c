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
    const struct meaning *meaning = meaning_of(code);
    char reason[CURL_ERROR_SIZE];
    find_reason(t, meaning, code, reason, sizeof reason);
    t->reply.retryable = meaning->retryable;
    er_fail(&t->reply.error, meaning->status,
            t->connected ? "connection to %s:%u%s%s failed: %s" : "cannot connect to %s:%u%s%s: %s", t->place.host,
            t->place.port, t->unix_path ? " at " : "", t->unix_path ? t->unix_path : "", reason);
}

enum er_status er_http_note(struct er_transfer *t, enum er_status status, const char *format, ...) {
    char text[sizeof t->reply.error.message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return er_fail(&t->reply.error, status, "%s", text);
}
