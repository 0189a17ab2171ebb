// SPDX-License-Identifier: Apache-2.0
// eirun.core.kube: wanted fields picked out of the API's JSON, and a store of them, without a table for the rest.
#include "bind.h"
#include "document.h"
#include "json.h"
#include "scan.h"
#include "store.h"

#include <stdlib.h>
#include <string.h>

int luaopen_eirun_core_kube(lua_State *L);

#define PICKER "eirun.kube.picker"
#define STORE "eirun.kube.store"
#define LINES "eirun.kube.lines"

// Values --------------------------------------------------------------------------------------------------------------

// Strings with escapes, arrays and objects go through the decoder. [-0, +1, m]
static void push_decoded(lua_State *L, struct er_slice raw) {
    struct er_error err = {0};
    struct er_place place;
    json_t **tree = er_tree_new(L);
    if (er_json_parse(raw.at, raw.length, tree, &place, &err) != ER_OK) {
        luaL_error(L, "cannot decode a field: %s", err.message);
    }
    er_push_tree(L, *tree);
    er_tree_close(tree);
    lua_remove(L, -2);
}

static void push_number(lua_State *L, struct er_slice raw) {
    char digits[64];
    if (raw.length >= sizeof digits) {
        push_decoded(L, raw);
        return;
    }
    memcpy(digits, raw.at, raw.length);
    digits[raw.length] = '\0';
    if (raw.length > 18 || strpbrk(digits, ".eE")) {
        push_decoded(L, raw);
    } else {
        lua_pushinteger(L, strtoll(digits, NULL, 10));
    }
}

// nil for what is not there. [-0, +1, m]
static void push_value(lua_State *L, struct er_slice raw) {
    if (!raw.at) {
        lua_pushnil(L);
    } else if (raw.at[0] == '"' && !memchr(raw.at, '\\', raw.length)) {
        lua_pushlstring(L, raw.at + 1, raw.length - 2);
    } else if (raw.at[0] == 't' || raw.at[0] == 'f') {
        lua_pushboolean(L, raw.at[0] == 't');
    } else if (raw.at[0] == 'n') {
        lua_pushlightuserdata(L, NULL);
    } else if (raw.at[0] == '-' || (raw.at[0] >= '0' && raw.at[0] <= '9')) {
        push_number(L, raw);
    } else {
        push_decoded(L, raw);
    }
}

// The path strings at `index`, kept as the handle's user value; into `paths`, which holds ER_PICK_MAX_FIELDS.
static size_t read_paths(lua_State *L, int index, const char **paths) {
    luaL_checktype(L, index, LUA_TTABLE);
    lua_Unsigned count = lua_rawlen(L, index);
    luaL_argcheck(L, count <= ER_PICK_MAX_FIELDS - ER_STORE_OWN - 3, index, "too many fields");
    for (lua_Unsigned i = 0; i < count; i++) {
        lua_rawgeti(L, index, (lua_Integer)i + 1);
        if (lua_type(L, -1) != LUA_TSTRING) {
            luaL_argerror(L, index, "paths are strings");
        }
        paths[i] = lua_tostring(L, -1); // anchored by the table
        lua_pop(L, 1);
    }
    return (size_t)count;
}

// A copy of the paths as the user value of the handle on top. [-0, +0, m]
static void keep_paths(lua_State *L, int index, size_t count) {
    lua_createtable(L, (int)count, 0);
    for (size_t i = 1; i <= count; i++) {
        lua_rawgeti(L, index, (lua_Integer)i);
        lua_rawseti(L, -2, (lua_Integer)i);
    }
    lua_setiuservalue(L, -2, 1);
}

// Sets path = value in the table below `names`, which is on top. [-0, +0, m]
static void set_field(lua_State *L, size_t number, struct er_slice raw) {
    lua_rawgeti(L, -1, (lua_Integer)number + 1);
    push_value(L, raw);
    lua_rawset(L, -4);
}

// Picker --------------------------------------------------------------------------------------------------------------

static int l_picker_close(lua_State *L) {
    er_pick_release(luaL_checkudata(L, 1, PICKER));
    return 0;
}

static int l_picker(lua_State *L) {
    const char *paths[ER_PICK_MAX_FIELDS];
    size_t count = read_paths(L, 1, paths);
    struct er_pick *pick = er_handle_new(L, sizeof *pick, PICKER);
    struct er_error err = {0};
    for (size_t i = 0; i < count; i++) {
        if (er_pick_add(pick, paths[i], &err) != ER_OK) {
            return er_push_fail(L, &err);
        }
    }
    keep_paths(L, 1, count);
    return 1;
}

