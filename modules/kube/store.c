// SPDX-License-Identifier: Apache-2.0
#include "store.h"

#include <string.h>

#define MAX_LINE ((size_t)64 << 20)
#define FIRST_SLOTS 64

static const char *const own_paths[ER_STORE_OWN] = {"metadata.namespace", "metadata.name", "metadata.resourceVersion",
                                                    "metadata.uid"};
enum { EVENT_TYPE, EVENT_OBJECT, EVENT_INITIAL_END, EVENT_OWN };
static const char *const event_paths[EVENT_OWN] = {"type", "object",
                                                   "object.metadata.annotations['k8s.io/initial-events-end']"};
enum { HEAD_VERSION, HEAD_CONTINUE, HEAD_COUNT };
static const char *const head_paths[HEAD_COUNT] = {"metadata.resourceVersion", "metadata.continue"};

// Birth and death
// -------------------------------------------------------------------------------------------------------

static enum er_status add_event_path(struct er_store *store, const char *path, struct er_error *err) {
    struct er_buf full = {.max = 4096};
    enum er_status status = er_buf_printf(&full, "object%s%s", path[0] == '[' ? "" : ".", path);
    if (status == ER_OK) {
        status = er_pick_add(&store->event, full.data, err);
    } else {
        (void)er_fail(err, status, "'%.40s...' is too long", path);
    }
    er_buf_release(&full);
    return status;
}

static enum er_status add_path(struct er_store *store, const char *path, struct er_error *err) {
    enum er_status status = er_pick_add(&store->item, path, err);
    return status == ER_OK ? add_event_path(store, path, err) : status;
}

static enum er_status add_all(struct er_store *store, const char *const *paths, size_t count, struct er_error *err) {
    enum er_status status = ER_OK;
    for (int i = 0; status == ER_OK && i < EVENT_OWN; i++) {
        status = er_pick_add(&store->event, event_paths[i], err);
    }
    for (int i = 0; status == ER_OK && i < HEAD_COUNT; i++) {
        status = er_pick_add(&store->head, head_paths[i], err);
    }
    for (int i = 0; status == ER_OK && i < ER_STORE_OWN; i++) {
        status = add_path(store, own_paths[i], err);
    }
    for (size_t i = 0; status == ER_OK && i < count; i++) {
        status = add_path(store, paths[i], err);
    }
    return status;
}

enum er_status er_store_init(struct er_store *store, const char *const *paths, size_t count, struct er_error *err) {
    *store = (struct er_store){.line.max = MAX_LINE, .version.max = 256};
    enum er_status status = add_all(store, paths, count, err);
    if (status == ER_OK) {
        store->slots = er_calloc(FIRST_SLOTS, sizeof *store->slots);
        store->slot_count = FIRST_SLOTS;
        status = store->slots ? ER_OK : er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    if (status != ER_OK) {
        er_store_release(store);
    }
    return status;
}

void er_store_release(struct er_store *store) {
    for (size_t i = 0; i < store->changed_count; i++) {
        struct er_store_row *row = store->changed[store->changed_first + i];
        if (!row->live) {
            er_free(row);
        }
    }
    for (size_t i = 0; store->slots && i < store->slot_count; i++) {
        er_free(store->slots[i]);
    }
    er_free(store->slots);
    er_free(store->changed);
    er_buf_release(&store->line);
    er_buf_release(&store->version);
    er_pick_release(&store->item);
    er_pick_release(&store->event);
    er_pick_release(&store->head);
    *store = (struct er_store){0};
}

// Rows
// ------------------------------------------------------------------------------------------------------------------

static char *data_of(const struct er_store *store, const struct er_store_row *row) {
    return (char *)(uintptr_t)(row->ends + store->item.field_count);
}

struct er_slice er_store_field(const struct er_store *store, const struct er_store_row *row, int field) {
    uint32_t from = field ? row->ends[field - 1] : 0;
    size_t length = row->ends[field] - from;
    return (struct er_slice){length ? data_of(store, row) + from : NULL, length};
}

// A raw string without its quotes; empty for what is none.
static struct er_slice bare(struct er_slice raw) {
    if (!raw.at || raw.length < 2 || raw.at[0] != '"') {
        return (struct er_slice){"", 0};
    }
    return (struct er_slice){raw.at + 1, raw.length - 2};
}

static uint32_t hash_bytes(uint32_t hash, const char *bytes, size_t length) {
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    }
    return hash;
}

struct key {
    struct er_slice space, name;
    uint32_t hash;
};

static struct key key_of(struct er_slice space, struct er_slice name) {
    uint32_t hash = hash_bytes(2166136261u, space.at, space.length);
    hash = hash_bytes((hash ^ '/') * 16777619u, name.at, name.length);
    return (struct key){space, name, hash ^ hash >> 15};
}

