// SPDX-License-Identifier: Apache-2.0
#include "encoding.h"
#include "json.h"
#include "yaml_codec.h"
#include "yaml_scalar.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define TAG "tag:yaml.org,2002:"

struct reader {
    yaml_parser_t parser;
    yaml_event_t event; // the one at hand; always safe to delete
    const char *text;
    size_t length;
    json_t *anchors; // name -> value, of the document at hand
    size_t aliased;
    int depth;
    enum er_status status;
    struct er_place *place;
    struct er_error *err;
};

static json_t *read_node(struct reader *r);

// NULL, for `return fail(...)`. Only the first failure counts.
__attribute__((format(printf, 3, 4))) static json_t *fail(struct reader *r, struct er_place place, const char *format,
                                                          ...) {
    char reason[256];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    if (r->status == ER_OK) {
        *r->place = place;
        r->status = er_fail(r->err, ER_INVALID, "line %zu, column %zu: %s", place.line, place.column, reason);
    }
    return NULL;
}

static json_t *out_of_memory(struct reader *r) {
    if (r->status == ER_OK) {
        r->status = er_fail(r->err, ER_NO_MEMORY, "not enough memory");
    }
    return NULL;
}

static struct er_place place_of(const yaml_mark_t *mark) { return (struct er_place){mark->line + 1, mark->column + 1}; }

static struct er_place here(const struct reader *r) { return place_of(&r->event.start_mark); }

static bool at_tab(const struct reader *r, const yaml_mark_t *mark) {
    return mark->index < r->length && r->text[mark->index] == '\t';
}

static void parser_failed(struct reader *r) {
    const yaml_parser_t *parser = &r->parser;
    const char *problem = parser->problem ? parser->problem : "cannot be read";
    switch (parser->error) {
    case YAML_MEMORY_ERROR:
        out_of_memory(r);
        return;
    case YAML_READER_ERROR:
        fail(r, er_place_of(r->text, r->length, parser->problem_offset), "%s", problem);
        return;
    default:
        break;
    }
    if (at_tab(r, &parser->problem_mark)) {
        problem = "a tab cannot indent: use spaces";
    }
    fail(r, place_of(&parser->problem_mark), "%s%s%s", problem, parser->context ? " " : "",
         parser->context ? parser->context : "");
}

static bool next_event(struct reader *r) {
    yaml_event_delete(&r->event);
    if (r->status == ER_OK && !yaml_parser_parse(&r->parser, &r->event)) {
        memset(&r->event, 0, sizeof r->event);
        parser_failed(r);
    }
    return r->status == ER_OK;
}

// Scalars.

static bool has_tag(const yaml_char_t *tag, const char *name) {
    return tag && strncmp((const char *)tag, TAG, sizeof TAG - 1) == 0 &&
           strcmp((const char *)tag + sizeof TAG - 1, name) == 0;
}

static json_t *new_string(struct reader *r, const char *bytes, size_t length) {
    json_t *value = json_stringn_nocheck(bytes, length);
    return value ? value : out_of_memory(r);
}

static json_t *new_binary(struct reader *r, const char *text, size_t length) {
    size_t size;
    if (!er_base64_measure(text, length, &size)) {
        return fail(r, here(r), "!!binary without valid base64");
    }
    char *bytes = er_alloc(size);
    if (!bytes) {
        return out_of_memory(r);
    }
    er_base64_decode(bytes, text, length);
    json_t *value = new_string(r, bytes, size);
    er_free(bytes);
    return value;
}

// The names of explicit tags that a resolved scalar must agree with.
static bool agrees(const yaml_char_t *tag, struct er_yaml_scalar *scalar) {
    if (has_tag(tag, "float") && scalar->kind == ER_YAML_INTEGER) {
        scalar->kind = ER_YAML_FLOAT;
        scalar->number = (double)scalar->integer;
    }
    return !tag || (has_tag(tag, "null") && scalar->kind == ER_YAML_NULL) ||
           (has_tag(tag, "bool") && scalar->kind == ER_YAML_BOOLEAN) ||
           (has_tag(tag, "int") && scalar->kind == ER_YAML_INTEGER) ||
           (has_tag(tag, "float") && scalar->kind == ER_YAML_FLOAT);
}

