// SPDX-License-Identifier: Apache-2.0
// What the halves of eirun.core.crypto share, and digests for bindings that stream bytes.
#ifndef EIRUN_BIND_CRYPTO_H
#define EIRUN_BIND_CRYPTO_H

#include "bind.h"
#include "crypto.h"

// Closes an open digest and pushes its value: raw bytes, or an integer for a CRC-64. Raises when OpenSSL fails. [-0,
// +1, m]
void er_push_digest(lua_State *L, struct er_digest *digest);

// The generator of this state. [-0, +0, m]
struct er_random *er_random_of(lua_State *L);

// ca_create and cert_issue into the table on top. [-0, +0, m]
void er_add_certificates(lua_State *L);

#endif
