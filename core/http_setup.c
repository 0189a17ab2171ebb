// SPDX-License-Identifier: Apache-2.0
// A transfer's options on a fresh easy handle. Not set, on purpose: every time-out of curl's, which would read real
// time.
#include "http_internal.h"

#include <limits.h>
#include <openssl/ssl.h>
#include <string.h>
#include <strings.h>

// ---- header lines, as a list of curl's whose nodes and text are one block

struct lines {
    struct curl_slist *node, *last; // node: the next unused one
    char *text;
};

static void add_line(struct lines *lines, struct er_bytes name, const char *between, struct er_bytes value) {
    lines->node->data = lines->text;
    lines->node->next = NULL;
    if (lines->last) {
        lines->last->next = lines->node;
    }
    lines->last = lines->node++;
    lines->text = (char *)mempcpy(lines->text, name.data, name.length);
    lines->text = stpcpy(lines->text, between);
    lines->text = (char *)mempcpy(lines->text, value.data, value.length);
    *lines->text++ = '\0';
}

static bool has_header(const struct er_http_call *call, const char *name) {
    for (size_t i = 0; i < call->header_count; i++) {
        struct er_bytes have = call->headers[i].name;
        if (have.length == strlen(name) && strncasecmp(have.data, name, have.length) == 0) {
            return true;
        }
    }
    return false;
}

static const struct er_bytes nothing = {"", 0};

static struct er_bytes bytes_of(const char *text) { return (struct er_bytes){text, strlen(text)}; }

// curl's own words: "Name: value" sends, "Name;" sends it empty, "Name:" keeps curl from adding its own.
static void add_all(struct lines *lines, const struct er_http_call *call, const char *host) {
    add_line(lines, bytes_of("Expect"), ":", nothing); // a wait of curl's own, in real time
    if (!has_header(call, "Content-Type")) {
        add_line(lines, bytes_of("Content-Type"), ":", nothing);
    }
    if (host && !has_header(call, "Host")) {
        add_line(lines, bytes_of("Host"), ": ", bytes_of(host));
    }
    for (size_t i = 0; i < call->header_count; i++) {
        struct er_http_pair pair = call->headers[i];
        add_line(lines, pair.name, pair.value.length ? ": " : ";", pair.value);
    }
}

enum er_status er_http_build_headers(struct er_transfer *t, const struct er_http_call *call) {
    enum { OURS = 3, OURS_SIZE = 512 }; // Expect, Content-Type and Host
    size_t nodes = (call->header_count + OURS) * sizeof(struct curl_slist);
    size_t size = nodes + OURS_SIZE;
    for (size_t i = 0; i < call->header_count; i++) {
        size += call->headers[i].name.length + call->headers[i].value.length + sizeof ": ";
    }
    t->headers = er_alloc(size);
    if (!t->headers) {
        return ER_NO_MEMORY;
    }
    t->headers_size = size;
    char host[sizeof t->place.host + 16];
    snprintf(host, sizeof host, t->place.ipv6 ? "[%s]:%u" : "%s:%u", t->place.host, t->place.port);
    add_all(&(struct lines){.node = t->headers, .text = (char *)t->headers + nodes}, call, t->tls_url ? host : NULL);
    return ER_OK;
}

// ---- options

struct setter {
    const struct er_curl *curl;
    CURL *easy;
    CURLcode code; // the first failure; the rest is skipped
};
#define SET(setter, option, value)                                                                                     \
    do {                                                                                                               \
        if ((setter)->code == CURLE_OK) {                                                                              \
            (setter)->code = (setter)->curl->easy_setopt((setter)->easy, option, value);                               \
        }                                                                                                              \
    } while (0)

