// SPDX-License-Identifier: Apache-2.0
#include "document.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

static const char array_key; // its address is the registry's key of the array metatable

void er_push_array_type(lua_State *L) {
    luaL_checkstack(L, 2, "array");
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key) != LUA_TNIL) {
        return;
    }
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "eirun.array");
    lua_setfield(L, -2, "__name");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &array_key);
}

// Trees into Lua.

#define TREE "eirun.document.tree"

void er_tree_close(json_t **tree) {
    json_decref(*tree);
    *tree = NULL;
}

static int l_tree_close(lua_State *L) {
    er_tree_close(luaL_checkudata(L, 1, TREE));
    return 0;
}

json_t **er_tree_new(lua_State *L) {
    if (luaL_getmetatable(L, TREE) == LUA_TNIL) {
        er_handle_type(L, TREE, NULL, l_tree_close);
    }
    lua_pop(L, 1);
    return er_handle_new(L, sizeof(json_t *), TREE);
}

static void push_node(lua_State *L, const json_t *node, int array_type);

static void push_array(lua_State *L, const json_t *array, int array_type) {
    size_t count = json_array_size(array);
    lua_createtable(L, count < INT32_MAX ? (int)count : INT32_MAX, 0);
    lua_pushvalue(L, array_type);
    lua_setmetatable(L, -2);
    for (size_t i = 0; i < count; i++) {
        push_node(L, json_array_get(array, i), array_type);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static void push_object(lua_State *L, const json_t *object, int array_type) {
    size_t count = json_object_size(object);
    lua_createtable(L, 0, count < INT32_MAX ? (int)count : INT32_MAX);
    // jansson iterates through a pointer that is not const, and changes nothing.
    json_t *from = (json_t *)(uintptr_t)object;
    for (void *at = json_object_iter(from); at; at = json_object_iter_next(from, at)) {
        lua_pushlstring(L, json_object_iter_key(at), json_object_iter_key_len(at));
        push_node(L, json_object_iter_value(at), array_type);
        lua_rawset(L, -3);
    }
}

// Recursion: parsers refuse what is deeper than ER_DOCUMENT_MAX_DEPTH.
static void push_node(lua_State *L, const json_t *node, int array_type) {
    luaL_checkstack(L, 4, "document");
    switch (json_typeof(node)) {
    case JSON_OBJECT:
        push_object(L, node, array_type);
        break;
    case JSON_ARRAY:
        push_array(L, node, array_type);
        break;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(node), json_string_length(node));
        break;
    case JSON_INTEGER:
        lua_pushinteger(L, json_integer_value(node));
        break;
    case JSON_REAL:
        lua_pushnumber(L, json_real_value(node));
        break;
    case JSON_TRUE:
        lua_pushboolean(L, 1);
        break;
    case JSON_FALSE:
        lua_pushboolean(L, 0);
        break;
    case JSON_NULL:
        lua_pushlightuserdata(L, NULL);
        break;
    }
}

void er_push_tree(lua_State *L, const json_t *tree) {
    er_push_array_type(L);
    push_node(L, tree, lua_gettop(L));
    lua_remove(L, -2);
}

// Lua into a sink.

struct er_walk_key {
    const char *text;
    size_t length;
    int slot; // stack index that anchors it
};

// One table on the way from the root to the value at hand.
struct level {
    const struct level *up;
    const void *table;
    const char *key; // the member being written, NULL in an array
    size_t key_length;
    lua_Integer index;
    int depth;
};

static void walk(struct er_walk *w, const struct level *up);

void er_walk_release(struct er_walk *w) {
    er_free(w->keys);
    w->keys = NULL;
    w->key_count = w->key_capacity = 0;
}

static bool is_name(const char *key, size_t length) {
    for (size_t i = 0; i < length; i++) {
        char c = key[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && !(i && c >= '0' && c <= '9')) {
            return false;
        }
    }
    return length > 0;
}

#define PATH_PARTS 32 // as many of the last levels as a reader wants to see

#define KEY_SHOWN 80

// A message stays one line of text whatever the key holds.
static void add_strange_key(luaL_Buffer *path, const char *key, size_t length) {
    bool text = er_utf8_valid(key, length);
    luaL_addstring(path, "[\"");
    for (size_t i = 0; i < length && i < KEY_SHOWN; i++) {
        bool shown = (unsigned char)key[i] >= 0x80 ? text : key[i] >= ' ' && key[i] != 0x7f;
        luaL_addchar(path, shown ? key[i] : '?');
    }
    luaL_addstring(path, length > KEY_SHOWN ? "...\"]" : "\"]");
}

static void add_part(luaL_Buffer *path, const struct level *level) {
    char digits[ER_NUMBER_SIZE];
    if (!level->key) {
        luaL_addchar(path, '[');
        luaL_addlstring(path, digits, er_format_integer(digits, level->index));
        luaL_addchar(path, ']');
    } else if (is_name(level->key, level->key_length)) {
        luaL_addchar(path, '.');
        luaL_addlstring(path, level->key, level->key_length);
    } else {
        add_strange_key(path, level->key, level->key_length);
    }
}

// value.items[3].name, for the member that `level` is at. [-0, +1, m]
static void push_path(lua_State *L, const struct level *level) {
    const struct level *parts[PATH_PARTS];
    size_t count = 0;
    for (; level && count < PATH_PARTS; level = level->up) {
        parts[count++] = level;
    }
    luaL_Buffer path;
    luaL_buffinit(L, &path);
    luaL_addstring(&path, level ? "value..." : "value");
    while (count) {
        add_part(&path, parts[--count]);
    }
    luaL_pushresult(&path);
}

static int refuse(struct er_walk *w, const struct level *at, const char *reason) {
    luaL_checkstack(w->L, LUA_MINSTACK, "path");
    push_path(w->L, at);
    return luaL_error(w->L, "cannot encode %s: %s", lua_tostring(w->L, -1), reason);
}

static void check(struct er_walk *w, const struct level *at, enum er_status status) {
    switch (status) {
    case ER_OK:
        return;
    case ER_NO_MEMORY:
        luaL_error(w->L, "not enough memory");
        return;
    case ER_QUOTA:
        refuse(w, at, "the text is too long");
        return;
    default:
        refuse(w, at, lua_type(w->L, -1) == LUA_TNUMBER ? "the number is not finite" : "the string is not UTF-8");
        return;
    }
}

static bool has_array_mark(struct er_walk *w) {
    if (!lua_getmetatable(w->L, -1)) {
        return false;
    }
    bool marked = lua_rawequal(w->L, -1, w->array_type);
    lua_pop(w->L, 1);
    return marked;
}

// The table on top has only the keys 1..count: answers count, or raises.
static lua_Integer check_sequence(struct er_walk *w, const struct level *up) {
    lua_State *L = w->L;
    lua_Integer border = (lua_Integer)lua_rawlen(L, -1), count = 0;
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (!lua_isinteger(L, -2)) {
            refuse(w, up,
                   lua_type(L, -2) == LUA_TSTRING ? "the table is both an array and an object"
                                                  : "a key is not a string");
        }
        lua_Integer key = lua_tointeger(L, -2);
        if (key < 1 || key > border) {
            refuse(w, up, "the array has a hole or an index below 1");
        }
        count++;
    }
    if (count != border) {
        refuse(w, up, "the array has a hole or an index below 1");
    }
    return count;
}