static bool is_at(const struct er_store *store, const struct er_store_row *row, const struct key *key) {
    if (row->hash != key->hash || row->namespace_length != key->space.length || row->name_length != key->name.length) {
        return false;
    }
    struct er_slice space = bare(er_store_field(store, row, ER_STORE_NAMESPACE));
    struct er_slice name = bare(er_store_field(store, row, ER_STORE_NAME));
    return memcmp(space.at, key->space.at, space.length) == 0 && memcmp(name.at, key->name.at, name.length) == 0;
}

// The slot of the key, or the free one where it would go.
static size_t slot_of(const struct er_store *store, const struct key *key) {
    size_t at = key->hash & (store->slot_count - 1);
    while (store->slots[at] && !is_at(store, store->slots[at], key)) {
        at = (at + 1) & (store->slot_count - 1);
    }
    return at;
}

static bool grow(struct er_store *store) {
    size_t count = store->slot_count * 2;
    struct er_store_row **slots = er_calloc(count, sizeof *slots);
    if (!slots) {
        return false;
    }
    for (size_t i = 0; i < store->slot_count; i++) {
        struct er_store_row *row = store->slots[i];
        if (row) {
            size_t at = row->hash & (count - 1);
            while (slots[at]) {
                at = (at + 1) & (count - 1);
            }
            slots[at] = row;
        }
    }
    er_free(store->slots);
    store->slots = slots;
    store->slot_count = count;
    return true;
}

// Rows behind a hole move up, so that no search stops short.
static void close_hole(struct er_store *store, size_t hole) {
    size_t mask = store->slot_count - 1, at = hole;
    for (;;) {
        at = (at + 1) & mask;
        struct er_store_row *row = store->slots[at];
        if (!row) {
            break;
        }
        size_t home = row->hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            store->slots[hole] = row;
            hole = at;
        }
    }
    store->slots[hole] = NULL;
}

static size_t size_of_row(const struct er_store *store, size_t capacity) {
    return sizeof(struct er_store_row) + (size_t)store->item.field_count * sizeof(uint32_t) + capacity;
}

static size_t length_of(const struct er_store *store, const struct er_slice *fields) {
    size_t length = 0;
    for (int i = 0; i < store->item.field_count; i++) {
        length += fields[i].length;
    }
    return length;
}

static void fill(const struct er_store *store, struct er_store_row *row, const struct er_slice *fields) {
    uint32_t end = 0;
    char *data = data_of(store, row);
    for (int i = 0; i < store->item.field_count; i++) {
        if (fields[i].length) {
            memcpy(data + end, fields[i].at, fields[i].length);
        }
        end += (uint32_t)fields[i].length;
        row->ends[i] = end;
    }
}

static struct er_store_row *new_row(struct er_store *store, const struct key *key, const struct er_slice *fields) {
    size_t length = length_of(store, fields);
    if (length > UINT32_MAX || key->space.length > UINT16_MAX || key->name.length > UINT16_MAX) {
        return NULL;
    }
    struct er_store_row *row = er_calloc(1, size_of_row(store, length));
    if (row) {
        row->hash = key->hash;
        row->capacity = (uint32_t)length;
        row->namespace_length = (uint16_t)key->space.length;
        row->name_length = (uint16_t)key->name.length;
        row->live = true;
        fill(store, row, fields);
        store->bytes += size_of_row(store, length);
    }
    return row;
}

// Changes
// ---------------------------------------------------------------------------------------------------------------

static bool make_room(struct er_store *store) {
    if (store->changed_first > 0) {
        memmove(store->changed, store->changed + store->changed_first, store->changed_count * sizeof *store->changed);
        store->changed_first = 0;
    }
    if (store->changed_count < store->changed_capacity) {
        return true;
    }
    size_t capacity = store->changed_capacity ? store->changed_capacity * 2 : 256;
    struct er_store_row **changed = er_realloc(store->changed, capacity * sizeof *changed);
    if (changed) {
        store->changed = changed;
        store->changed_capacity = capacity;
    }
    return changed != NULL;
}

// A row stands in the queue once, however often it changes before somebody looks.
static bool enqueue(struct er_store *store, struct er_store_row *row) {
    if (!store->tracks || row->queued) {
        return true;
    }
    if (store->changed_first + store->changed_count == store->changed_capacity && !make_room(store)) {
        return false;
    }
    row->place = store->taken + store->changed_count;
    row->queued = true;
    store->changed[store->changed_first + store->changed_count++] = row;
    return true;
}

