// SPDX-License-Identifier: Apache-2.0
// eirun.core.json.
#include "document.h"
#include "json.h"

#define ENCODER "eirun.json.encoder"
#define KEEP_BYTES ((size_t)64 << 10) // a larger buffer is given back after the call that needed it

struct encoder {
    struct er_json_writer writer;
    struct er_walk walk;
};

static int l_encoder_close(lua_State *L) {
    struct encoder *encoder = luaL_checkudata(L, 1, ENCODER);
    er_walk_release(&encoder->walk);
    er_buf_release(&encoder->writer.text);
    return 0;
}

// The encoder that the last call left in our upvalue, or a new one. It is taken out while it works: a finalizer that
// encodes in the middle of our walk gets its own, and after a raise this one is garbage like any other. [-0, +1, m]
static struct encoder *take_encoder(lua_State *L) {
    lua_pushvalue(L, lua_upvalueindex(1));
    struct encoder *encoder = lua_touserdata(L, -1);
    if (!encoder) {
        lua_pop(L, 1);
        encoder = er_handle_new(L, sizeof *encoder, ENCODER);
    }
    lua_pushnil(L);
    lua_replace(L, lua_upvalueindex(1));
    return encoder;
}

static void give_encoder_back(lua_State *L, int index, struct encoder *encoder) {
    if (encoder->writer.text.secret || encoder->writer.text.capacity > KEEP_BYTES) {
        er_buf_release(&encoder->writer.text);
    }
    lua_pushvalue(L, index);
    lua_replace(L, lua_upvalueindex(1));
}

struct encode_opts {
    bool indent;
    bool reveal;
};

static struct encode_opts read_opts(lua_State *L, int index) {
    static const struct er_opt rows[] = {
        {.key = "indent", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct encode_opts, indent)},
        {.key = "reveal", .type = ER_OPT_BOOLEAN, .offset = offsetof(struct encode_opts, reveal)},
    };
    struct encode_opts opts = {0};
    if (!lua_isnoneornil(L, index)) {
        er_read_opts(L, index, rows, sizeof rows / sizeof *rows, &opts);
    }
    return opts;
}

static int l_encode(lua_State *L) {
    luaL_checkany(L, 1);
    struct encode_opts opts = read_opts(L, 2);
    struct encoder *encoder = take_encoder(L);
    int slot = lua_gettop(L);
    struct er_buf *text = &encoder->writer.text;
    text->max = ER_JSON_MAX_BYTES;
    text->secret = opts.reveal;
    er_json_writer_begin(&encoder->writer, opts.indent);
    er_walk_value(L, 1, &encoder->walk, &encoder->writer.sink, opts.reveal);
    if (opts.reveal) {
        er_push_secret(L, text->data, text->length);
    } else {
        lua_pushlstring(L, text->data, text->length);
    }
    give_encoder_back(L, slot, encoder);
    return 1;
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

static int l_decode(lua_State *L) {
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    json_t **tree = er_tree_new(L);
    struct er_error err;
    struct er_place place;
    if (er_json_parse(text, length, tree, &place, &err) != ER_OK) {
        return push_parse_error(L, &err, &place);
    }
    er_push_tree(L, *tree);
    er_tree_close(tree);
    return 1;
}

int luaopen_eirun_core_json(lua_State *L);
int luaopen_eirun_core_json(lua_State *L) {
    er_json_setup();
    er_handle_type(L, ENCODER, NULL, l_encoder_close);
    lua_createtable(L, 0, 5);
    er_add_document_marks(L);
    lua_pushnil(L); // where encode keeps its encoder between calls
    lua_pushcclosure(L, l_encode, 1);
    lua_setfield(L, -2, "encode");
    lua_pushcfunction(L, l_decode);
    lua_setfield(L, -2, "decode");
    return 1;
}