// [-0, +1, m] with the paths at `names`
static void push_row(lua_State *L, int names, const struct er_pick *pick, const struct er_slice *fields) {
    lua_createtable(L, 0, pick->field_count);
    lua_pushvalue(L, names);
    for (int i = 0; i < pick->field_count; i++) {
        set_field(L, (size_t)i, fields[i]);
    }
    lua_pop(L, 1);
}

static int l_picker_pick(lua_State *L) {
    const struct er_pick *pick = luaL_checkudata(L, 1, PICKER);
    size_t length;
    const char *text = luaL_checklstring(L, 2, &length);
    struct er_slice fields[ER_PICK_MAX_FIELDS];
    struct er_error err = {0};
    if (!pick->node_count) {
        return luaL_argerror(L, 1, "picks nothing");
    }
    if (er_pick_value(pick, text, length, fields, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_getiuservalue(L, 1, 1);
    push_row(L, lua_gettop(L), pick, fields);
    return 1;
}

struct rows {
    lua_State *L;
    const struct er_pick *pick;
    lua_Integer count;
    int names, into;
};

static enum er_status add_row(void *data, const struct er_slice *fields, struct er_error *err) {
    struct rows *rows = data;
    (void)err;
    push_row(rows->L, rows->names, rows->pick, fields);
    lua_rawseti(rows->L, rows->into, ++rows->count);
    return ER_OK;
}

// A picker of what every list tells of itself, made once a state.
static const struct er_pick *list_head(lua_State *L) {
    static const char key;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &key) == LUA_TUSERDATA) {
        return lua_touserdata(L, -1);
    }
    lua_pop(L, 1);
    struct er_pick *pick = er_handle_new(L, sizeof *pick, PICKER);
    struct er_error err = {0};
    if (er_pick_add(pick, "metadata.continue", &err) != ER_OK ||
        er_pick_add(pick, "metadata.resourceVersion", &err) != ER_OK) {
        luaL_error(L, "%s", err.message);
    }
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &key);
    return pick;
}