static void walk_array(struct er_walk *w, struct level *here) {
    lua_Integer count = check_sequence(w, here->up);
    check(w, here->up, w->sink->ops->begin_array(w->sink, count == 0));
    for (lua_Integer i = 1; i <= count; i++) {
        here->index = i;
        lua_rawgeti(w->L, -1, i);
        walk(w, here);
        lua_pop(w->L, 1);
    }
    check(w, here->up, w->sink->ops->end_array(w->sink));
}

static int compare_keys(const void *left, const void *right) {
    const struct er_walk_key *a = left, *b = right;
    int order = memcmp(a->text, b->text, a->length < b->length ? a->length : b->length);
    return order ? order : (a->length > b->length) - (a->length < b->length);
}

static void sort_keys(struct er_walk_key *keys, size_t count) {
    if (count > 16) {
        qsort(keys, count, sizeof *keys, compare_keys);
        return;
    }
    for (size_t i = 1; i < count; i++) {
        struct er_walk_key key = keys[i];
        size_t at = i;
        for (; at > 0 && compare_keys(&keys[at - 1], &key) > 0; at--) {
            keys[at] = keys[at - 1];
        }
        keys[at] = key;
    }
}

static void add_key(struct er_walk *w, const struct level *up) {
    if (w->key_count == w->key_capacity) {
        size_t capacity = w->key_capacity ? 2 * w->key_capacity : 32;
        struct er_walk_key *keys = er_realloc(w->keys, capacity * sizeof *keys);
        if (!keys) {
            check(w, up, ER_NO_MEMORY);
            return; // not reached: check raises
        }
        w->keys = keys;
        w->key_capacity = capacity;
    }
    struct er_walk_key *key = &w->keys[w->key_count++];
    key->slot = lua_gettop(w->L);
    key->text = lua_tolstring(w->L, -1, &key->length);
}

