// SPDX-License-Identifier: Apache-2.0
// The picker against the real decoder: the same texts are JSON to both, and what stands at a path is the same. The
// picker does not compare keys that nobody asked for, nor look whether numbers fit, so there the decoder may refuse
// more.
#include "pick.h"
#include "store.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const paths[] = {"a", "a.b", "metadata.name", "metadata.labels['x/y']", "c.d.e"};
enum { PATHS = sizeof paths / sizeof paths[0] };
static const char *const steps[PATHS][3] = {
    {"a"}, {"a", "b"}, {"metadata", "name"}, {"metadata", "labels", "x/y"}, {"c", "d", "e"}};

static void require(bool condition, const char *what) {
    if (!condition) {
        fprintf(stderr, "not true: %s\n", what);
        abort();
    }
}

static const json_t *at_path(const json_t *root, const char *const *names) {
    for (int i = 0; root && i < 3 && names[i]; i++) {
        root = json_object_get(root, names[i]);
    }
    return root;
}

static void compare(const json_t *root, const struct er_slice *out) {
    for (int i = 0; i < PATHS; i++) {
        const json_t *wanted = at_path(root, steps[i]);
        require(!wanted == !out[i].at, "both have the field, or neither");
        if (wanted) {
            json_t *got = json_loadb(out[i].at, out[i].length, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
            require(got && json_equal(got, wanted), "the field is the same");
            json_decref(got);
        }
    }
}

static void pick(const char *text, size_t size) {
    struct er_pick pick = {0};
    struct er_slice out[ER_PICK_MAX_FIELDS];
    struct er_error err;
    for (int i = 0; i < PATHS; i++) {
        require(er_pick_add(&pick, paths[i], &err) == ER_OK, "path");
    }
    enum er_status status = er_pick_value(&pick, text, size, out, &err);
    bool twice = status != ER_OK && strstr(err.message, "twice");
    json_error_t error;
    json_t *root = memchr(text, 0, size) ? NULL : json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (status == ER_OK) {
        bool allowed = memchr(text, 0, size) != NULL || json_error_code(&error) == json_error_numeric_overflow ||
                       json_error_code(&error) == json_error_null_byte_in_key;
        require(root || (allowed && !memchr(text, 0, size)), "what the picker takes, the decoder takes");
        if (root) {
            compare(root, out);
        }
    } else {
        require(!root || twice, "what the decoder takes, the picker takes");
    }
    json_decref(root);
    er_pick_release(&pick);
}

// A store must stand whatever comes, in pieces cut anywhere.
static void feed(const char *text, size_t size) {
    struct er_store store;
    struct er_store_news news;
    struct er_error err;
    struct er_slice more;
    require(er_store_init(&store, paths, 2, &err) == ER_OK, "store");
    store.tracks = true;
    size_t cut = size ? (unsigned char)text[0] % size : 0;
    if (er_store_feed(&store, text, cut, &news, &err) == ER_OK) {
        (void)er_store_feed(&store, text + cut, size - cut, &news, &err);
    }
    er_store_begin(&store);
    if (er_store_page(&store, text, size, &more, &err) == ER_OK) {
        (void)er_store_finish(&store, &err);
    }
    er_store_release(&store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1); // the exact size, so that the sanitizer sees one byte too many
    memcpy(text, data, size);
    char *tight = realloc(text, size ? size : 1);
    pick(tight, size);
    feed(tight, size);
    free(tight);
    return 0;
}
