// SPDX-License-Identifier: Apache-2.0
// libcurl, opened at the first use: a run that makes no request does not pay for loading it and its thirty
// dependencies.
#ifndef EIRUN_CURL_DL_H
#define EIRUN_CURL_DL_H

#include "er.h"

#include <curl/curl.h>

#define ER_CURL_FUNCTIONS(X)                                                                                           \
    X(version_info)                                                                                                    \
    X(global_init)                                                                                                     \
    X(easy_init)                                                                                                       \
    X(easy_cleanup)                                                                                                    \
    X(easy_reset)                                                                                                      \
    X(easy_setopt)                                                                                                     \
    X(easy_getinfo)                                                                                                    \
    X(easy_pause)                                                                                                      \
    X(easy_strerror)                                                                                                   \
    X(multi_init)                                                                                                      \
    X(multi_cleanup)                                                                                                   \
    X(multi_setopt)                                                                                                    \
    X(multi_add_handle)                                                                                                \
    X(multi_remove_handle)                                                                                             \
    X(multi_socket_action)                                                                                             \
    X(multi_info_read)                                                                                                 \
    X(multi_assign)                                                                                                    \
    X(multi_strerror)

// curl_easy_init is `curl->easy_init`, and so on: same names, same types.
struct er_curl {
#define ER_CURL_MEMBER(name) __typeof__(curl_##name) *name;
    ER_CURL_FUNCTIONS(ER_CURL_MEMBER)
#undef ER_CURL_MEMBER
};

// Opens and initialises libcurl once for the process; on failure NULL and `err`.
const struct er_curl *er_curl_open(struct er_error *err);

// The version of the libcurl in use, without starting it; NULL when there is none.
const char *er_curl_version(void);

#endif