bool er_store_next_change(struct er_store *store, enum er_store_change *change, struct er_store_row **out) {
    while (store->changed_count) {
        struct er_store_row *row = store->changed[store->changed_first++];
        store->changed_count--;
        store->taken++;
        row->queued = false;
        bool told = row->told;
        row->told = true;
        *out = row;
        *change = !row->live ? ER_STORE_DELETED : told ? ER_STORE_MODIFIED : ER_STORE_ADDED;
        if (row->live || told) {
            return true;
        }
        er_free(row); // came and went unseen
    }
    return false;
}

static enum er_status drop(struct er_store *store, size_t slot, struct er_error *err) {
    struct er_store_row *row = store->slots[slot];
    bool keep = store->tracks && (row->told || row->queued);
    if (keep && !enqueue(store, row)) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    close_hole(store, slot);
    store->count--;
    store->bytes -= size_of_row(store, row->capacity);
    row->live = false;
    if (!keep) {
        er_free(row);
    }
    return ER_OK;
}

static bool same(struct er_slice a, struct er_slice b) {
    return a.length == b.length && (!a.length || memcmp(a.at, b.at, a.length) == 0);
}

static bool same_but_version(const struct er_store *store, const struct er_store_row *row,
                             const struct er_slice *fields) {
    for (int i = 0; i < store->item.field_count; i++) {
        if (i != ER_STORE_VERSION && !same(er_store_field(store, row, i), fields[i])) {
            return false;
        }
    }
    return true;
}

static enum er_status insert(struct er_store *store, const struct key *key, const struct er_slice *fields,
                             struct er_error *err) {
    if (store->count * 2 >= store->slot_count && !grow(store)) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    struct er_store_row *row = new_row(store, key, fields);
    if (!row || !enqueue(store, row)) {
        er_free(row);
        return er_fail(err, ER_NO_MEMORY, "not enough memory for an object");
    }
    row->epoch = store->epoch;
    store->slots[slot_of(store, key)] = row;
    store->count++;
    return ER_OK;
}

// In place where the fields fit, else in a row of its own that takes the old one's standing.
static enum er_status update(struct er_store *store, size_t slot, const struct key *key, const struct er_slice *fields,
                             struct er_error *err) {
    struct er_store_row *row = store->slots[slot];
    bool news = !same_but_version(store, row, fields);
    if (length_of(store, fields) <= row->capacity) {
        fill(store, row, fields);
        row->epoch = store->epoch;
        return !news || enqueue(store, row) ? ER_OK : er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    struct er_store_row *fresh = new_row(store, key, fields);
    if (!fresh) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for an object");
    }
    fresh->told = row->told;
    fresh->queued = row->queued;
    fresh->place = row->place;
    fresh->epoch = store->epoch;
    if (row->queued) {
        store->changed[store->changed_first + (size_t)(row->place - store->taken)] = fresh;
    }
    store->slots[slot] = fresh;
    store->bytes -= size_of_row(store, row->capacity);
    er_free(row);
    return !news || enqueue(store, fresh) ? ER_OK : er_fail(err, ER_NO_MEMORY, "not enough memory");
}

static enum er_status put(struct er_store *store, const struct er_slice *fields, struct er_error *err) {
    struct key key = key_of(bare(fields[ER_STORE_NAMESPACE]), bare(fields[ER_STORE_NAME]));
    if (!key.name.length) {
        return er_fail(err, ER_INVALID, "an object without metadata.name");
    }
    size_t slot = slot_of(store, &key);
    struct er_store_row *row = store->slots[slot];
    if (!row) {
        return insert(store, &key, fields, err);
    }
    if (same(er_store_field(store, row, ER_STORE_VERSION), fields[ER_STORE_VERSION])) {
        row->epoch = store->epoch;
        return ER_OK;
    }
    if (same(er_store_field(store, row, ER_STORE_UID), fields[ER_STORE_UID])) {
        return update(store, slot, &key, fields, err);
    }
    enum er_status status = drop(store, slot, err); // deleted and made anew while nobody looked
    return status == ER_OK ? insert(store, &key, fields, err) : status;
}

static enum er_status take_away(struct er_store *store, const struct er_slice *fields, struct er_error *err) {
    struct key key = key_of(bare(fields[ER_STORE_NAMESPACE]), bare(fields[ER_STORE_NAME]));
    size_t slot = slot_of(store, &key);
    return store->slots[slot] ? drop(store, slot, err) : ER_OK;
}

struct er_store_row *er_store_find(const struct er_store *store, const char *namespace, size_t namespace_length,
                                   const char *name, size_t name_length) {
    struct key key = key_of((struct er_slice){namespace, namespace_length}, (struct er_slice){name, name_length});
    return store->slots[slot_of(store, &key)];
}

// Lists
// -----------------------------------------------------------------------------------------------------------------

