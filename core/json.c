// SPDX-License-Identifier: Apache-2.0
#include "json.h"

#include <math.h>
#include <string.h>

void er_json_setup(void) { json_set_alloc_funcs(er_alloc, er_free); }

// jansson quotes the text it stumbled over; that text may be a token or a password, and line and column are enough.
static int length_of_reason(const json_error_t *error) {
    const char *near = strstr(error->text, " near '");
    return (int)(near ? (size_t)(near - error->text) : strlen(error->text));
}

// Its text is a sentence: "Object or array ...", "NUL byte ..."; ours start in lower case unless a name starts them.
static char lower_first(const json_error_t *error) {
    char first = error->text[0], second = error->text[0] ? error->text[1] : '\0';
    return first >= 'A' && first <= 'Z' && second >= 'a' && second <= 'z' ? (char)(first + 32) : first;
}

// ---- integers beyond 64 bits

enum { INT64_DIGITS = 19 };

static bool is_beyond(const char *digits, size_t count, bool negative) {
    const char *limit = negative ? "9223372036854775808" : "9223372036854775807";
    return count > INT64_DIGITS || (count == INT64_DIGITS && memcmp(digits, limit, INT64_DIGITS) > 0);
}

static size_t skip_string(const char *text, size_t length, size_t at) {
    for (at++; at < length && text[at] != '"'; at++) {
        at += text[at] == '\\';
    }
    return at + 1;
}

// How many characters of a set stand there. The text holds no NUL.
static size_t span(const char *text, size_t length, size_t at, const char *set) {
    size_t count = 0;
    while (at + count < length && strchr(set, text[at + count])) {
        count++;
    }
    return count;
}

// The end of the next integer that no int64_t holds, SIZE_MAX when there is none; `at` is not inside a string or a
// number.
static size_t next_beyond(const char *text, size_t length, size_t at) {
    while (at < length) {
        if (text[at] == '"') {
            at = skip_string(text, length, at);
            continue;
        }
        size_t digits = span(text, length, at, "0123456789");
        size_t whole = digits ? span(text, length, at, "0123456789.eE+-") : 1;
        if (digits && digits == whole && is_beyond(text + at, digits, at && text[at - 1] == '-')) {
            return at + digits;
        }
        at += whole;
    }
    return SIZE_MAX;
}

// The text with ".0" behind these: jansson then reads the nearest double, as Lua itself reads such a numeral.
static enum er_status widen(const char *text, size_t length, struct er_buf *wide) {
    enum er_status status = ER_OK;
    size_t at = 0;
    for (size_t end; status == ER_OK && (end = next_beyond(text, length, at)) != SIZE_MAX; at = end) {
        status = er_buf_add(wide, text + at, end - at);
        status = status == ER_OK ? er_buf_add_str(wide, ".0") : status;
    }
    return status == ER_OK ? er_buf_add(wide, text + at, length - at) : status;
}

// Where a place in the widened text is in the one that was given.
static size_t narrow(const char *text, size_t length, size_t position) {
    size_t at = 0, shift = 0;
    for (size_t end; (end = next_beyond(text, length, at)) != SIZE_MAX && end + shift < position; at = end) {
        shift += 2;
    }
    return position > shift ? position - shift : 0;
}

static json_t *load(const char *text, size_t length, json_error_t *error) {
    *error = (json_error_t){.line = -1};
    return json_loadb(text, length, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, error);
}

// Once more, when the first try met an integer that is too big; few texts have one.
static json_t *load_widened(const char *text, size_t length, json_error_t *error) {
    struct er_buf wide = {.max = 2 * length + 2};
    json_t *value = NULL;
    if (widen(text, length, &wide) == ER_OK) {
        value = load(wide.data, wide.length, error);
    }
    if (!value && error->position > 0) {
        size_t position = narrow(text, length, (size_t)error->position);
        struct er_place place = er_place_of(text, length, position ? position - 1 : 0);
        error->line = (int)place.line;
        error->column = (int)place.column;
    }
    er_buf_release(&wide);
    return value;
}

