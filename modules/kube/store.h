// SPDX-License-Identifier: Apache-2.0
// The objects of one collection, of each the wanted fields alone, kept right by lists and watch events. No Lua here.
#ifndef EIRUN_KUBE_STORE_H
#define EIRUN_KUBE_STORE_H

#include "pick.h"

// Every store knows these of an object; the fields that its user wants follow.
enum { ER_STORE_NAMESPACE, ER_STORE_NAME, ER_STORE_VERSION, ER_STORE_UID, ER_STORE_OWN };

enum er_store_change { ER_STORE_ADDED, ER_STORE_MODIFIED, ER_STORE_DELETED };

struct er_store_row {
    uint32_t hash, epoch;
    uint32_t capacity;                      // of data
    uint16_t namespace_length, name_length; // raw, without quotes
    bool live, queued, told;                // told: its user knows that it is there
    uint64_t place;                         // in the queue, counted from its first row ever
    uint32_t ends[];                        // where each field ends in what follows the array
};

struct er_store {
    struct er_pick item, event, head;
    struct er_store_row **slots; // open addressing; NULL: free
    size_t slot_count, count;
    size_t bytes; // of all rows
    uint32_t epoch;
    struct er_buf line;            // the beginning of a line that is not whole yet
    struct er_buf version;         // to go on from
    struct er_store_row **changed; // queue of rows with news, oldest first
    size_t changed_first, changed_count, changed_capacity;
    uint64_t taken;  // from the queue, ever
    bool tracks;     // changes are queued
    uint64_t events; // that said something
};

// Paths as er_pick_add takes them.
enum er_status er_store_init(struct er_store *store, const char *const *paths, size_t count, struct er_error *err);
void er_store_release(struct er_store *store); // may run twice

// A list, page by page: er_store_begin, er_store_page for each, er_store_finish: what was in no page is deleted.
void er_store_begin(struct er_store *store);
// `more` is set to the page's token, NULL on the last one; it points into `text` (raw JSON, without quotes).
enum er_status er_store_page(struct er_store *store, const char *text, size_t length, struct er_slice *more,
                             struct er_error *err);
enum er_status er_store_finish(struct er_store *store, struct er_error *err);

struct er_store_news {
    size_t events;
    bool listed;            // the end of a watch-list's first objects came by
    struct er_slice failed; // the object of an ERROR event; what follows is not read
};
// Bytes of a watch, as they come.
enum er_status er_store_feed(struct er_store *store, const char *bytes, size_t length, struct er_store_news *news,
                             struct er_error *err);
void er_store_forget_line(struct er_store *store); // a new stream begins

struct er_store_row *er_store_find(const struct er_store *store, const char *namespace, size_t namespace_length,
                                   const char *name, size_t name_length);
struct er_slice er_store_field(const struct er_store *store, const struct er_store_row *row, int field);
// The oldest change, false for none. A deleted row is the caller's then (er_free).
bool er_store_next_change(struct er_store *store, enum er_store_change *change, struct er_store_row **row);

#endif
