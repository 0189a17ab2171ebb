// SPDX-License-Identifier: Apache-2.0
// TLS sessions that outlive the process, for a client that names a folder for them. The first run shakes hands in full
// and leaves the server's TLS 1.3 ticket in a file; the next one resumes: no certificate is sent, verified or signed
// for on either side. A session is only kept where the server was verified under this very configuration, of which the
// file's name is a digest, and no longer than every certificate that had a part in it is good. Whoever reads the file
// can speak for the client until then, as with its key: it is the owner's alone. A server that does not take the ticket
// shakes hands in full, and is verified as ever.
#include "encoding.h"
#include "fs.h"
#include "http_internal.h"
#include "text.h"

#include <fcntl.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_SECONDS = 24 * 3600, MAX_FILE = 32 << 10, NAME_SIZE = 2 * 32 + 1 };

// ---- what decides trust and identity

static bool add_part(struct er_digest *digest, const void *bytes, size_t length) {
    uint64_t size = length; // goes first, or two parts could be cut elsewhere
    return er_digest_update(digest, &size, sizeof size) == ER_OK && er_digest_update(digest, bytes, length) == ER_OK;
}

static const char *name_to_verify(const struct er_http_client *client) {
    return client->tls_server_name ? client->tls_server_name : client->session.host;
}

static bool add_configuration(struct er_digest *digest, const struct er_http_client *client) {
    const char *name = name_to_verify(client);
    return add_part(digest, client->session.host, strlen(client->session.host)) &&
           add_part(digest, &client->session.port, sizeof client->session.port) &&
           add_part(digest, name, strlen(name)) && add_part(digest, client->ca_pem, client->ca_pem_length) &&
           add_part(digest, client->cert_pem, client->cert_pem_length) &&
           add_part(digest, client->key_pem, client->key_pem_length); // a key that is none must fail as ever
}

static bool name_file(const struct er_http_client *client, char into[NAME_SIZE]) {
    struct er_digest digest = {0};
    unsigned char bytes[ER_DIGEST_MAX];
    size_t length = 0;
    bool ok = er_digest_open(&digest, ER_DIGEST_SHA256) == ER_OK && add_configuration(&digest, client) &&
              er_digest_final(&digest, bytes, &length) == ER_OK;
    er_digest_close(&digest);
    if (ok) {
        er_hex_encode(into, bytes, length);
        into[2 * length] = '\0';
    }
    return ok;
}

static char *path_of(const struct er_http_client *client) {
    char name[NAME_SIZE];
    size_t size = strlen(client->session.folder) + sizeof name + 1;
    char *path = name_file(client, name) ? er_alloc(size) : NULL;
    if (path) {
        snprintf(path, size, "%s/%s", client->session.folder, name);
    }
    return path;
}

// ---- the file

static bool is_private(int fd, mode_t type) {
    struct stat is;
    return fstat(fd, &is) == 0 && (is.st_mode & S_IFMT) == type && is.st_uid == geteuid() && (is.st_mode & 077) == 0;
}

static SSL_SESSION *decode(const unsigned char *bytes, size_t length) {
    const unsigned char *end = bytes;
    SSL_SESSION *session = d2i_SSL_SESSION(NULL, &end, (long)length);
    bool good = session && end == bytes + length && SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION &&
                SSL_SESSION_get_time(session) <= time(NULL) && SSL_SESSION_get_timeout(session) <= MAX_SECONDS;
    if (!good) {
        SSL_SESSION_free(session);
        return NULL;
    }
    return session;
}

// NULL for a file that is not there, is not ours alone, or is damaged.
static SSL_SESSION *read_file(const char *path) {
    unsigned char bytes[MAX_FILE];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    ssize_t length = fd >= 0 && is_private(fd, S_IFREG) ? read(fd, bytes, sizeof bytes) : 0;
    SSL_SESSION *session = length > 0 ? decode(bytes, (size_t)length) : NULL;
    if (fd >= 0) {
        close(fd);
    }
    if (length > 0) {
        OPENSSL_cleanse(bytes, (size_t)length);
    }
    return session;
}

