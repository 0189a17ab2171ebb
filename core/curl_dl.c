// SPDX-License-Identifier: Apache-2.0
#include "curl_dl.h"

#include <dlfcn.h>
#include <string.h>

static struct er_curl curl;
static bool is_open; // the library belongs to the process, whatever runtime asked first

#ifdef EIRUN_CURL_LINKED
// libcurl is part of the program, and what it calls of thirty libraries are stubs of lazy.c.
static enum er_status find_library(struct er_error *err) {
    (void)err;
    curl = (struct er_curl){
#define ER_CURL_ADDRESS(name) .name = curl_##name,
        ER_CURL_FUNCTIONS(ER_CURL_ADDRESS)
#undef ER_CURL_ADDRESS
    };
    return ER_OK;
}

// Asking it would open all that it calls; the header and the archive are of one package.
const char *er_curl_version(void) { return LIBCURL_VERSION; }
#else
static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define ER_CURL_SYMBOL(symbol) {"curl_" #symbol, offsetof(struct er_curl, symbol)},
    ER_CURL_FUNCTIONS(ER_CURL_SYMBOL)
#undef ER_CURL_SYMBOL
};

static enum er_status find_library(struct er_error *err) {
    void *library = dlopen("libcurl.so.4", RTLD_LAZY | RTLD_LOCAL); // it has thousands of symbols, one run needs few
    if (!library) {
        return er_fail(err, ER_INTERNAL, "cannot load libcurl: %s", dlerror());
    }
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            return er_fail(err, ER_INTERNAL, "libcurl is too old: it has no %s", symbols[i].name);
        }
        memcpy((char *)&curl + symbols[i].offset, &symbol, sizeof symbol);
    }
    return ER_OK;
}

const char *er_curl_version(void) {
    struct er_error err;
    if (!curl.version_info && find_library(&err) != ER_OK) {
        return NULL;
    }
    return curl.version_info(CURLVERSION_NOW)->version;
}
#endif

static enum er_status open_library(struct er_error *err) {
    if (find_library(err) != ER_OK) {
        return err->status;
    }
    if (curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        return er_fail(err, ER_INTERNAL, "cannot start libcurl");
    }
    is_open = true;
    return ER_OK;
}

const struct er_curl *er_curl_open(struct er_error *err) {
    return is_open || open_library(err) == ER_OK ? &curl : NULL;
}
