// SPDX-License-Identifier: Apache-2.0
// TLS for connections that threads of their own carry: one context for all, resumed sessions, certificates checked at
// the run's time. The socket's own non-blocking calls below it, so a connection waits as it does without.
#ifndef EIRUN_TLS_CLIENT_H
#define EIRUN_TLS_CLIENT_H

#include "er.h"

#include <sys/types.h>

struct ssl_st;
struct ssl_ctx_st;
struct ssl_session_st;

struct er_tls_options {
    const char *host;    // SNI and the name that the certificate must hold; an address is only the latter
    const char *ca_file; // NULL: ca_pem; neither: the system's
    const char *ca_pem;
    bool verify;
    bool h2;     // HTTP/2 is offered, else HTTP/1.1
    int64_t now; // nanoseconds since the epoch
};

struct er_tls {
    struct ssl_ctx_st *context;
    char *host;
    bool is_address;
};

// ER_INVALID names the file that holds no certificate; ER_NO_MEMORY.
enum er_status er_tls_init(struct er_tls *tls, const struct er_tls_options *options, struct er_error *err);
void er_tls_release(struct er_tls *tls); // may run twice

// A connection on `fd`, which stays the caller's. `session` is where the latest session is kept and taken from: one
// place a thread. NULL: no memory.
struct ssl_st *er_tls_open(const struct er_tls *tls, int fd, struct ssl_session_st **session);
void er_tls_close(struct ssl_st *ssl); // NULL is fine
void er_tls_forget(struct ssl_session_st **session);

enum er_tls_shaken { ER_SHAKE_DONE, ER_SHAKE_WANT_READ, ER_SHAKE_WANT_WRITE, ER_SHAKE_FAILED };
// On failure `reason` gets one line.
enum er_tls_shaken er_tls_shake(struct ssl_st *ssl, char *reason, size_t size);

// As send and recv: -1 with EAGAIN to wait, 0 from receive when the peer said that it ends.
ssize_t er_tls_send(struct ssl_st *ssl, const char *bytes, size_t length);
ssize_t er_tls_receive(struct ssl_st *ssl, char *into, size_t size);
bool er_tls_speaks_h2(const struct ssl_st *ssl); // once the handshake is done: was it agreed on?
bool er_tls_pending(const struct ssl_st *ssl);   // bytes that no poll will tell of

// For connections that are few and busy: buffers are kept, and one call to the kernel takes all that has come. After it
// er_tls_pending does not tell of everything, er_tls_buffered does; but some of that may be a part of a record.
void er_tls_hurry(struct ssl_st *ssl);
bool er_tls_buffered(const struct ssl_st *ssl);
bool er_tls_silent(struct ssl_st *ssl); // the peer has said nothing that was not read

#endif