static bool open_folder(const char *folder) {
    struct er_fs_failure failure;
    int fd = er_fs_mkdir(folder, 0700, true, &failure) == ER_OK ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool good = fd >= 0 && is_private(fd, S_IFDIR);
    if (fd >= 0) {
        close(fd);
    }
    return good;
}

// Sessions of identities that nobody uses any more.
static void remove_old(const char *folder) {
    struct er_fs_names list = {0};
    struct er_fs_failure failure;
    struct stat is;
    (void)er_fs_list(folder, &list, &failure);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; fd >= 0 && i < list.count; i++) {
        if (fstatat(fd, list.names[i], &is, AT_SYMLINK_NOFOLLOW) == 0 && is.st_mtime < time(NULL) - MAX_SECONDS) {
            (void)unlinkat(fd, list.names[i], 0);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    er_fs_names_release(&list);
}

// What cannot be kept is a pity and no failure.
static void write_file(const struct er_http_session *kept) {
    static const struct er_fs_write_opts opts = {.mode = 0600, .atomic = true};
    struct er_fs_failure failure;
    unsigned char *bytes = NULL;
    int length = i2d_SSL_SESSION(kept->session, &bytes);
    if (length > 0 && length <= MAX_FILE && open_folder(kept->folder)) {
        remove_old(kept->folder);
        (void)er_fs_write(kept->path, (const char *)bytes, (size_t)length, &opts, &failure);
    }
    if (length > 0) {
        OPENSSL_clear_free(bytes, (size_t)length);
    }
}

// ---- a session to keep

static void shorten(long *seconds, const X509 *certificate) {
    int days = 0, rest = 0;
    bool known = certificate && ASN1_TIME_diff(&days, &rest, NULL, X509_get0_notAfter(certificate)) == 1;
    long left = known ? days * 86400L + rest : 0;
    *seconds = left < *seconds ? left : *seconds;
}

static long seconds_to_keep(SSL *ssl, const SSL_SESSION *session) {
    unsigned long hint = SSL_SESSION_get_ticket_lifetime_hint(session);
    long seconds = hint < MAX_SECONDS ? (long)hint : MAX_SECONDS;
    const STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        shorten(&seconds, sk_X509_value(chain, i));
    }
    if (SSL_get_certificate(ssl)) {
        shorten(&seconds, SSL_get_certificate(ssl));
    }
    return seconds;
}

// curl looks at the host's name after the handshake and again when it is resumed; here it counts before a session is
// kept.
static bool is_verified(SSL *ssl, const struct er_http_client *client) {
    X509 *server = SSL_get0_peer_certificate(ssl);
    const char *name = name_to_verify(client);
    return server && sk_X509_num(SSL_get0_verified_chain(ssl)) > 0 && SSL_get_verify_result(ssl) == X509_V_OK &&
           (X509_check_host(server, name, 0, 0, NULL) == 1 || X509_check_ip_asc(server, name, 0) == 1);
}

// A ticket that comes over a resumed session would only make an old verification last longer.
static bool is_to_keep(SSL *ssl, const SSL_SESSION *session, const struct er_http_client *client) {
    return !client->session.is_new && !SSL_session_reused(ssl) &&
           SSL_SESSION_get_protocol_version(session) == TLS1_3_VERSION && is_verified(ssl, client);
}

static struct er_http_client *client_of(const SSL *ssl) { return SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)); }

// 1: the session is ours from now on.
static int on_ticket(SSL *ssl, SSL_SESSION *session) {
    struct er_http_client *client = client_of(ssl);
    struct er_http_session *kept = &client->session;
    long seconds = is_to_keep(ssl, session, client) ? seconds_to_keep(ssl, session) : 0;
    if (seconds <= 0 || SSL_SESSION_set_timeout(session, seconds) != 1) {
        return 0;
    }
    SSL_SESSION_free(kept->session);
    kept->session = session;
    kept->is_new = true;
    write_file(kept);
    return 1;
}

// ---- a session to resume

