// SPDX-License-Identifier: Apache-2.0
#include "tls_client.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

// The latest session is kept for the next connection of the same thread. TLS 1.3 sends it after the handshake.
static int on_session(SSL *ssl, SSL_SESSION *session) {
    SSL_SESSION **place = SSL_get_app_data(ssl);
    er_tls_forget(place);
    *place = session;
    return 1; // it is ours now
}

void er_tls_forget(struct ssl_session_st **session) {
    SSL_SESSION_free(*session);
    *session = NULL;
}

static bool add_pem(SSL_CTX *context, const char *pem) {
    BIO *bio = BIO_new_mem_buf(pem, -1);
    size_t count = 0;
    X509 *certificate;
    while (bio && (certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        count += X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate) == 1;
        X509_free(certificate);
    }
    ERR_clear_error(); // the end of a PEM text is an error to OpenSSL
    BIO_free(bio);
    return count > 0;
}

static enum er_status trust(SSL_CTX *context, const struct er_tls_options *options, struct er_error *err) {
    if (options->ca_file && SSL_CTX_load_verify_file(context, options->ca_file) != 1) {
        ERR_clear_error();
        return er_fail(err, ER_INVALID, "'%s' holds no certificate that can be read", options->ca_file);
    }
    if (options->ca_pem && !add_pem(context, options->ca_pem)) {
        return er_fail(err, ER_INVALID, "ca_pem holds no certificate");
    }
    if (!options->ca_file && !options->ca_pem && SSL_CTX_set_default_verify_paths(context) != 1) {
        return er_fail(err, ER_INTERNAL, "the system's certificates cannot be read");
    }
    return ER_OK;
}

static enum er_status set_up(struct er_tls *tls, const struct er_tls_options *options, struct er_error *err) {
    static const unsigned char http1[] = "\x08http/1.1", h2[] = "\x02h2";
    SSL_CTX *context = tls->context;
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS); // thousands of idle connections
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, on_session);
    SSL_CTX_set_verify(context, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(context), (time_t)(options->now / 1000000000));
    if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_alpn_protos(context, options->h2 ? h2 : http1, options->h2 ? sizeof h2 - 1 : sizeof http1 - 1) !=
            0) {
        return er_fail(err, ER_INTERNAL, "TLS cannot be set up");
    }
    return options->verify ? trust(context, options, err) : ER_OK;
}

enum er_status er_tls_init(struct er_tls *tls, const struct er_tls_options *options, struct er_error *err) {
    unsigned char address[sizeof(struct in6_addr)];
    tls->context = SSL_CTX_new(TLS_client_method());
    tls->host = er_strdup(options->host);
    if (!tls->context || !tls->host) {
        er_tls_release(tls);
        return er_fail(err, ER_NO_MEMORY, "not enough memory for TLS");
    }
    tls->is_address =
        inet_pton(AF_INET, options->host, address) == 1 || inet_pton(AF_INET6, options->host, address) == 1;
    enum er_status status = set_up(tls, options, err);
    if (status != ER_OK) {
        er_tls_release(tls);
    }
    return status;
}

void er_tls_release(struct er_tls *tls) {
    SSL_CTX_free(tls->context);
    er_free(tls->host);
    *tls = (struct er_tls){0};
}

static bool name_peer(const struct er_tls *tls, SSL *ssl) {
    if (tls->is_address) {
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), tls->host) == 1;
    }
    return SSL_set_tlsext_host_name(ssl, tls->host) == 1 && SSL_set1_host(ssl, tls->host) == 1;
}

struct ssl_st *er_tls_open(const struct er_tls *tls, int fd, struct ssl_session_st **session) {
    SSL *ssl = SSL_new(tls->context);
    if (!ssl || SSL_set_fd(ssl, fd) != 1 || !name_peer(tls, ssl)) {
        SSL_free(ssl);
        ERR_clear_error();
        return NULL;
    }
    SSL_set_app_data(ssl, session);
    if (*session) {
        SSL_set_session(ssl, *session);
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

// Says no farewell, but makes OpenSSL believe so: else the session could not be resumed.
void er_tls_close(struct ssl_st *ssl) {
    if (ssl) {
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
        SSL_free(ssl);
    }
}

static void explain(SSL *ssl, char *reason, size_t size) {
    long verdict = SSL_get_verify_result(ssl);
    const char *text =
        verdict != X509_V_OK ? X509_verify_cert_error_string(verdict) : ERR_reason_error_string(ERR_peek_last_error());
    snprintf(reason, size, "%s%s", verdict != X509_V_OK ? "the certificate does not verify: " : "",
             text ? text : "the connection ended in the TLS handshake");
    ERR_clear_error();
}

enum er_tls_shaken er_tls_shake(struct ssl_st *ssl, char *reason, size_t size) {
    ERR_clear_error();
    int done = SSL_do_handshake(ssl);
    if (done == 1) {
        return ER_SHAKE_DONE;
    }
    int why = SSL_get_error(ssl, done);
    if (why == SSL_ERROR_WANT_READ) {
        return ER_SHAKE_WANT_READ;
    }
    if (why == SSL_ERROR_WANT_WRITE) {
        return ER_SHAKE_WANT_WRITE;
    }
    explain(ssl, reason, size);
    return ER_SHAKE_FAILED;
}

static ssize_t failure(SSL *ssl, int result) {
    int why = SSL_get_error(ssl, result);
    ERR_clear_error();
    if (why == SSL_ERROR_ZERO_RETURN) {
        return 0;
    }
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return -1;
}

ssize_t er_tls_send(struct ssl_st *ssl, const char *bytes, size_t length) {
    size_t sent = 0;
    int ok = SSL_write_ex(ssl, bytes, length, &sent);
    return ok ? (ssize_t)sent : failure(ssl, ok) < 0 ? -1 : (errno = EPIPE, -1);
}

ssize_t er_tls_receive(struct ssl_st *ssl, char *into, size_t size) {
    size_t got = 0;
    int ok = SSL_read_ex(ssl, into, size, &got);
    return ok ? (ssize_t)got : failure(ssl, ok);
}

bool er_tls_speaks_h2(const struct ssl_st *ssl) {
    const unsigned char *protocol;
    unsigned length;
    SSL_get0_alpn_selected(ssl, &protocol, &length);
    return length == 2 && memcmp(protocol, "h2", 2) == 0;
}

bool er_tls_pending(const struct ssl_st *ssl) { return SSL_pending(ssl) > 0; }

void er_tls_hurry(struct ssl_st *ssl) {
    SSL_clear_mode(ssl, SSL_MODE_RELEASE_BUFFERS);
    SSL_set_read_ahead(ssl, 1);
}

bool er_tls_buffered(const struct ssl_st *ssl) { return SSL_has_pending(ssl); }

bool er_tls_silent(struct ssl_st *ssl) {
    if (!SSL_has_pending(ssl)) {
        return true;
    }
    char byte;
    size_t got = 0;
    int ok = SSL_peek_ex(ssl, &byte, 1, &got); // what waits may be a ticket, which is none of the answer
    return !ok && failure(ssl, ok) < 0 && errno == EAGAIN;
}
