// SPDX-License-Identifier: Apache-2.0
// The client's certificate and key. Where no proxy stands between, they are read once for all connections, and while
// the first server thinks about our greeting: decoding a key takes OpenSSL half a millisecond.
#include "http_internal.h"

#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

static BIO *open_text(const char *text, size_t length) {
    return text && length <= INT_MAX ? BIO_new_mem_buf(text, (int)length) : NULL;
}

static bool read_certificates(struct er_http_identity *identity, BIO *bio) {
    identity->certificate = PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
    identity->chain = sk_X509_new_null();
    bool ok = identity->certificate && identity->chain;
    for (X509 *more; ok && (more = PEM_read_bio_X509(bio, NULL, NULL, NULL));) {
        ok = sk_X509_push(identity->chain, more) > 0;
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

static bool read_pem(struct er_http_client *client, BIO *certificates, BIO *key) {
    struct er_http_identity *identity = &client->identity;
    if (!certificates || !key || !read_certificates(identity, certificates)) {
        return false;
    }
    identity->key = PEM_read_bio_PrivateKey(key, NULL, no_passphrase, NULL);
    return identity->key && X509_check_private_key(identity->certificate, identity->key) == 1;
}

void er_http_identity_release(struct er_http_identity *identity) {
    if (identity->was_read) { // else OpenSSL need not even be loaded
        X509_free(identity->certificate);
        sk_X509_pop_free(identity->chain, X509_free);
        EVP_PKEY_free(identity->key); // wipes it
    }
}

static void read_once(struct er_http_client *client) {
    if (client->identity.was_read) {
        return;
    }
    BIO *certificates = open_text(client->cert_pem, client->cert_pem_length);
    BIO *key = open_text(client->key_pem, client->key_pem_length);
    client->identity.was_read = true;
    client->identity.bad = !read_pem(client, certificates, key);
    ERR_clear_error(); // the end of a PEM text is an error to OpenSSL
    BIO_free(certificates);
    BIO_free(key);
}

static void on_spare_time(uv_idle_t *idle) {
    uv_idle_stop(idle);
    read_once(idle->data);
}

void er_http_identity_init(struct er_http_client *client) {
    uv_idle_init(er_loop(client->rt), &client->spare_time);
    client->spare_time.data = client;
}

// The server wants to know who we are.
static int on_asked(SSL *ssl, void *data) {
    struct er_http_client *client = data;
    read_once(client);
    const struct er_http_identity *identity = &client->identity;
    return !identity->bad && SSL_use_certificate(ssl, identity->certificate) == 1 &&
           SSL_set1_chain(ssl, identity->chain) == 1 && SSL_use_PrivateKey(ssl, identity->key) == 1;
}

// An HTTPS proxy has a context of its own and is not shown who we are: there curl tells the two apart.
bool er_http_identity_is_ours(const struct er_transfer *t) {
    const char *proxy = t->client->proxy;
    return t->client->key_pem && t->client->cert_pem && (t->routed || (proxy && !*proxy));
}

void er_http_identity_offer(struct er_transfer *t, SSL_CTX *context, bool soon) {
    SSL_CTX_set_cert_cb(context, on_asked, t->client);
    if (soon && !t->client->identity.was_read) {
        uv_idle_start(&t->client->spare_time, on_spare_time);
    }
}
