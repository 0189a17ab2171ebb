// SPDX-License-Identifier: Apache-2.0
// TLS over a BIO pair: libuv reads into the pair's ring, SSL_read and SSL_write sit on its other end.
#include "http_server_impl.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <string.h>

enum { CIPHER_SIZE = 64 << 10, RECORD_SIZE = 16 << 10 };

static enum er_status tls_fail(struct er_error *err, const char *what) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    enum er_status status = er_fail(err, ER_INVALID, "cannot use %s: %s", what, reason ? reason : "not valid");
    ERR_clear_error();
    return status;
}

static BIO *memory_bio(struct er_httpd_bytes pem) {
    return pem.length > INT_MAX ? NULL : BIO_new_mem_buf(pem.data, (int)pem.length);
}

static bool use_chain(SSL_CTX *context, BIO *bio) {
    X509 *leaf = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
    bool ok = leaf && SSL_CTX_use_certificate(context, leaf) == 1;
    X509_free(leaf);
    X509 *more;
    while (ok && (more = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        ok = SSL_CTX_add0_chain_cert(context, more) == 1;
        if (!ok) {
            X509_free(more);
        }
    }
    return ok;
}

static int no_passphrase(char *buf, int size, int writing, void *user) {
    (void)buf, (void)size, (void)writing, (void)user;
    return -1; // never ask the terminal
}

static bool use_key(SSL_CTX *context, BIO *bio) {
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    bool ok = key && SSL_CTX_use_PrivateKey(context, key) == 1 && SSL_CTX_check_private_key(context) == 1;
    EVP_PKEY_free(key);
    return ok;
}

static bool trust_clients(SSL_CTX *context, BIO *bio) {
    X509_STORE *store = SSL_CTX_get_cert_store(context);
    size_t count = 0;
    X509 *ca;
    while ((ca = PEM_read_bio_X509(bio, NULL, NULL, NULL))) {
        bool ok = X509_STORE_add_cert(store, ca) == 1 && SSL_CTX_add_client_CA(context, ca) == 1;
        X509_free(ca);
        if (!ok) {
            return false;
        }
        count++;
    }
    return count > 0;
}

static enum er_status load(SSL_CTX *context, struct er_httpd_bytes pem, bool (*use)(SSL_CTX *, BIO *), const char *what,
                           struct er_error *err) {
    BIO *bio = memory_bio(pem);
    bool ok = bio && use(context, bio);
    BIO_free(bio);
    if (!ok) {
        return tls_fail(err, what);
    }
    ERR_clear_error(); // the end of a PEM file is an error to OpenSSL
    return ER_OK;
}

static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *length, const unsigned char *offered,
                       unsigned offered_length, void *user) {
    (void)ssl, (void)user;
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *selected;
    if (SSL_select_next_proto(&selected, length, ours, sizeof ours - 1, offered, offered_length) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = selected;
    return SSL_TLSEXT_ERR_OK;
}

static bool configure(SSL_CTX *context) {
    SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_IGNORE_UNEXPECTED_EOF | SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(context,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(context, select_alpn, NULL);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 && SSL_CTX_set_num_tickets(context, 0) == 1;
}

static enum er_status load_all(SSL_CTX *context, const struct er_httpd_tls_opts *opts, struct er_error *err) {
    if (!configure(context)) {
        return tls_fail(err, "TLS");
    }
    enum er_status status = load(context, opts->cert_pem, use_chain, "cert_pem", err);
    if (status == ER_OK) {
        status = load(context, opts->key_pem, use_key, "key_pem", err);
    }
    if (status == ER_OK && opts->client_ca_pem.length) {
        status = load(context, opts->client_ca_pem, trust_clients, "client_ca_pem", err);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER | (opts->client_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
                           NULL);
    }
    return status;
}

enum er_status er_httpd_tls_context(const struct er_httpd_tls_opts *opts, SSL_CTX **context, struct er_error *err) {
    ERR_clear_error();
    SSL_CTX *made = SSL_CTX_new(TLS_server_method());
    if (!made) {
        return tls_fail(err, "TLS");
    }
    enum er_status status = load_all(made, opts, err);
    if (status != ER_OK) {
        SSL_CTX_free(made);
        return status;
    }
    *context = made;
    return ER_OK;
}

enum er_status er_httpd_tls_open(struct er_httpd_conn *conn) {
    BIO *inner = NULL;
    conn->ssl = SSL_new(conn->server->tls);
    if (!conn->ssl || BIO_new_bio_pair(&inner, 0, &conn->wire, 0) != 1) {
        ERR_clear_error();
        return ER_NO_MEMORY;
    }
    SSL_set_bio(conn->ssl, inner, inner);
    SSL_set_accept_state(conn->ssl);
    // Client certificates are judged at the run's time, not at the machine's.
    X509_VERIFY_PARAM_set_time(SSL_get0_param(conn->ssl), (time_t)(er_now(conn->server->rt) / 1000000000));
    return ER_OK;
}

static bool printable(const char *text, int length) {
    for (int i = 0; i < length; i++) {
        if ((unsigned char)text[i] < ' ') {
            return false;
        }
    }
    return length > 0;
}

// Appends the entry as a line; one that does not fit or holds control characters is left out, never cut.
static void add_name(char *into, size_t size, X509_NAME_ENTRY *entry) {
    unsigned char *text = NULL;
    int length = ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(entry));
    size_t used = strlen(into);
    if (printable((char *)text, length) && used + (size_t)length + 2 <= size) {
        snprintf(into + used, size - used, "%s%.*s", used ? "\n" : "", length, (char *)text);
    }
    OPENSSL_free(text);
}

static void add_names(X509 *cert, int nid, bool first_only, char *into, size_t size) {
    X509_NAME *name = X509_get_subject_name(cert);
    for (int at = -1; (at = X509_NAME_get_index_by_NID(name, nid, at)) >= 0;) {
        add_name(into, size, X509_NAME_get_entry(name, at));
        if (first_only) {
            return;
        }
    }
}

static void established(struct er_httpd_conn *conn) {
    struct er_httpd_peer *peer = conn->peer;
    const char *sni = SSL_get_servername(conn->ssl, TLSEXT_NAMETYPE_host_name);
    snprintf(peer->sni, sizeof peer->sni, "%s", sni ? sni : "");
    X509 *cert = SSL_get0_peer_certificate(conn->ssl);
    if (cert) {
        add_names(cert, NID_commonName, true, peer->cn, sizeof peer->cn);
        add_names(cert, NID_organizationName, false, peer->organizations, sizeof peer->organizations);
    }
    conn->phase = CONN_IDLE;
}

size_t er_httpd_tls_room(struct er_httpd_conn *conn, char **at) {
    int room = BIO_nwrite0(conn->wire, at);
    return room > 0 ? (size_t)room : 0;
}

void er_httpd_tls_arrived(struct er_httpd_conn *conn, size_t length) {
    char *at;
    BIO_nwrite(conn->wire, &at, (int)length); // uv read into this very place
}

static void on_read_error(struct er_httpd_conn *conn, int result) {
    int code = SSL_get_error(conn->ssl, result);
    ERR_clear_error();
    er_httpd_conn_flush(conn); // handshake records, or the alert
    if (conn->phase == CONN_CLOSED || code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE) {
        return;
    }
    if (code != SSL_ERROR_ZERO_RETURN) {
        er_httpd_conn_close(conn);
    } else if (!conn->eof) {
        conn->eof = true;
        if (conn->req) {
            conn->req->peer_closed = true;
            er_httpd_req_wake(conn->req);
        }
    }
}

void er_httpd_tls_read(struct er_httpd_conn *conn) {
    ERR_clear_error();
    int count = SSL_read(conn->ssl, conn->server->input, INPUT_SIZE);
    if (conn->phase == CONN_HANDSHAKE && SSL_is_init_finished(conn->ssl)) {
        established(conn);
    }
    if (count <= 0) {
        on_read_error(conn, count);
        return;
    }
    conn->in = conn->server->input;
    conn->in_length = (size_t)count;
    er_httpd_conn_flush(conn);
}

// Moves records from the pair to `cipher`.
static bool drain(struct er_httpd_conn *conn) {
    char *at;
    int count;
    while ((count = BIO_nread0(conn->wire, &at)) > 0) {
        if (er_buf_add(&conn->cipher, at, (size_t)count) != ER_OK) {
            return false;
        }
        BIO_nread(conn->wire, &at, count);
    }
    return true;
}

static bool encrypt_piece(struct er_httpd_conn *conn, struct er_httpd_bytes *piece) {
    while (piece->length > 0 && conn->cipher.length < CIPHER_SIZE) {
        ERR_clear_error();
        int count = SSL_write(conn->ssl, piece->data, piece->length < RECORD_SIZE ? (int)piece->length : RECORD_SIZE);
        if (count <= 0) {
            ERR_clear_error();
            return false;
        }
        piece->data += count;
        piece->length -= (size_t)count;
        if (!drain(conn)) {
            return false;
        }
    }
    return true;
}

bool er_httpd_tls_encrypt(struct er_httpd_conn *conn) {
    if (!drain(conn)) {
        return false;
    }
    for (size_t i = 0; i < 3; i++) {
        if (!encrypt_piece(conn, &conn->pieces[i])) {
            return false;
        }
    }
    return true;
}

void er_httpd_tls_goodbye(struct er_httpd_conn *conn) {
    ERR_clear_error();
    SSL_shutdown(conn->ssl);
    ERR_clear_error();
    er_httpd_conn_flush(conn);
}
