// SPDX-License-Identifier: Apache-2.0
// Build tool: embed ROOT BLOB TABLE < names of files. Writes every file twice into BLOB, as text and compiled, and into
// TABLE the C source that finds them there. The text is what `eirun reference` reads; the compiled form is what
// `require` loads.
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const char lua_ident[];

static void fail(const char *what, const char *name) {
    fprintf(stderr, "embed: %s: %s\n", name, what);
    exit(1);
}

static int write_piece(lua_State *L, const void *bytes, size_t length, void *to) {
    (void)L;
    return fwrite(bytes, 1, length, to) != length;
}

static char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        fail("cannot be read", path);
    }
    *length = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*length + 1);
    if (!text || fread(text, 1, *length, file) != *length) {
        fail("cannot be read", path);
    }
    fclose(file);
    return text;
}

// "kube/init.lua" -> "kube", "kube/client.lua" -> "kube.client"
static void name_module(char *file) {
    file[strlen(file) - strlen(".lua")] = 0;
    size_t length = strlen(file), tail = strlen("/init");
    if (length > tail && strcmp(file + length - tail, "/init") == 0) {
        file[length - tail] = 0;
    }
    for (char *at = file; *at; at++) {
        *at = *at == '/' ? '.' : *at;
    }
}

static void embed(lua_State *L, const char *root, const char *file, FILE *blob, FILE *table) {
    char *path = NULL, *chunk = NULL, *module = strdup(file);
    if (asprintf(&path, "%s/%s", root, file) < 0 || asprintf(&chunk, "@%s", file) < 0 || !module) {
        fail("no memory", file);
    }
    name_module(module);
    size_t length;
    char *text = read_file(path, &length);
    long from = ftell(blob);
    if (fwrite(text, 1, length, blob) != length || luaL_loadbufferx(L, text, length, chunk, "t") != LUA_OK ||
        lua_dump(L, write_piece, blob, 0) != 0) {
        fail(lua_isstring(L, -1) ? lua_tostring(L, -1) : "cannot be written", file);
    }
    long compiled = from + (long)length;
    fprintf(table, "    {\"%s\", \"%s\", er_embedded_blob + %ld, %zu, er_embedded_blob + %ld, %ld},\n", module, chunk,
            from, length, compiled, ftell(blob) - compiled);
    lua_settop(L, 0);
    free(path);
    free(chunk);
    free(module);
    free(text);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fail("wants ROOT BLOB TABLE", "usage");
    }
    FILE *blob = fopen(argv[2], "wb"), *table = fopen(argv[3], "w");
    lua_State *L = luaL_newstate();
    if (!blob || !table || !L) {
        fail("cannot be written", argv[2]);
    }
    fprintf(table,
            "// Generated from lua/. Do not edit.\n#include \"embedded.h\"\n\n"
            "__asm__(\".section .rodata\\ner_embedded_blob:\\n.incbin \\\"%s\\\"\\n.previous\\n\");\n"
            "extern const char er_embedded_blob[];\n\nconst char er_embedded_lua[] = \"%s\";\n\n"
            "const struct er_embedded er_embedded[] = {\n",
            argv[2], lua_ident);
    char file[4096];
    while (fgets(file, sizeof file, stdin)) {
        file[strcspn(file, "\n")] = 0;
        embed(L, argv[1], file, blob, table);
    }
    fprintf(table, "    {0},\n};\n");
    lua_close(L);
    return fclose(blob) != 0 || fclose(table) != 0;
}
