// SPDX-License-Identifier: Apache-2.0
// Documents in Lua: what JSON and YAML decode to and encode from. null is lightuserdata NULL (equal to cjson.null), an
// array is a table with one shared metatable, an object is a plain table with string keys, integers stay 64-bit
// integers.
#ifndef EIRUN_DOCUMENT_H
#define EIRUN_DOCUMENT_H

#include "bind.h"
#include "sink.h"

#include <jansson.h>

#define ER_DOCUMENT_MAX_DEPTH 2048

// The metatable of arrays, the same table in each call of one state. [-0, +1, m]
void er_push_array_type(lua_State *L);

// A userdata that owns a tree: fill its slot, push the tree, then er_tree_close it. [-0, +1, m]
json_t **er_tree_new(lua_State *L);
void er_tree_close(json_t **tree);                   // may run twice
void er_push_tree(lua_State *L, const json_t *tree); // [-0, +1, m]

// A walk over a Lua value into a sink. Lives in a userdata whose close calls er_walk_release; zero-initialised.
struct er_walk {
    lua_State *L;
    struct er_sink *sink;
    bool reveal;              // write secrets out; without it a secret raises
    int array_type;           // stack index of the array metatable
    struct er_walk_key *keys; // one stack of sorted keys for all levels
    size_t key_count;
    size_t key_capacity;
};
// Writes the value at `index`, objects with their keys sorted by bytes. Raises, with the path of the piece
// (value.items[3].name): a cycle, more than ER_DOCUMENT_MAX_DEPTH levels, a table that is neither sequence nor object,
// bytes that are not UTF-8, NaN and infinities, functions and other things that no document holds. Runs no Lua code of
// others. [-0, +0, v]
void er_walk_value(lua_State *L, int index, struct er_walk *walk, struct er_sink *sink, bool reveal);
void er_walk_release(struct er_walk *walk); // may run twice

// eirun.core.*: null, array and is_array into the table on top. [-0, +0, m]
void er_add_document_marks(lua_State *L);

#endif
