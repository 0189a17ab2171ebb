// SPDX-License-Identifier: Apache-2.0
// eirun.core.yaml.
#include "document.h"
#include "json.h"
#include "yaml_codec.h"

#define ENCODER "eirun.yaml.encoder"

struct encoder {
    struct er_yaml_writer writer;
    struct er_walk walk;
};

static int l_encoder_close(lua_State *L) {
    struct encoder *encoder = luaL_checkudata(L, 1, ENCODER);
    er_walk_release(&encoder->walk);
    er_yaml_writer_close(&encoder->writer);
    return 0;
}

struct options {
    bool reveal, fold;
};

static struct options read_options(lua_State *L, int index) {
    static const struct er_opt rows[] = {
        {.key = "reveal", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct options, reveal)},
        {.key = "fold", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct options, fold)},
    };
    struct options options = {false, false};
    if (!lua_isnoneornil(L, index)) {
        er_read_opts(L, index, rows, sizeof rows / sizeof *rows, &options);
    }
    return options;
}

static void check(lua_State *L, enum er_status status) {
    if (status != ER_OK) {
        luaL_error(L, status == ER_QUOTA ? "the text is too long" : "not enough memory");
    }
}

#define FOLDED_WIDTH 80 // kubectl's

static struct encoder *open_encoder(lua_State *L, struct options options) {
    struct encoder *encoder = er_handle_new(L, sizeof *encoder, ENCODER);
    encoder->writer.text = (struct er_buf){.max = ER_YAML_MAX_BYTES, .secret = options.reveal};
    check(L, er_yaml_writer_open(&encoder->writer));
    if (options.fold) {
        yaml_emitter_set_width(&encoder->writer.emitter, FOLDED_WIDTH);
    }
    return encoder;
}

static void write_document(lua_State *L, struct encoder *encoder, int index, bool first, bool reveal) {
    check(L, er_yaml_writer_begin_document(&encoder->writer, first));
    er_walk_value(L, index, &encoder->walk, &encoder->writer.sink, reveal);
    check(L, er_yaml_writer_end_document(&encoder->writer));
}

// Pushes the text and frees what made it.
static int finish(lua_State *L, struct encoder *encoder, bool reveal) {
    const struct er_buf *text = &encoder->writer.text;
    check(L, er_yaml_writer_finish(&encoder->writer));
    if (reveal) {
        er_push_secret(L, text->data, text->length);
    } else {
        lua_pushlstring(L, text->data ? text->data : "", text->length);
    }
    er_walk_release(&encoder->walk);
    er_yaml_writer_close(&encoder->writer);
    return 1;
}

static int l_encode(lua_State *L) {
    luaL_checkany(L, 1);
    struct options options = read_options(L, 2);
    struct encoder *encoder = open_encoder(L, options);
    write_document(L, encoder, 1, true, options.reveal);
    return finish(L, encoder, options.reveal);
}

static int l_encode_all(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    struct options options = read_options(L, 2);
    struct encoder *encoder = open_encoder(L, options);
    lua_Integer count = (lua_Integer)lua_rawlen(L, 1);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        write_document(L, encoder, lua_gettop(L), i == 1, options.reveal);
        lua_pop(L, 1);
    }
    return finish(L, encoder, options.reveal);
}

// nil, err with the fields line and column.
static int push_parse_error(lua_State *L, const struct er_error *err, const struct er_place *place) {
    lua_pushnil(L);
    er_push_error(L, err);
    lua_pushinteger(L, (lua_Integer)place->line);
    lua_setfield(L, -2, "line");
    lua_pushinteger(L, (lua_Integer)place->column);
    lua_setfield(L, -2, "column");
    return 2;
}

// One document, or null when there is none.
static int push_single(lua_State *L, json_t **documents) {
    size_t count = json_array_size(*documents);
    if (count > 1) {
        er_tree_close(documents);
        struct er_error err;
        er_fail(&err, ER_INVALID, "the text holds %zu documents (decode_all reads them)", count);
        return er_push_fail(L, &err);
    }
    if (count) {
        er_push_tree(L, json_array_get(*documents, 0));
    } else {
        lua_pushlightuserdata(L, NULL);
    }
    er_tree_close(documents);
    return 1;
}

static int push_all(lua_State *L, json_t **documents) {
    er_push_tree(L, *documents);
    er_tree_close(documents);
    return 1;
}

static int decode(lua_State *L, int (*push)(lua_State *, json_t **)) {
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    json_t **documents = er_tree_new(L);
    struct er_error err;
    struct er_place place;
    if (er_yaml_parse(text, length, documents, &place, &err) != ER_OK) {
        return push_parse_error(L, &err, &place);
    }
    return push(L, documents);
}

static int l_decode(lua_State *L) { return decode(L, push_single); }
static int l_decode_all(lua_State *L) { return decode(L, push_all); }

int luaopen_eirun_core_yaml(lua_State *L);
int luaopen_eirun_core_yaml(lua_State *L) {
    static const luaL_Reg functions[] = {{"encode", l_encode},
                                         {"encode_all", l_encode_all},
                                         {"decode", l_decode},
                                         {"decode_all", l_decode_all},
                                         {NULL, NULL}};
    er_json_setup();
    er_handle_type(L, ENCODER, NULL, l_encoder_close);
    luaL_newlib(L, functions);
    er_add_document_marks(L);
    return 1;
}
