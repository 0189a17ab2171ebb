// SPDX-License-Identifier: Apache-2.0
#include "yaml_codec.h"
#include "yaml_scalar.h"

#include <math.h>
#include <string.h>

static struct er_yaml_writer *writer_of(struct er_sink *sink) { return (struct er_yaml_writer *)(void *)sink; }

static int take_text(void *data, unsigned char *bytes, size_t length) {
    struct er_yaml_writer *writer = data;
    writer->failed = er_buf_add(&writer->text, bytes, length);
    return writer->failed == ER_OK;
}

static enum er_status status_of(const struct er_yaml_writer *writer) {
    return writer->failed != ER_OK ? writer->failed
                                   : ER_NO_MEMORY; // the emitter fails for nothing else that we give it
}

// Takes the event that an ..._initialize call has `made`.
static enum er_status emit(struct er_yaml_writer *writer, int made, yaml_event_t *event) {
    return made && yaml_emitter_emit(&writer->emitter, event) ? ER_OK : status_of(writer);
}

static enum er_status put_scalar(struct er_sink *sink, const char *bytes, size_t length, yaml_scalar_style_t style) {
    yaml_event_t event;
    if (length > INT32_MAX) {
        return ER_QUOTA;
    }
    int made = yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)bytes, (int)length, 1, 1, style);
    return emit(writer_of(sink), made, &event);
}

static enum er_status put_null(struct er_sink *sink) { return put_scalar(sink, "null", 4, YAML_PLAIN_SCALAR_STYLE); }

static enum er_status put_boolean(struct er_sink *sink, bool value) {
    return put_scalar(sink, value ? "true" : "false", value ? 4 : 5, YAML_PLAIN_SCALAR_STYLE);
}

static enum er_status put_integer(struct er_sink *sink, int64_t value) {
    char digits[ER_NUMBER_SIZE];
    return put_scalar(sink, digits, er_format_integer(digits, value), YAML_PLAIN_SCALAR_STYLE);
}

static enum er_status put_number(struct er_sink *sink, double value) {
    char digits[ER_NUMBER_SIZE];
    return isfinite(value) ? put_scalar(sink, digits, er_format_double(digits, value), YAML_PLAIN_SCALAR_STYLE)
                           : ER_INVALID;
}

// What the emitter cannot write in the style asked for, it quotes: ": ", " #", spaces at the ends, control characters.
static yaml_scalar_style_t style_of(const char *bytes, size_t length) {
    if (memchr(bytes, '\n', length)) {
        return YAML_LITERAL_SCALAR_STYLE;
    }
    return er_yaml_is_ambiguous(bytes, length) ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
}

static enum er_status put_string(struct er_sink *sink, const char *bytes, size_t length) {
    return er_utf8_valid(bytes, length) ? put_scalar(sink, bytes, length, style_of(bytes, length)) : ER_INVALID;
}

static enum er_status begin_array(struct er_sink *sink, bool empty) {
    yaml_event_t event;
    yaml_sequence_style_t style = empty ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE;
    return emit(writer_of(sink), yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, style), &event);
}

static enum er_status end_array(struct er_sink *sink) {
    yaml_event_t event;
    return emit(writer_of(sink), yaml_sequence_end_event_initialize(&event), &event);
}

static enum er_status begin_object(struct er_sink *sink, bool empty) {
    yaml_event_t event;
    yaml_mapping_style_t style = empty ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE;
    return emit(writer_of(sink), yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, style), &event);
}

static enum er_status end_object(struct er_sink *sink) {
    yaml_event_t event;
    return emit(writer_of(sink), yaml_mapping_end_event_initialize(&event), &event);
}

static const struct er_sink_ops yaml_ops = {
    .null = put_null,
    .boolean = put_boolean,
    .integer = put_integer,
    .number = put_number,
    .string = put_string,
    .key = put_string,
    .begin_array = begin_array,
    .end_array = end_array,
    .begin_object = begin_object,
    .end_object = end_object,
};

enum er_status er_yaml_writer_open(struct er_yaml_writer *writer) {
    yaml_event_t event;
    writer->sink.ops = &yaml_ops;
    if (!yaml_emitter_initialize(&writer->emitter)) {
        return ER_NO_MEMORY;
    }
    writer->open = true;
    yaml_emitter_set_output(&writer->emitter, take_text, writer);
    yaml_emitter_set_unicode(&writer->emitter, 1);
    yaml_emitter_set_indent(&writer->emitter, 2);
    yaml_emitter_set_width(&writer->emitter, -1);
    return emit(writer, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING), &event);
}

enum er_status er_yaml_writer_begin_document(struct er_yaml_writer *writer, bool first) {
    yaml_event_t event;
    return emit(writer, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, first), &event);
}

enum er_status er_yaml_writer_end_document(struct er_yaml_writer *writer) {
    yaml_event_t event;
    return emit(writer, yaml_document_end_event_initialize(&event, 1), &event);
}

enum er_status er_yaml_writer_finish(struct er_yaml_writer *writer) {
    yaml_event_t event;
    enum er_status status = emit(writer, yaml_stream_end_event_initialize(&event), &event);
    return status == ER_OK && !yaml_emitter_flush(&writer->emitter) ? status_of(writer) : status;
}

static void wipe(unsigned char *start, const unsigned char *end) {
    if (start) {
        explicit_bzero(start, (size_t)(end - start));
    }
}

void er_yaml_writer_close(struct er_yaml_writer *writer) {
    if (writer->open) {
        if (writer->text.secret) {
            wipe(writer->emitter.buffer.start, writer->emitter.buffer.end);
            wipe(writer->emitter.raw_buffer.start, writer->emitter.raw_buffer.end);
        }
        yaml_emitter_delete(&writer->emitter);
        writer->open = false;
    }
    er_buf_release(&writer->text);
}
