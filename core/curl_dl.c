// SPDX-License-Identifier: Apache-2.0
#include "curl_dl.h"

#include <dlfcn.h>
#include <string.h>

static struct er_curl curl;
static bool is_open; // the library belongs to the process, whatever runtime asked first

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
#define ER_CURL_SYMBOL(symbol) {"curl_" #symbol, offsetof(struct er_curl, symbol)},
    ER_CURL_FUNCTIONS(ER_CURL_SYMBOL)
#undef ER_CURL_SYMBOL
};

static enum er_status find_symbols(void *library, struct er_error *err) {
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol) {
            return er_fail(err, ER_INTERNAL, "libcurl is too old: it has no %s", symbols[i].name);
        }
        memcpy((char *)&curl + symbols[i].offset, &symbol, sizeof symbol);
    }
    return ER_OK;
}

const struct er_curl *er_curl_open(struct er_error *err) {
    if (is_open) {
        return &curl;
    }
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        er_fail(err, ER_INTERNAL, "cannot load libcurl: %s", dlerror());
        return NULL;
    }
    if (find_symbols(library, err) != ER_OK) {
        return NULL;
    }
    if (curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        er_fail(err, ER_INTERNAL, "cannot start libcurl");
        return NULL;
    }
    is_open = true;
    return &curl;
}
