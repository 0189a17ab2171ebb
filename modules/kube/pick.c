// SPDX-License-Identifier: Apache-2.0
#include "pick.h"
#include "scan.h"

#include <string.h>

// Paths
// ----------------------------------------------------------------------------------------------------------------

void er_pick_init(struct er_pick *pick) { *pick = (struct er_pick){0}; }

void er_pick_release(struct er_pick *pick) {
    for (int i = 0; i < pick->node_count; i++) {
        er_free(pick->nodes[i].key);
    }
    er_free(pick->nodes);
    er_pick_init(pick);
}

static enum er_status add_node(struct er_pick *pick, const char *key, size_t length, int *index, struct er_error *err) {
    if (!pick->nodes) {
        pick->nodes = er_calloc(ER_PICK_MAX_NODES, sizeof *pick->nodes);
    }
    char *copy = pick->nodes ? er_strndup(key, length) : NULL;
    if (!copy) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    if (pick->node_count == ER_PICK_MAX_NODES) {
        er_free(copy);
        return er_fail(err, ER_QUOTA, "more than %d names in all paths", ER_PICK_MAX_NODES);
    }
    *index = pick->node_count++;
    pick->nodes[*index] = (struct er_pick_node){.key = copy, .length = length, .field = -1};
    return ER_OK;
}

static int find_child(const struct er_pick *pick, int node, const char *key, size_t length) {
    for (int i = pick->nodes[node].child; i; i = pick->nodes[i].next) {
        if (pick->nodes[i].length == length && memcmp(pick->nodes[i].key, key, length) == 0) {
            return i;
        }
    }
    return 0;
}

static enum er_status step_into(struct er_pick *pick, int *node, const char *key, size_t length, struct er_error *err) {
    int child = find_child(pick, *node, key, length);
    enum er_status status = child ? ER_OK : add_node(pick, key, length, &child, err);
    if (status == ER_OK && !find_child(pick, *node, key, length)) {
        pick->nodes[child].next = pick->nodes[*node].child;
        pick->nodes[*node].child = child;
    }
    *node = child;
    return status;
}

// One name at `*at`, which moves behind it; length 0 when there is none.
static const char *next_name(const char **at, size_t *length) {
    const char *name = *at;
    if (name[0] == '[' && (name[1] == '\'' || name[1] == '"')) {
        const char *close = strchr(name + 2, name[1]);
        *length = close && close[1] == ']' ? (size_t)(close - name - 2) : 0;
        *at = *length ? close + 2 : name;
        return name + 2;
    }
    *length = strcspn(name, ".[]'\"");
    *at = name + *length;
    return name;
}

enum er_status er_pick_add(struct er_pick *pick, const char *path, struct er_error *err) {
    int node = 0;
    enum er_status status = pick->node_count ? ER_OK : add_node(pick, "", 0, &node, err);
    const char *at = path;
    while (status == ER_OK) {
        size_t length;
        const char *name = next_name(&at, &length);
        if (!length) {
            return er_fail(err, ER_INVALID, "'%s' is no path: write it as metadata.labels['app.kubernetes.io/name']",
                           path);
        }
        status = step_into(pick, &node, name, length, err);
        if (*at == '\0') {
            break;
        }
        at += *at == '.';
    }
    if (status != ER_OK) {
        return status;
    }
    if (pick->nodes[node].field >= 0 || pick->field_count == ER_PICK_MAX_FIELDS) {
        bool full = pick->nodes[node].field < 0;
        return full ? er_fail(err, ER_QUOTA, "more than %d fields", ER_PICK_MAX_FIELDS)
                    : er_fail(err, ER_INVALID, "'%s' is asked for twice", path);
    }
    pick->nodes[node].field = pick->field_count++;
    return ER_OK;
}

// Picking
// --------------------------------------------------------------------------------------------------------------

struct walk {
    struct er_scan scan;
    const char *text;
    const struct er_pick *pick;
    struct er_slice *out;
    bool seen[ER_PICK_MAX_NODES];
    const unsigned char *twice; // a key that was said twice
};