static int l_picker_items(lua_State *L) {
    struct rows rows = {.L = L, .pick = luaL_checkudata(L, 1, PICKER)};
    size_t length;
    const char *text = luaL_checklstring(L, 2, &length);
    struct er_slice head[ER_PICK_MAX_FIELDS];
    struct er_error err = {0};
    if (!rows.pick->node_count) {
        return luaL_argerror(L, 1, "picks nothing");
    }
    lua_settop(L, 2);
    const struct er_pick *about = list_head(L);
    lua_getiuservalue(L, 1, 1);
    lua_newtable(L);
    rows.names = 4;
    rows.into = 5;
    struct er_pick_list wanted = {.item = rows.pick, .list = about, .on_item = add_row, .data = &rows};
    if (er_pick_items(&wanted, text, length, head, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    push_value(L, head[0]);
    push_value(L, head[1]);
    return 3;
}

// Names ---------------------------------------------------------------------------------------------------------------

struct names {
    struct er_buf text;
    const char *head;
    size_t head_length;
};

#define NAMES "eirun.kube.names"

static int l_names_close(lua_State *L) {
    struct names *names = luaL_checkudata(L, 1, NAMES);
    er_buf_release(&names->text);
    return 0;
}

// Names of the API hold no escapes.
static enum er_status add_name(void *data, const struct er_slice *fields, struct er_error *err) {
    struct names *names = data;
    if (!fields[0].at || fields[0].length < 2) {
        return er_fail(err, ER_INVALID, "an object without metadata.name");
    }
    enum er_status status = er_buf_add(&names->text, names->head, names->head_length);
    status = status == ER_OK ? er_buf_add(&names->text, fields[0].at + 1, fields[0].length - 2) : status;
    status = status == ER_OK ? er_buf_add(&names->text, "\n", 1) : status;
    return status == ER_OK ? ER_OK : er_fail(err, status, "too many names");
}

// A line `head` + name for each object of a list, and where the list goes on.
static int l_names(lua_State *L) {
    size_t length, head_length;
    const char *text = luaL_checklstring(L, 1, &length);
    const char *head = luaL_checklstring(L, 2, &head_length);
    lua_settop(L, 2);
    lua_createtable(L, 1, 0);
    lua_pushliteral(L, "metadata.name");
    lua_rawseti(L, 3, 1);
    lua_pushcfunction(L, l_picker);
    lua_insert(L, 3);
    lua_call(L, 1, 1);
    const struct er_pick *about = list_head(L);
    struct names *names = er_handle_new(L, sizeof *names, NAMES);
    *names = (struct names){.text.max = ER_JSON_MAX_BYTES, .head = head, .head_length = head_length};
    struct er_pick_list wanted = {.item = lua_touserdata(L, 3), .list = about, .on_item = add_name, .data = names};
    struct er_slice more[ER_PICK_MAX_FIELDS];
    struct er_error err = {0};
    if (er_pick_items(&wanted, text, length, more, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_pushlstring(L, names->text.data ? names->text.data : "", names->text.length);
    er_buf_release(&names->text);
    push_value(L, more[0]);
    return 2;
}

// Store ---------------------------------------------------------------------------------------------------------------

static struct er_store *check_store(lua_State *L) {
    struct er_store *store = luaL_checkudata(L, 1, STORE);
    if (!store->slots) {
        luaL_argerror(L, 1, "the store is closed");
    }
    return store;
}

static int l_store_close(lua_State *L) {
    er_store_release(luaL_checkudata(L, 1, STORE));
    return 0;
}

static int l_store(lua_State *L) {
    const char *paths[ER_PICK_MAX_FIELDS];
    size_t count = read_paths(L, 1, paths);
    bool tracks = lua_toboolean(L, 2);
    struct er_store *store = er_handle_new(L, sizeof *store, STORE);
    struct er_error err = {0};
    if (er_store_init(store, paths, count, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    store->tracks = tracks;
    keep_paths(L, 1, count);
    return 1;
}

static const char *const own_names[ER_STORE_OWN] = {"namespace", "name", "resource_version", "uid"};

// [-0, +1, m]
static void push_object(lua_State *L, const struct er_store *store, const struct er_store_row *row) {
    lua_createtable(L, 0, store->item.field_count);
    for (int i = 0; i < ER_STORE_OWN; i++) {
        push_value(L, er_store_field(store, row, i));
        lua_setfield(L, -2, own_names[i]);
    }
    lua_getiuservalue(L, 1, 1);
    for (int i = ER_STORE_OWN; i < store->item.field_count; i++) {
        set_field(L, (size_t)(i - ER_STORE_OWN), er_store_field(store, row, i));
    }
    lua_pop(L, 1);
}

static int l_store_begin(lua_State *L) {
    er_store_begin(check_store(L));
    return 0;
}

static int l_store_page(lua_State *L) {
    struct er_store *store = check_store(L);
    size_t length;
    const char *text = luaL_checklstring(L, 2, &length);
    struct er_slice more;
    struct er_error err = {0};
    if (er_store_page(store, text, length, &more, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_pushlstring(L, more.length ? more.at : "", more.length);
    return 1;
}

static int l_store_finish(lua_State *L) {
    struct er_error err = {0};
    if (er_store_finish(check_store(L), &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_pushboolean(L, 1);
    return 1;
}

static int l_store_feed(lua_State *L) {
    struct er_store *store = check_store(L);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length);
    struct er_store_news news;
    struct er_error err = {0};
    if (er_store_feed(store, bytes, length, &news, &err) != ER_OK) {
        return er_push_fail(L, &err);
    }
    lua_pushinteger(L, (lua_Integer)news.events);
    lua_pushboolean(L, news.listed);
    push_value(L, news.failed);
    return 3;
}

static int l_store_forget_line(lua_State *L) {
    er_store_forget_line(check_store(L));
    return 0;
}

static int l_store_get(lua_State *L) {
    const struct er_store *store = check_store(L);
    size_t namespace_length, name_length;
    const char *namespace = luaL_optlstring(L, 2, "", &namespace_length);
    const char *name = luaL_checklstring(L, 3, &name_length);
    const struct er_store_row *row = er_store_find(store, namespace, namespace_length, name, name_length);
    if (!row) {
        lua_pushnil(L);
    } else {
        push_object(L, store, row);
    }
    return 1;
}

static int l_store_rows(lua_State *L) {
    const struct er_store *store = check_store(L);
    lua_settop(L, 1);
    lua_createtable(L, store->count < INT32_MAX ? (int)store->count : INT32_MAX, 0);
    lua_Integer count = 0;
    for (size_t i = 0; i < store->slot_count; i++) {
        if (store->slots[i]) {
            push_object(L, store, store->slots[i]);
            lua_rawseti(L, 2, ++count);
        }
    }
    return 1;
}

static int l_store_changes(lua_State *L) {
    static const char *const words[] = {"added", "modified", "deleted"};
    struct er_store *store = check_store(L);
    lua_Integer most = luaL_optinteger(L, 2, 1000), count = 0;
    enum er_store_change change;
    struct er_store_row *row;
    lua_settop(L, 1);
    lua_newtable(L);
    luaL_checkstack(L, 8, "changes");
    while (count < most && er_store_next_change(store, &change, &row)) {
        lua_createtable(L, 0, 2);
        lua_pushstring(L, words[change]);
        lua_setfield(L, -2, "type");
        push_object(L, store, row);
        lua_setfield(L, -2, "object");
        lua_rawseti(L, 2, ++count);
        if (change == ER_STORE_DELETED) {
            er_free(row);
        }
    }
    return 1;
}

static int l_store_facts(lua_State *L) {
    const struct er_store *store = check_store(L);
    lua_createtable(L, 0, 5);
    lua_pushinteger(L, (lua_Integer)store->count);
    lua_setfield(L, -2, "count");
    size_t bytes = store->bytes + store->slot_count * sizeof *store->slots;
    lua_pushinteger(L, (lua_Integer)bytes);
    lua_setfield(L, -2, "bytes");
    lua_pushinteger(L, (lua_Integer)store->events);
    lua_setfield(L, -2, "events");
    lua_pushinteger(L, (lua_Integer)store->changed_count);
    lua_setfield(L, -2, "waiting");
    lua_pushlstring(L, store->version.data ? store->version.data : "", store->version.length);
    lua_setfield(L, -2, "version");
    return 1;
}

// Lines ---------------------------------------------------------------------------------------------------------------

static int l_lines_close(lua_State *L) {
    er_buf_release(luaL_checkudata(L, 1, LINES));
    return 0;
}

static int l_lines(lua_State *L) {
    struct er_buf *buf = er_handle_new(L, sizeof *buf, LINES);
    buf->max = (size_t)64 << 20;
    return 1;
}

static int keep(lua_State *L, struct er_buf *buf, const char *bytes, size_t length) {
    enum er_status status = er_buf_add(buf, bytes, length);
    if (status == ER_OK) {
        return 1;
    }
    struct er_error err;
    (void)er_fail(&err, status, "a line of more than %zu bytes", buf->max);
    return er_push_fail(L, &err);
}

// The whole lines that a piece ends, without their ends; what is left waits for the next piece.
static int l_lines_feed(lua_State *L) {
    struct er_buf *buf = luaL_checkudata(L, 1, LINES);
    size_t length;
    const char *bytes = luaL_checklstring(L, 2, &length), *end = bytes + length;
    lua_settop(L, 2);
    lua_newtable(L);
    lua_Integer count = 0;
    for (const char *newline; bytes < end; bytes = newline + 1) {
        newline = memchr(bytes, '\n', (size_t)(end - bytes));
        if (!newline) {
            return keep(L, buf, bytes, (size_t)(end - bytes));
        }
        if (buf->length) {
            if (keep(L, buf, bytes, (size_t)(newline - bytes)) != 1) {
                return 2;
            }
            lua_pushlstring(L, buf->data, buf->length);
            er_buf_clear(buf);
        } else {
            lua_pushlstring(L, bytes, (size_t)(newline - bytes));
        }
        lua_rawseti(L, 3, ++count);
    }
    return 1;
}

static const luaL_Reg picker_methods[] = {{"pick", l_picker_pick}, {"items", l_picker_items}, {NULL, NULL}};
static const luaL_Reg lines_methods[] = {{"feed", l_lines_feed}, {"close", l_lines_close}, {NULL, NULL}};
static const luaL_Reg store_methods[] = {{"begin", l_store_begin},
                                         {"page", l_store_page},
                                         {"finish", l_store_finish},
                                         {"feed", l_store_feed},
                                         {"forget_line", l_store_forget_line},
                                         {"get", l_store_get},
                                         {"rows", l_store_rows},
                                         {"changes", l_store_changes},
                                         {"facts", l_store_facts},
                                         {"close", l_store_close},
                                         {NULL, NULL}};

int luaopen_eirun_core_kube(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"picker", l_picker}, {"names", l_names}, {"store", l_store}, {"lines", l_lines}, {NULL, NULL}};
    er_handle_type(L, PICKER, picker_methods, l_picker_close);
    er_handle_type(L, STORE, store_methods, l_store_close);
    er_handle_type(L, LINES, lines_methods, l_lines_close);
    er_handle_type(L, NAMES, NULL, l_names_close);
    luaL_newlib(L, functions);
    return 1;
}
