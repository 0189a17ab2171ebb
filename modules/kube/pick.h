// SPDX-License-Identifier: Apache-2.0
// Wanted fields out of JSON text: the text is checked and passed over, what stands at the wanted paths is pointed at.
#ifndef EIRUN_KUBE_PICK_H
#define EIRUN_KUBE_PICK_H

#include "er.h"

#define ER_PICK_MAX_FIELDS 64
#define ER_PICK_MAX_NODES 256

struct er_slice {
    const char *at; // NULL: not there
    size_t length;
};

struct er_pick_node {
    char *key; // of the member that leads here
    size_t length;
    int child, next; // first member below, next one beside; 0 for none
    int field;       // which wanted path ends here, -1 for none
};

struct er_pick {
    struct er_pick_node *nodes; // [0] is the value itself
    int node_count, field_count;
};

void er_pick_init(struct er_pick *pick);
// Adds a path: names joined by dots, or `['any name']`, as metadata.labels['app.kubernetes.io/name']. Its number is the
// count of paths before it. ER_INVALID for what is no path and for one that was added before.
enum er_status er_pick_add(struct er_pick *pick, const char *path, struct er_error *err);
void er_pick_release(struct er_pick *pick); // may run twice

// Fills out[field_count] with the raw JSON at each path. The whole text must be one value. ER_INVALID with the byte's
// number for what is not JSON, and for a key on the way to a wanted field that is said twice; keys elsewhere are not
// compared.
enum er_status er_pick_value(const struct er_pick *pick, const char *text, size_t length, struct er_slice *out,
                             struct er_error *err);

// A list of the API's: `head` is filled from the list itself, each of its `items` is given to `on_item`, which may stop
// it.
struct er_pick_list {
    const struct er_pick *item, *list;
    enum er_status (*on_item)(void *data, const struct er_slice *fields, struct er_error *err);
    void *data;
};
enum er_status er_pick_items(const struct er_pick_list *wanted, const char *text, size_t length, struct er_slice *head,
                             struct er_error *err);

#endif