static enum er_status parse_failed(const json_error_t *error, struct er_place *place, struct er_error *err) {
    if (json_error_code(error) == json_error_out_of_memory) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    place->line = error->line > 0 ? (size_t)error->line : 1;
    place->column = error->column > 0 ? (size_t)error->column : 1;
    int reason = length_of_reason(error);
    return er_fail(err, ER_INVALID, "line %zu, column %zu: %c%.*s", place->line, place->column, lower_first(error),
                   reason > 0 ? reason - 1 : 0, error->text + 1);
}

// NUL is no JSON anywhere, and jansson overlooks one behind a number.
static enum er_status refuse_nul(const char *text, size_t length, const char *nul, struct er_place *place,
                                 struct er_error *err) {
    *place = er_place_of(text, length, (size_t)(nul - text));
    return er_fail(err, ER_INVALID, "line %zu, column %zu: a NUL byte", place->line, place->column);
}

enum er_status er_json_parse(const char *text, size_t length, json_t **root, struct er_place *place,
                             struct er_error *err) {
    *place = (struct er_place){1, 1};
    if (length > ER_JSON_MAX_BYTES) {
        return er_fail(err, ER_QUOTA, "text of %zu bytes is longer than %zu", length, ER_JSON_MAX_BYTES);
    }
    const char *nul = memchr(text, '\0', length);
    if (nul) {
        return refuse_nul(text, length, nul, place, err);
    }
    json_error_t error;
    json_t *value = load(text, length, &error);
    if (!value && json_error_code(&error) == json_error_numeric_overflow) {
        value = load_widened(text, length, &error);
    }
    if (!value) {
        return parse_failed(&error, place, err);
    }
    *root = value;
    return ER_OK;
}

static struct er_json_writer *writer_of(struct er_sink *sink) { return (struct er_json_writer *)(void *)sink; }

// Short pieces into memory that is already there, without a call: this is where an encoder spends its time.
static enum er_status put(struct er_json_writer *writer, const char *bytes, size_t length) {
    struct er_buf *text = &writer->text;
    if (text->capacity - text->length <= length || text->max - text->length < length) {
        return er_buf_add(text, bytes, length);
    }
    memcpy(text->data + text->length, bytes, length);
    text->length += length;
    text->data[text->length] = '\0';
    return ER_OK;
}

static enum er_status put_line(struct er_json_writer *writer) {
    enum er_status status = put(writer, "\n", 1);
    for (size_t i = 0; status == ER_OK && i < writer->depth; i++) {
        status = put(writer, "  ", 2);
    }
    return status;
}

// What stands before a value or a key: nothing after `"key": `, else a comma and a new line where they belong.
static enum er_status lead_in(struct er_json_writer *writer) {
    if (writer->after_key) {
        writer->after_key = false;
        return ER_OK;
    }
    enum er_status status = writer->comma ? put(writer, ",", 1) : ER_OK;
    if (status == ER_OK && writer->indent && writer->depth) {
        status = put_line(writer);
    }
    return status;
}

static enum er_status put_value(struct er_json_writer *writer, const char *bytes, size_t length) {
    enum er_status status = lead_in(writer);
    writer->comma = true;
    return status == ER_OK ? put(writer, bytes, length) : status;
}

static enum er_status put_null(struct er_sink *sink) { return put_value(writer_of(sink), "null", 4); }

static enum er_status put_boolean(struct er_sink *sink, bool value) {
    return value ? put_value(writer_of(sink), "true", 4) : put_value(writer_of(sink), "false", 5);
}

static enum er_status put_integer(struct er_sink *sink, int64_t value) {
    char digits[ER_NUMBER_SIZE];
    return put_value(writer_of(sink), digits, er_format_integer(digits, value));
}

static enum er_status put_number(struct er_sink *sink, double value) {
    char digits[ER_NUMBER_SIZE];
    return isfinite(value) ? put_value(writer_of(sink), digits, er_format_double(digits, value)) : ER_INVALID;
}