static enum er_status set_version(struct er_store *store, struct er_slice raw, struct er_error *err) {
    struct er_slice version = bare(raw);
    if (!version.length || version.length == store->version.length) {
        if (version.length) {
            memcpy(store->version.data, version.at, version.length);
        }
        return ER_OK;
    }
    er_buf_clear(&store->version);
    enum er_status status = er_buf_add(&store->version, version.at, version.length);
    return status == ER_OK ? ER_OK : er_fail(err, status, "the resource version is too long");
}

void er_store_begin(struct er_store *store) { store->epoch++; }

static enum er_status put_item(void *data, const struct er_slice *fields, struct er_error *err) {
    return put(data, fields, err);
}

enum er_status er_store_page(struct er_store *store, const char *text, size_t length, struct er_slice *more,
                             struct er_error *err) {
    struct er_pick_list wanted = {.item = &store->item, .list = &store->head, .on_item = put_item, .data = store};
    struct er_slice head[HEAD_COUNT];
    enum er_status status = er_pick_items(&wanted, text, length, head, err);
    if (status == ER_OK) {
        *more = bare(head[HEAD_CONTINUE]);
        status = set_version(store, head[HEAD_VERSION], err);
    }
    return status;
}

enum er_status er_store_finish(struct er_store *store, struct er_error *err) {
    for (size_t i = 0; i < store->slot_count;) {
        struct er_store_row *row = store->slots[i];
        if (!row || row->epoch == store->epoch) {
            i++;
            continue;
        }
        enum er_status status = drop(store, i, err); // another row may have moved here
        if (status != ER_OK) {
            return status;
        }
    }
    return ER_OK;
}

// Watches
// ---------------------------------------------------------------------------------------------------------------

static bool is_text(struct er_slice raw, const char *text) {
    struct er_slice value = bare(raw);
    return value.length == strlen(text) && memcmp(value.at, text, value.length) == 0;
}

static enum er_status event(struct er_store *store, const struct er_slice *all, struct er_store_news *news,
                            struct er_error *err) {
    const struct er_slice *fields = all + EVENT_OWN;
    struct er_slice type = all[EVENT_TYPE];
    enum er_status status;
    if (is_text(type, "ADDED") || is_text(type, "MODIFIED")) {
        status = put(store, fields, err);
    } else if (is_text(type, "DELETED")) {
        status = take_away(store, fields, err);
    } else if (is_text(type, "BOOKMARK")) {
        news->listed = news->listed || is_text(all[EVENT_INITIAL_END], "true");
        return set_version(store, fields[ER_STORE_VERSION], err);
    } else if (is_text(type, "ERROR")) {
        news->failed = all[EVENT_OBJECT];
        return ER_OK;
    } else {
        return er_fail(err, ER_INVALID, "an event of an unknown type");
    }
    if (status == ER_OK && !bare(fields[ER_STORE_VERSION]).length) {
        return er_fail(err, ER_INVALID, "an event without a resource version");
    }
    news->events++;
    store->events++;
    return status == ER_OK ? set_version(store, fields[ER_STORE_VERSION], err) : status;
}

static enum er_status line(struct er_store *store, const char *text, size_t length, struct er_store_news *news,
                           struct er_error *err) {
    struct er_slice fields[ER_PICK_MAX_FIELDS];
    if (length == 0 || (length == 1 && *text == '\r')) {
        return ER_OK;
    }
    enum er_status status = er_pick_value(&store->event, text, length, fields, err);
    return status == ER_OK ? event(store, fields, news, err) : status;
}

// The rest of the line that began in an earlier piece.
static enum er_status end_of_line(struct er_store *store, const char *bytes, size_t length, struct er_store_news *news,
                                  struct er_error *err) {
    enum er_status status = er_buf_add(&store->line, bytes, length);
    if (status != ER_OK) {
        return er_fail(err, status, "an event of more than %zu bytes", MAX_LINE);
    }
    return line(store, store->line.data, store->line.length, news, err);
}

enum er_status er_store_feed(struct er_store *store, const char *bytes, size_t length, struct er_store_news *news,
                             struct er_error *err) {
    const char *end = bytes + length;
    *news = (struct er_store_news){0};
    while (bytes < end) {
        const char *newline = memchr(bytes, '\n', (size_t)(end - bytes));
        if (!newline) {
            enum er_status status = er_buf_add(&store->line, bytes, (size_t)(end - bytes));
            return status == ER_OK ? ER_OK : er_fail(err, status, "an event of more than %zu bytes", MAX_LINE);
        }
        bool whole = store->line.length == 0;
        enum er_status status = whole ? line(store, bytes, (size_t)(newline - bytes), news, err)
                                      : end_of_line(store, bytes, (size_t)(newline - bytes), news, err);
        if (status != ER_OK || news->failed.at) {
            return status;
        }
        er_buf_clear(&store->line);
        bytes = newline + 1;
    }
    return ER_OK;
}

void er_store_forget_line(struct er_store *store) { er_buf_clear(&store->line); }