static unsigned hex_value(const char *digits) {
    unsigned value = 0;
    for (int i = 0; i < 4; i++) {
        char c = digits[i];
        value = value * 16 + (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

static size_t put_utf8(char *into, unsigned code) {
    if (code < 0x80) {
        into[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        into[0] = (char)(0xc0 | code >> 6);
        into[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        into[0] = (char)(0xe0 | code >> 12);
        into[1] = (char)(0x80 | (code >> 6 & 0x3f));
        into[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    into[0] = (char)(0xf0 | code >> 18);
    into[1] = (char)(0x80 | (code >> 12 & 0x3f));
    into[2] = (char)(0x80 | (code >> 6 & 0x3f));
    into[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

// Names are letters; a server may still write them with escapes. The scanner has found the text good.
static size_t unescape(const char *from, size_t length, char *into) {
    static const char plain[] = "\"\"\\\\//b\bf\fn\nr\rt\t";
    size_t used = 0;
    for (const char *end = from + length; from < end;) {
        if (*from != '\\') {
            into[used++] = *from++;
        } else if (from[1] != 'u') {
            into[used++] = strchr(plain, from[1])[1];
            from += 2;
        } else {
            unsigned code = hex_value(from + 2);
            from += 6;
            if (code >= 0xd800 && code <= 0xdbff) {
                code = 0x10000 + ((code - 0xd800) << 10) + (hex_value(from + 2) - 0xdc00);
                from += 6;
            }
            used += put_utf8(into + used, code);
        }
    }
    return used;
}

#define LONGEST_ESCAPED 1024 // no path is that long

static int child_of(struct walk *w, int node, const unsigned char *key, bool plain) {
    const char *name = (const char *)key + 1;
    size_t length = (size_t)(w->scan.at - key) - 2;
    if (plain) {
        return find_child(w->pick, node, name, length);
    }
    char decoded[LONGEST_ESCAPED];
    if (length > sizeof decoded) {
        return 0;
    }
    length = unescape(name, length, decoded);
    return find_child(w->pick, node, decoded, length);
}

static bool walk_value(struct walk *w, int node);

static bool walk_member(struct walk *w, int node) { // NOLINT(misc-no-recursion)
    const unsigned char *key = w->scan.at;
    bool plain;
    if (!er_scan_string(&w->scan, &plain)) {
        return false;
    }
    int child = child_of(w, node, key, plain);
    if (!er_scan_byte(&w->scan, ':')) {
        return false;
    }
    if (!child) {
        return er_scan_value(&w->scan);
    }
    if (w->seen[child]) {
        w->twice = key;
        return false;
    }
    w->seen[child] = true;
    return walk_value(w, child);
}

static bool walk_members(struct walk *w, int node) { // NOLINT(misc-no-recursion)
    struct er_scan *scan = &w->scan;
    scan->at++;
    er_scan_space(scan);
    if (scan->at < scan->end && *scan->at == '}') {
        scan->at++;
        return true;
    }
    scan->depth++;
    do {
        if (!walk_member(w, node)) {
            return false;
        }
    } while (er_scan_byte(scan, ','));
    er_scan_space(scan);
    scan->depth--;
    return scan->at < scan->end && *scan->at++ == '}';
}

// As deep as the deepest path.
static bool walk_value(struct walk *w, int node) { // NOLINT(misc-no-recursion)
    const struct er_pick_node *wanted = &w->pick->nodes[node];
    const unsigned char *start = w->scan.at;
    bool object = start < w->scan.end && *start == '{';
    if (!(object && wanted->child ? walk_members(w, node) : er_scan_value(&w->scan))) {
        return false;
    }
    if (wanted->field >= 0) {
        w->out[wanted->field] = (struct er_slice){(const char *)start, (size_t)(w->scan.at - start)};
    }
    return true;
}

static enum er_status not_json(const struct walk *w, struct er_error *err) {
    if (w->twice) {
        return er_fail(err, ER_INVALID, "byte %zu: a key is said twice",
                       (size_t)((const char *)w->twice - w->text) + 1);
    }
    return er_fail(err, ER_INVALID, "byte %zu: not JSON", (size_t)((const char *)w->scan.at - w->text) + 1);
}

static void begin(struct walk *w, const struct er_pick *pick, struct er_slice *out) {
    w->pick = pick;
    w->out = out;
    memset(w->seen, 0, (size_t)pick->node_count * sizeof w->seen[0]);
    memset(out, 0, (size_t)pick->field_count * sizeof *out);
}

static void open_text(struct walk *w, const char *text, size_t length) {
    w->scan = (struct er_scan){.at = (const unsigned char *)text, .end = (const unsigned char *)text + length};
    w->text = text;
    w->twice = NULL;
    er_scan_space(&w->scan);
}

enum er_status er_pick_value(const struct er_pick *pick, const char *text, size_t length, struct er_slice *out,
                             struct er_error *err) {
    struct walk w;
    open_text(&w, text, length);
    begin(&w, pick, out);
    bool good = walk_value(&w, 0);
    er_scan_space(&w.scan);
    return good && w.scan.at == w.scan.end ? ER_OK : not_json(&w, err);
}

// Lists
// ----------------------------------------------------------------------------------------------------------------

static enum er_status each_item(struct walk *w, const struct er_pick_list *wanted, struct er_error *err) {
    struct er_slice fields[ER_PICK_MAX_FIELDS];
    if (w->scan.at < w->scan.end && *w->scan.at == 'n') {
        return er_scan_value(&w->scan) ? ER_OK : not_json(w, err); // "items": null is an empty list
    }
    if (!er_scan_byte(&w->scan, '[')) {
        return not_json(w, err);
    }
    if (er_scan_byte(&w->scan, ']')) {
        return ER_OK;
    }
    do {
        er_scan_space(&w->scan);
        begin(w, wanted->item, fields);
        if (!walk_value(w, 0)) {
            return not_json(w, err);
        }
        enum er_status status = wanted->on_item(wanted->data, fields, err);
        if (status != ER_OK) {
            return status;
        }
    } while (er_scan_byte(&w->scan, ','));
    return er_scan_byte(&w->scan, ']') ? ER_OK : not_json(w, err);
}

// One member of the list itself: the items, what the head wants, or neither.
static enum er_status list_member(struct walk *w, const struct er_pick_list *wanted, bool *items,
                                  struct er_error *err) {
    const unsigned char *key = w->scan.at;
    bool plain;
    if (!er_scan_string(&w->scan, &plain)) {
        return not_json(w, err);
    }
    bool is_items = (size_t)(w->scan.at - key) == 7 && memcmp(key, "\"items\"", 7) == 0;
    if (!is_items) {
        w->scan.at = key;
        return walk_member(w, 0) ? ER_OK : not_json(w, err);
    }
    if (*items || !er_scan_byte(&w->scan, ':')) {
        w->twice = *items ? key : NULL;
        return not_json(w, err);
    }
    *items = true;
    struct walk inner = *w;
    enum er_status status = each_item(&inner, wanted, err);
    w->scan = inner.scan;
    return status;
}

enum er_status er_pick_items(const struct er_pick_list *wanted, const char *text, size_t length, struct er_slice *head,
                             struct er_error *err) {
    struct walk w;
    bool items = false;
    open_text(&w, text, length);
    begin(&w, wanted->list, head);
    if (!er_scan_byte(&w.scan, '{')) {
        return not_json(&w, err);
    }
    bool empty = er_scan_byte(&w.scan, '}');
    while (!empty) {
        enum er_status status = list_member(&w, wanted, &items, err);
        if (status != ER_OK) {
            return status;
        }
        if (er_scan_byte(&w.scan, ',')) {
            er_scan_space(&w.scan);
        } else if (er_scan_byte(&w.scan, '}')) {
            break;
        } else {
            return not_json(&w, err);
        }
    }
    er_scan_space(&w.scan);
    return w.scan.at == w.scan.end ? ER_OK : not_json(&w, err);
}