// How RFC 8259 wants these written; NULL for a byte that stands for itself.
static const char *const escapes[256] = {
    "\\u0000", "\\u0001", "\\u0002", "\\u0003", "\\u0004", "\\u0005",      "\\u0006",       "\\u0007", "\\b",
    "\\t",     "\\n",     "\\u000b", "\\f",     "\\r",     "\\u000e",      "\\u000f",       "\\u0010", "\\u0011",
    "\\u0012", "\\u0013", "\\u0014", "\\u0015", "\\u0016", "\\u0017",      "\\u0018",       "\\u0019", "\\u001a",
    "\\u001b", "\\u001c", "\\u001d", "\\u001e", "\\u001f", ['"'] = "\\\"", ['\\'] = "\\\\",
};

static enum er_status put_escaped(struct er_json_writer *writer, const char *bytes, size_t length) {
    const unsigned char *at = (const unsigned char *)bytes, *run = at, *end = at + length;
    enum er_status status = ER_OK;
    while (status == ER_OK && at < end) {
        if (*at < 0x80 && !escapes[*at]) {
            at++;
        } else if (*at >= 0x80) {
            size_t step = er_utf8_step(at, end);
            status = step ? ER_OK : ER_INVALID;
            at += step;
        } else {
            status = put(writer, (const char *)run, (size_t)(at - run));
            if (status == ER_OK) {
                status = put(writer, escapes[*at], strlen(escapes[*at]));
            }
            run = ++at;
        }
    }
    return status == ER_OK ? put(writer, (const char *)run, (size_t)(at - run)) : status;
}

static enum er_status put_quoted(struct er_json_writer *writer, const char *bytes, size_t length) {
    enum er_status status = lead_in(writer);
    writer->comma = true;
    status = status == ER_OK ? put(writer, "\"", 1) : status;
    status = status == ER_OK ? put_escaped(writer, bytes, length) : status;
    return status == ER_OK ? put(writer, "\"", 1) : status;
}

static enum er_status put_string(struct er_sink *sink, const char *bytes, size_t length) {
    return put_quoted(writer_of(sink), bytes, length);
}

static enum er_status put_key(struct er_sink *sink, const char *bytes, size_t length) {
    struct er_json_writer *writer = writer_of(sink);
    enum er_status status = put_quoted(writer, bytes, length);
    writer->after_key = true;
    return status != ER_OK ? status : writer->indent ? put(writer, ": ", 2) : put(writer, ":", 1);
}

static enum er_status open_bracket(struct er_json_writer *writer, const char *bracket) {
    enum er_status status = put_value(writer, bracket, 1);
    writer->comma = false;
    writer->depth++;
    return status;
}

// Nothing was written inside when no comma is due.
static enum er_status close_bracket(struct er_json_writer *writer, const char *bracket) {
    bool filled = writer->comma;
    writer->depth--;
    writer->comma = true;
    enum er_status status = filled && writer->indent ? put_line(writer) : ER_OK;
    return status == ER_OK ? put(writer, bracket, 1) : status;
}

static enum er_status begin_array(struct er_sink *sink, bool empty) {
    (void)empty;
    return open_bracket(writer_of(sink), "[");
}
static enum er_status end_array(struct er_sink *sink) { return close_bracket(writer_of(sink), "]"); }
static enum er_status begin_object(struct er_sink *sink, bool empty) {
    (void)empty;
    return open_bracket(writer_of(sink), "{");
}
static enum er_status end_object(struct er_sink *sink) { return close_bracket(writer_of(sink), "}"); }

static const struct er_sink_ops json_ops = {
    .null = put_null,
    .boolean = put_boolean,
    .integer = put_integer,
    .number = put_number,
    .string = put_string,
    .key = put_key,
    .begin_array = begin_array,
    .end_array = end_array,
    .begin_object = begin_object,
    .end_object = end_object,
};

void er_json_writer_begin(struct er_json_writer *writer, bool indent) {
    er_buf_clear(&writer->text);
    writer->sink.ops = &json_ops;
    writer->indent = indent;
    writer->comma = writer->after_key = false;
    writer->depth = 0;
}