static void set_common(struct setter *s, struct er_transfer *t) {
    SET(s, CURLOPT_PRIVATE, t);
    SET(s, CURLOPT_ERRORBUFFER, t->curl_error);
    SET(s, CURLOPT_NOSIGNAL, 1L);
    SET(s, CURLOPT_QUICK_EXIT, 1L); // a cancel does not wait for the resolver's thread
    SET(s, CURLOPT_PROTOCOLS_STR, "http,https");
    SET(s, CURLOPT_PATH_AS_IS, 1L);
    SET(s, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(s, CURLOPT_USERAGENT, t->client->user_agent);
    SET(s, CURLOPT_URL, t->tls_url ? t->tls_url : t->url);
    SET(s, CURLOPT_HTTPHEADER, t->headers);
    SET(s, CURLOPT_HEADERFUNCTION, er_http_on_header);
    SET(s, CURLOPT_HEADERDATA, t);
    SET(s, CURLOPT_WRITEFUNCTION, er_http_on_body);
    SET(s, CURLOPT_WRITEDATA, t);
    SET(s, CURLOPT_PREREQFUNCTION, er_http_on_connected);
    SET(s, CURLOPT_PREREQDATA, t);
    SET(s, CURLOPT_FORBID_REUSE, (long)t->expect_close);
    if (t->decompress) {
        SET(s, CURLOPT_ACCEPT_ENCODING, "gzip");
    }
    if (t->sink_file) { // refused where the handle still has the buffer of an earlier transfer, which will do
        (void)s->curl->easy_setopt(s->easy, CURLOPT_BUFFERSIZE, 128 * 1024L);
    }
}

static void set_version(struct setter *s, const struct er_transfer *t) {
    long version = !t->http2      ? CURL_HTTP_VERSION_1_1
                   : t->place.tls ? CURL_HTTP_VERSION_2TLS
                                  : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
    SET(s, CURLOPT_HTTP_VERSION, version);
    SET(s, CURLOPT_PIPEWAIT, (long)t->http2);
}

static bool is_method(const struct er_transfer *t, const char *method) { return strcmp(t->method, method) == 0; }

static void set_file_body(struct setter *s, struct er_transfer *t) {
    SET(s, CURLOPT_UPLOAD, 1L);
    SET(s, CURLOPT_INFILESIZE_LARGE, (curl_off_t)t->body_file_length);
    SET(s, CURLOPT_UPLOAD_BUFFERSIZE, 128 * 1024L);
    SET(s, CURLOPT_READFUNCTION, er_http_on_send);
    SET(s, CURLOPT_READDATA, t);
    SET(s, CURLOPT_SEEKFUNCTION, er_http_on_rewind);
    SET(s, CURLOPT_SEEKDATA, t);
    SET(s, CURLOPT_CUSTOMREQUEST, t->method);
}

// POSTFIELDS is curl's way to send header and body in one write, whatever the method.
static void set_method(struct setter *s, struct er_transfer *t) {
    bool expects_length = is_method(t, "POST") || is_method(t, "PUT") || is_method(t, "PATCH");
    if (t->body_fd >= 0 || t->feeds) {
        set_file_body(s, t);
    } else if (t->has_body || expects_length) {
        SET(s, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->body_length);
        SET(s, CURLOPT_POSTFIELDS, t->body ? t->body : "");
        SET(s, CURLOPT_CUSTOMREQUEST, t->method);
    } else if (is_method(t, "HEAD")) {
        SET(s, CURLOPT_NOBODY, 1L);
    } else {
        SET(s, CURLOPT_CUSTOMREQUEST, t->method);
    }
}

static void set_way(struct setter *s, struct er_transfer *t) {
    if (t->unix_path && t->unix_path[0] == '@') {
        SET(s, CURLOPT_ABSTRACT_UNIX_SOCKET, t->unix_path + 1);
    } else if (t->unix_path) {
        SET(s, CURLOPT_UNIX_SOCKET_PATH, t->unix_path);
    } else {
        SET(s, CURLOPT_TCP_KEEPALIVE, 1L);
    }
    if (t->connect_to.data) {
        SET(s, CURLOPT_CONNECT_TO, &t->connect_to);
    }
    if (t->routed) {
        SET(s, CURLOPT_PROXY, "");
    } else if (t->client->proxy) {
        SET(s, CURLOPT_PROXY, t->client->proxy);
        SET(s, CURLOPT_NOPROXY, ""); // no_proxy is about the environment's proxies
    }
}

// OpenSSL would judge certificates by the machine's time.
static CURLcode on_ssl_context(CURL *easy, void *context, void *transfer) {
    (void)easy;
    struct er_transfer *t = transfer;
    bool resumes = er_http_session_is_ours(t) && er_http_session_offer(t, context);
    if (er_http_identity_is_ours(t)) {
        er_http_identity_offer(t, context, !resumes);
    }
    X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(context), (time_t)(er_now(t->client->rt) / 1000000000));
    return CURLE_OK;
}

static void set_blob(struct setter *s, CURLoption option, char *bytes, size_t length) {
    if (bytes) {
        struct curl_blob blob = {.data = bytes, .len = length, .flags = CURL_BLOB_NOCOPY};
        SET(s, option, &blob);
    }
}

static void set_tls(struct setter *s, struct er_transfer *t) {
    struct er_http_client *client = t->client;
    SET(s, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(s, CURLOPT_SSL_SESSIONID_CACHE, 0L); // curl would not look at the certificate's dates; see http_session.c
    SET(s, CURLOPT_SSL_CTX_FUNCTION, on_ssl_context);
    SET(s, CURLOPT_SSL_CTX_DATA, t);
    SET(s, CURLOPT_SSL_VERIFYPEER, client->insecure ? 0L : 1L);
    SET(s, CURLOPT_SSL_VERIFYHOST, client->insecure ? 0L : 2L);
    if (client->ca_file || client->ca_pem) {
        SET(s, CURLOPT_CAPATH, NULL);
        SET(s, CURLOPT_CAINFO, client->ca_file);
    }
    if (!er_http_session_is_ours(t)) {
        set_blob(s, CURLOPT_CAINFO_BLOB, client->ca_pem, client->ca_pem_length);
    }
    if (!er_http_identity_is_ours(t)) {
        set_blob(s, CURLOPT_SSLCERT_BLOB, client->cert_pem, client->cert_pem_length);
        set_blob(s, CURLOPT_SSLKEY_BLOB, client->key_pem, client->key_pem_length);
    }
}

enum er_status er_http_set_options(struct er_transfer *t) {
    struct setter setter = {.curl = t->client->curl, .easy = t->easy};
    set_common(&setter, t);
    set_version(&setter, t);
    set_method(&setter, t);
    set_way(&setter, t);
    if (t->place.tls) {
        set_tls(&setter, t);
    }
    return setter.code == CURLE_OK ? ER_OK : setter.code == CURLE_OUT_OF_MEMORY ? ER_NO_MEMORY : ER_INTERNAL;
}