static void on_info(const SSL *ssl, int where, int value) {
    (void)value;
    SSL_SESSION *session = client_of(ssl)->session.session;
    if (where & SSL_CB_HANDSHAKE_START && session && !SSL_get_session(ssl)) {
        (void)SSL_set_session((SSL *)ssl, session);
    }
}

static bool trust_one(X509_STORE *store, const X509_INFO *info) {
    return (!info->x509 || X509_STORE_add_cert(store, info->x509) == 1) &&
           (!info->crl || X509_STORE_add_crl(store, info->crl) == 1);
}

// As curl does it, but only when there is a certificate to verify.
static bool trust(const struct er_http_client *client, X509_STORE *store) {
    BIO *bio = client->ca_pem_length <= INT_MAX ? BIO_new_mem_buf(client->ca_pem, (int)client->ca_pem_length) : NULL;
    STACK_OF(X509_INFO) *list = bio ? PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL) : NULL;
    bool found = false, ok = list;
    for (int i = 0; ok && i < sk_X509_INFO_num(list); i++) {
        const X509_INFO *info = sk_X509_INFO_value(list, i);
        found = found || info->x509 || info->crl;
        ok = trust_one(store, info);
    }
    ERR_clear_error();
    sk_X509_INFO_pop_free(list, X509_INFO_free);
    BIO_free(bio);
    return ok && found;
}

static int on_certificate(X509_STORE_CTX *check, void *user) {
    struct er_http_client *client = user;
    client->session.bad_ca = !trust(client, X509_STORE_CTX_get0_store(check));
    return client->session.bad_ca ? 0 : X509_verify_cert(check);
}

// Without a proxy, past which nobody knows who shakes hands, and in real time, by which OpenSSL counts a ticket's age.
static bool may_keep(const struct er_transfer *t) {
    const struct er_http_client *client = t->client;
    return client->session.folder && client->ca_pem && !client->ca_file && !client->insecure && !t->routed &&
           client->proxy && !*client->proxy && er_clock_kind(client->rt) == ER_CLOCK_REAL;
}

// The client's first server is the one.
static bool is_its_server(struct er_http_session *kept, const struct er_url *place) {
    if (!kept->port) {
        kept->port = place->port;
        (void)er_text_copy(kept->host, sizeof kept->host, place->host);
    }
    return kept->port == place->port && strcmp(kept->host, place->host) == 0;
}

bool er_http_session_is_ours(const struct er_transfer *t) {
    return may_keep(t) && is_its_server(&t->client->session, &t->place);
}

static bool has_ended(const SSL_SESSION *session) {
    return SSL_SESSION_get_time(session) + SSL_SESSION_get_timeout(session) <= time(NULL);
}

static void look_up(struct er_http_client *client) {
    struct er_http_session *kept = &client->session;
    if (!kept->path && (kept->path = path_of(client))) {
        kept->session = read_file(kept->path);
        ERR_clear_error();
    }
    if (kept->session && has_ended(kept->session)) {
        SSL_SESSION_free(kept->session);
        kept->session = NULL;
        kept->is_new = false;
    }
}

bool er_http_session_offer(struct er_transfer *t, SSL_CTX *context) {
    struct er_http_client *client = t->client;
    look_up(client);
    SSL_CTX_set_app_data(context, client); // outlives all its connections
    SSL_CTX_set_cert_verify_callback(context, on_certificate, client);
    if (client->session.path) {
        SSL_CTX_sess_set_new_cb(context, on_ticket);
        SSL_CTX_set_info_callback(context, on_info);
    }
    return client->session.session;
}

void er_http_session_refused(struct er_http_session *kept) {
    if (kept->session) {
        unlink(kept->path);
        SSL_SESSION_free(kept->session);
        kept->session = NULL;
        kept->is_new = false;
    }
}

void er_http_session_release(struct er_http_session *kept) {
    if (kept->session) { // else OpenSSL need not even be loaded
        SSL_SESSION_free(kept->session);
    }
    er_free(kept->folder);
    er_free(kept->path);
}