static json_t *new_scalar(struct reader *r, const struct er_yaml_scalar *scalar, const char *text, size_t length) {
    json_t *value = NULL;
    switch (scalar->kind) {
    case ER_YAML_NULL:
        return json_null();
    case ER_YAML_BOOLEAN:
        return json_boolean(scalar->boolean);
    case ER_YAML_INTEGER:
        value = json_integer(scalar->integer);
        break;
    case ER_YAML_STRING:
        return new_string(r, text, length);
    case ER_YAML_FLOAT:
        if (!isfinite(scalar->number)) {
            return fail(r, here(r), "%.5s is no number that JSON has", text);
        }
        value = json_real(scalar->number);
        break;
    }
    return value ? value : out_of_memory(r);
}

static bool is_resolvable(const yaml_char_t *tag) {
    return !tag || has_tag(tag, "null") || has_tag(tag, "bool") || has_tag(tag, "int") || has_tag(tag, "float");
}

static json_t *read_scalar(struct reader *r) {
    const yaml_char_t *tag = r->event.data.scalar.tag;
    const char *text = (const char *)r->event.data.scalar.value;
    size_t length = r->event.data.scalar.length;
    struct er_yaml_scalar scalar;
    if (has_tag(tag, "binary")) {
        return new_binary(r, text, length);
    }
    if (!is_resolvable(tag) || (!tag && !r->event.data.scalar.plain_implicit)) {
        return new_string(r, text, length);
    }
    if (er_yaml_resolve(text, length, &scalar) != ER_OK) {
        return fail(r, here(r), "the integer does not fit 64 bits (a string wants quotes)");
    }
    if (!agrees(tag, &scalar)) {
        return fail(r, here(r), "the value is no %s", (const char *)tag + sizeof TAG - 1);
    }
    return new_scalar(r, &scalar, text, length);
}

// Aliases. Trees share what an alias stands for; Lua gets copies, so what they come to is limited.

static bool spend(struct reader *r, size_t bytes) {
    r->aliased += bytes;
    return r->aliased <= ER_YAML_MAX_ALIASED;
}

static bool spend_tree(struct reader *r, const json_t *tree) {
    json_t *from = (json_t *)(uintptr_t)tree; // jansson iterates through a pointer that is not const
    bool within = spend(r, 32 + json_string_length(tree));
    for (size_t i = 0; within && i < json_array_size(tree); i++) {
        within = spend_tree(r, json_array_get(tree, i));
    }
    for (void *at = json_object_iter(from); within && at; at = json_object_iter_next(from, at)) {
        within = spend(r, json_object_iter_key_len(at)) && spend_tree(r, json_object_iter_value(at));
    }
    return within;
}

static json_t *read_alias(struct reader *r) {
    const char *name = (const char *)r->event.data.alias.anchor;
    json_t *value = json_object_get(r->anchors, name);
    if (!value) {
        return fail(r, here(r), "no anchor '%.80s' ends before this alias", name);
    }
    if (!spend_tree(r, value)) {
        return fail(r, here(r), "the aliases stand for more than %zu bytes", ER_YAML_MAX_ALIASED);
    }
    return json_incref(value);
}

// Collections. A sequence or mapping event is at hand; on success its end event is.

static json_t *read_sequence(struct reader *r) {
    json_t *array = json_array();
    if (!array) {
        return out_of_memory(r);
    }
    while (next_event(r) && r->event.type != YAML_SEQUENCE_END_EVENT) {
        json_t *item = read_node(r);
        if (item && json_array_append_new(array, item) != 0) {
            out_of_memory(r);
        }
    }
    if (r->status != ER_OK) {
        json_decref(array);
        return NULL;
    }
    return array;
}