// Leaves each key of the table at `table` on the stack and notes it in w->keys.
static void collect_keys(struct er_walk *w, const struct level *up, int table) {
    lua_State *L = w->L;
    lua_pushnil(L);
    while (lua_next(L, table)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) != LUA_TSTRING) {
            refuse(w, up, lua_isinteger(L, -1) ? "the table is both an array and an object" : "a key is not a string");
        }
        if (!lua_checkstack(L, LUA_MINSTACK)) {
            refuse(w, up, "the object has too many keys");
        }
        add_key(w, up);
        lua_pushvalue(L, -1);
    }
}

static void walk_members(struct er_walk *w, struct level *here, size_t first, size_t last, int table) {
    for (size_t i = first; i < last; i++) {
        struct er_walk_key key = w->keys[i]; // a copy: deeper levels may move the array
        here->key = key.text;
        here->key_length = key.length;
        lua_pushvalue(w->L, key.slot);
        check(w, here, w->sink->ops->key(w->sink, key.text, key.length));
        lua_rawget(w->L, table);
        walk(w, here);
        lua_pop(w->L, 1);
    }
}

static void walk_object(struct er_walk *w, struct level *here) {
    int table = lua_gettop(w->L);
    size_t first = w->key_count;
    collect_keys(w, here->up, table);
    size_t last = w->key_count;
    sort_keys(w->keys + first, last - first);
    check(w, here->up, w->sink->ops->begin_object(w->sink, last == first));
    walk_members(w, here, first, last, table);
    w->key_count = first;
    lua_settop(w->L, table);
    check(w, here->up, w->sink->ops->end_object(w->sink));
}

// An unmarked table is a sequence when it holds something at 1 or its first key is a number; the empty one is an
// object.
static bool looks_like_array(struct er_walk *w) {
    if (has_array_mark(w)) {
        return true;
    }
    lua_pushnil(w->L);
    if (!lua_next(w->L, -2)) {
        return false;
    }
    bool number = lua_type(w->L, -2) == LUA_TNUMBER;
    lua_pop(w->L, 2);
    return number;
}

static void check_nesting(struct er_walk *w, const struct level *here) {
    if (here->depth > ER_DOCUMENT_MAX_DEPTH) {
        refuse(w, here->up, "it is nested too deeply");
    }
    for (const struct level *above = here->up; above; above = above->up) {
        if (above->table == here->table) {
            refuse(w, here->up, "the table contains itself");
        }
    }
}