// As Go writes a float of 32 bits where it needs the text of a key.
static int format_key_float(char *into, size_t size, double value) {
    char scientific[ER_NUMBER_SIZE];
    int digits = 1;
    do {
        snprintf(scientific, sizeof scientific, "%.*e", digits - 1, value);
    } while (strtof(scientific, NULL) != (float)value && ++digits <= 9);
    int exponent = (int)strtol(strchr(scientific, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 6) {
        return snprintf(into, size, "%s", scientific);
    }
    int decimals = digits - 1 - exponent;
    return snprintf(into, size, "%.*f", decimals > 0 ? decimals : 0, strtod(scientific, NULL));
}

// The text of a key that is no string. Answers 0 for what cannot be a key.
static size_t format_key(char into[64], const json_t *key) {
    switch (json_typeof(key)) {
    case JSON_INTEGER:
        return er_format_integer(into, json_integer_value(key));
    case JSON_REAL:
        return (size_t)format_key_float(into, 64, json_real_value(key));
    case JSON_TRUE:
        return (size_t)snprintf(into, 64, "true");
    case JSON_FALSE:
        return (size_t)snprintf(into, 64, "false");
    default:
        return 0;
    }
}

static json_t *key_as_string(struct reader *r, json_t *key, struct er_place place) {
    char text[64];
    if (!key || json_is_string(key)) {
        return key;
    }
    size_t length = format_key(text, key);
    json_decref(key);
    return length ? new_string(r, text, length) : fail(r, place, "a key is null, a list or a map");
}

struct mapping {
    json_t *members;
    json_t *own; // the keys said here, once a merge has brought others; NULL before
};

static bool put(struct reader *r, json_t *object, const json_t *key, json_t *value) {
    if (json_object_setn_new_nocheck(object, json_string_value(key), json_string_length(key), value) != 0) {
        out_of_memory(r);
    }
    return r->status == ER_OK;
}

static bool merge_map(struct reader *r, struct mapping *map, json_t *from, struct er_place place) {
    if (!json_is_object(from)) {
        fail(r, place, "a merge needs a map or a list of maps");
    } else if (!spend_tree(r, from)) {
        fail(r, place, "the aliases stand for more than %zu bytes", ER_YAML_MAX_ALIASED);
    } else if (json_object_update(map->members, from) != 0) {
        out_of_memory(r);
    }
    return r->status == ER_OK;
}

// go-yaml merges where `<<` stands: it overrides what was said before it, and is overridden by what comes after. Of a
// list the first map wins.
static void merge(struct reader *r, struct mapping *map, json_t *from, struct er_place place) {
    if (!map->own && !(map->own = json_copy(map->members))) {
        out_of_memory(r);
        return;
    }
    if (!json_is_array(from)) {
        merge_map(r, map, from, place);
        return;
    }
    for (size_t i = json_array_size(from); i > 0 && merge_map(r, map, json_array_get(from, i - 1), place); i--) {
    }
}

static bool is_merge(const yaml_event_t *event) {
    const yaml_char_t *tag = event->type == YAML_SCALAR_EVENT ? event->data.scalar.tag : NULL;
    return event->type == YAML_SCALAR_EVENT && strcmp((const char *)event->data.scalar.value, "<<") == 0 &&
           (event->data.scalar.plain_implicit || has_tag(tag, "merge"));
}

static void set_member(struct reader *r, struct mapping *map, json_t *key, json_t *value, struct er_place place) {
    json_t *known = map->own ? map->own : map->members;
    const char *name = json_string_value(key);
    size_t length = json_string_length(key);
    if (json_object_getn(known, name, length)) {
        fail(r, place, "the key '%.80s' is said twice", name);
        json_decref(value);
        return;
    }
    if (map->own && !put(r, map->own, key, json_null())) {
        json_decref(value);
        return;
    }
    put(r, map->members, key, value);
}

// A key's event is at hand.
static void read_member(struct reader *r, struct mapping *map) {
    struct er_place place = here(r);
    bool merging = is_merge(&r->event);
    json_t *key = key_as_string(r, read_node(r), place);
    json_t *value = key && next_event(r) ? read_node(r) : NULL;
    if (value && merging) {
        merge(r, map, value, place);
        json_decref(value);
    } else if (value) {
        set_member(r, map, key, value, place);
    }
    json_decref(key);
}

static json_t *read_mapping(struct reader *r) {
    struct mapping map = {.members = json_object()};
    if (!map.members) {
        return out_of_memory(r);
    }
    while (next_event(r) && r->event.type != YAML_MAPPING_END_EVENT) {
        read_member(r, &map);
    }
    json_decref(map.own);
    if (r->status != ER_OK) {
        json_decref(map.members);
        return NULL;
    }
    return map.members;
}

static json_t *keep_anchor(struct reader *r, const char *name, json_t *value) {
    if (value && json_object_set_nocheck(r->anchors, name, value) != 0) {
        json_decref(value);
        return out_of_memory(r);
    }
    return value;
}

static json_t *read_content(struct reader *r) {
    switch (r->event.type) {
    case YAML_SCALAR_EVENT:
        return read_scalar(r);
    case YAML_SEQUENCE_START_EVENT:
        return read_sequence(r);
    default:
        return read_mapping(r);
    }
}

static const yaml_char_t *anchor_of(const yaml_event_t *event) {
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor;
    default:
        return event->data.mapping_start.anchor;
    }
}