static void walk_table(struct er_walk *w, const struct level *up) {
    struct level here = {.up = up, .table = lua_topointer(w->L, -1), .depth = up ? up->depth + 1 : 1};
    check_nesting(w, &here);
    if (looks_like_array(w)) {
        walk_array(w, &here);
    } else {
        walk_object(w, &here);
    }
}

static void walk_number(struct er_walk *w, const struct level *up) {
    const struct er_sink_ops *ops = w->sink->ops;
    check(w, up,
          lua_isinteger(w->L, -1) ? ops->integer(w->sink, lua_tointeger(w->L, -1))
                                  : ops->number(w->sink, lua_tonumber(w->L, -1)));
}

static void walk_bytes(struct er_walk *w, const struct level *up) {
    size_t length;
    const char *bytes = er_to_bytes(w->L, -1, &length);
    if (!bytes) {
        refuse(w, up, er_is_secret(w->L, -1) ? "the secret is closed" : "a userdata is no document");
    }
    if (er_is_secret(w->L, -1) && !w->reveal) {
        refuse(w, up, "it is a secret (only reveal = true writes it, into a secret)");
    }
    check(w, up, w->sink->ops->string(w->sink, bytes, length));
}

// Writes the value on top of the stack.
static void walk(struct er_walk *w, const struct level *up) {
    lua_State *L = w->L;
    if (!lua_checkstack(L, LUA_MINSTACK)) {
        refuse(w, up, "it is nested too deeply");
    }
    switch (lua_type(L, -1)) {
    case LUA_TTABLE:
        walk_table(w, up);
        return;
    case LUA_TSTRING:
    case LUA_TUSERDATA:
        walk_bytes(w, up);
        return;
    case LUA_TNUMBER:
        walk_number(w, up);
        return;
    case LUA_TBOOLEAN:
        check(w, up, w->sink->ops->boolean(w->sink, lua_toboolean(L, -1)));
        return;
    case LUA_TNIL:
        refuse(w, up, "it is nil (null is json.null)");
        return;
    case LUA_TLIGHTUSERDATA:
        if (!lua_touserdata(L, -1)) {
            check(w, up, w->sink->ops->null(w->sink));
            return;
        }
        break;
    default:
        break;
    }
    lua_pushfstring(L, "a %s is no document", luaL_typename(L, -1));
    refuse(w, up, lua_tostring(L, -1));
}

void er_walk_value(lua_State *L, int index, struct er_walk *w, struct er_sink *sink, bool reveal) {
    index = lua_absindex(L, index);
    er_push_array_type(L);
    w->L = L;
    w->sink = sink;
    w->reveal = reveal;
    w->array_type = lua_gettop(L);
    w->key_count = 0;
    lua_pushvalue(L, index);
    walk(w, NULL);
    lua_pop(L, 2);
}

// Marks.

static int l_array(lua_State *L) {
    lua_settop(L, 1);
    if (lua_isnil(L, 1)) {
        lua_newtable(L);
        lua_replace(L, 1);
    }
    luaL_checktype(L, 1, LUA_TTABLE);
    er_push_array_type(L);
    if (lua_getmetatable(L, 1)) {
        luaL_argcheck(L, lua_rawequal(L, -1, -2), 1, "the table has another metatable");
        lua_pop(L, 1);
    }
    lua_setmetatable(L, 1);
    return 1;
}

static int l_is_array(lua_State *L) {
    luaL_checkany(L, 1);
    er_push_array_type(L);
    bool marked = lua_istable(L, 1) && lua_getmetatable(L, 1) && lua_rawequal(L, -1, 2);
    lua_pushboolean(L, marked);
    return 1;
}

void er_add_document_marks(lua_State *L) {
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    lua_pushcfunction(L, l_array);
    lua_setfield(L, -2, "array");
    lua_pushcfunction(L, l_is_array);
    lua_setfield(L, -2, "is_array");
}