static json_t *read_anchored(struct reader *r) {
    const yaml_char_t *anchor = anchor_of(&r->event);
    if (!anchor) {
        return read_content(r);
    }
    char *name = er_strdup((const char *)anchor); // its event is gone when the collection ends
    if (!name) {
        return out_of_memory(r);
    }
    json_t *value = keep_anchor(r, name, read_content(r));
    er_free(name);
    return value;
}

static json_t *read_node(struct reader *r) {
    if (r->event.type == YAML_ALIAS_EVENT) {
        return read_alias(r);
    }
    if (++r->depth > ER_YAML_MAX_DEPTH) {
        return fail(r, here(r), "nested deeper than %d", ER_YAML_MAX_DEPTH);
    }
    json_t *value = read_anchored(r);
    r->depth--;
    return value;
}

static void read_document(struct reader *r, json_t *documents) {
    json_object_clear(r->anchors);
    json_t *document = next_event(r) ? read_node(r) : NULL;
    if (document && json_array_append_new(documents, document) != 0) {
        out_of_memory(r);
    }
    next_event(r); // the document's end
}

static json_t *read_stream(struct reader *r) {
    json_t *documents = json_array();
    if (!documents) {
        return out_of_memory(r);
    }
    while (next_event(r) && r->event.type != YAML_STREAM_END_EVENT) {
        if (r->event.type == YAML_DOCUMENT_START_EVENT) {
            read_document(r, documents);
        }
    }
    if (r->status != ER_OK) {
        json_decref(documents);
        return NULL;
    }
    return documents;
}

enum er_status er_yaml_parse(const char *text, size_t length, json_t **documents, struct er_place *place,
                             struct er_error *err) {
    struct reader r = {.text = text, .length = length, .place = place, .err = err};
    *place = (struct er_place){1, 1};
    if (length > ER_YAML_MAX_BYTES) {
        return er_fail(err, ER_QUOTA, "text of %zu bytes is longer than %zu", length, ER_YAML_MAX_BYTES);
    }
    if (!yaml_parser_initialize(&r.parser)) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
    r.anchors = json_object();
    json_t *read = r.anchors ? read_stream(&r) : out_of_memory(&r);
    if (read) {
        *documents = read;
    }
    json_decref(r.anchors);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return r.status;
}
