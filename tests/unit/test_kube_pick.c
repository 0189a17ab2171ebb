// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "pick.h"
#include "store.h"

#include <stdlib.h>

static struct er_pick pick;
static struct er_slice out[ER_PICK_MAX_FIELDS];
static struct er_error error;

static void paths(const char *const *list) {
    er_pick_release(&pick);
    for (; *list; list++) {
        CHECK(er_pick_add(&pick, *list, &error) == ER_OK);
    }
}
#define PATHS(...) paths((const char *const[]){__VA_ARGS__, NULL})

static enum er_status pick_text(const char *text) { return er_pick_value(&pick, text, strlen(text), out, &error); }

static const char *picked(int field) {
    static char text[256];
    snprintf(text, sizeof text, "%.*s", (int)out[field].length, out[field].at ? out[field].at : "");
    return text;
}

static void raw_values_are_found_at_their_paths(void) {
    PATHS("metadata.name", "spec", "metadata.labels['a.b/c']", "status.n");
    CHECK(pick_text(" { \"spec\" : {\"a\":[1, {\"metadata\":{\"name\":\"no\"}}]} , "
                    "\"metadata\":{\"labels\":{\"x\":1,\"a.b/c\":\"v\\\"w\"},"
                    "\"name\":\"web\"}, \"status\":{\"n\":-1.5e3} } ") == ER_OK);
    CHECK_STR(picked(0), "\"web\"");
    CHECK_STR(picked(1), "{\"a\":[1, {\"metadata\":{\"name\":\"no\"}}]}");
    CHECK_STR(picked(2), "\"v\\\"w\"");
    CHECK_STR(picked(3), "-1.5e3");
}

static void keys_with_escapes_are_keys_all_the_same(void) {
    PATHS("name", "\xf0\x9f\x98\x80");
    CHECK(pick_text("{\"n\\u0061me\":1,\"\\ud83d\\ude00\":2}") == ER_OK);
    CHECK_STR(picked(0), "1");
    CHECK_STR(picked(1), "2");
}

static void what_is_not_there_or_no_object_is_absent(void) {
    PATHS("a.b", "c");
    CHECK(pick_text("{\"a\":[{\"b\":1}],\"c\":{}  }") == ER_OK);
    CHECK(!out[0].at);
    CHECK_STR(picked(1), "{}");
    CHECK(pick_text("[1]") == ER_OK && !out[0].at && !out[1].at);
}

static void a_path_and_one_below_it_may_both_be_asked_for(void) {
    PATHS("a", "a.b");
    CHECK(pick_text("{\"a\":{\"b\":true}}") == ER_OK);
    CHECK_STR(picked(0), "{\"b\":true}");
    CHECK_STR(picked(1), "true");
}

static void a_wanted_key_that_is_said_twice_is_an_error(void) {
    PATHS("a.b");
    CHECK(pick_text("{\"a\":{\"b\":1,\"b\":1}}") == ER_INVALID);
    CHECK_STR(error.message, "byte 13: a key is said twice");
    CHECK(pick_text("{\"a\":{},\"x\":1,\"x\":2,\"\\u0061\":{}}") == ER_INVALID);
    CHECK(pick_text("{\"x\":1,\"x\":2}") == ER_OK);
}

static void what_is_no_json_is_refused(void) {
    static const char *const bad[] = {"",
                                      "{",
                                      "}",
                                      "{\"a\"}",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "[1,]",
                                      "[1 2]",
                                      "01",
                                      "-",
                                      "1.",
                                      ".5",
                                      "1e",
                                      "+1",
                                      "tru",
                                      "nul",
                                      "\"a",
                                      "\"\\x\"",
                                      "\"\\u12g4\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00\"",
                                      "\"\\ud800\\u0041\"",
                                      "\"\t\"",
                                      "\"\xff\"",
                                      "\"\xc0\xaf\"",
                                      "{} x",
                                      "\"\xed\xa0\x80\"",
                                      "{\"a\":\"\x01\"}",
                                      "[\"a\",]",
                                      "nan",
                                      "'a'",
                                      "{\"a\" 1}",
                                      "[[]"};
    PATHS("a");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(pick_text(bad[i]) == ER_INVALID);
    }
    CHECK(er_pick_value(&pick, "\"a\0\"", 4, out, &error) == ER_INVALID);
}

static void nesting_has_an_end(void) {
    static char deep[6000];
    memset(deep, '[', sizeof deep);
    PATHS("a");
    CHECK(er_pick_value(&pick, deep, sizeof deep, out, &error) == ER_INVALID);
}

static void what_is_no_path_is_refused(void) {
    static const char *const bad[] = {"", ".", "a..b", "a.", "a[b]", "a['b'", "a['']", "['a']b.", "a]"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        er_pick_release(&pick);
        CHECK(er_pick_add(&pick, bad[i], &error) == ER_INVALID);
    }
    PATHS("a.b");
    CHECK(er_pick_add(&pick, "a['b']", &error) == ER_INVALID);
    CHECK_STR(error.message, "'a['b']' is asked for twice");
}

static enum er_status count_item(void *data, const struct er_slice *fields, struct er_error *err) {
    (void)err;
    *(size_t *)data += fields[0].length;
    return ER_OK;
}

static void a_list_is_read_item_by_item(void) {
    struct er_pick head = {0};
    size_t count = 0;
    CHECK(er_pick_add(&head, "metadata.continue", &error) == ER_OK);
    PATHS("metadata.name");
    struct er_pick_list wanted = {.item = &pick, .list = &head, .on_item = count_item, .data = &count};
    static const char text[] =
        "{\"kind\":\"PodList\",\"metadata\":{\"continue\":\"t\"},\"items\":[ {\"metadata\":{\"name\":\"ab\"}} ,"
        "{\"metadata\":{\"name\":\"c\"}}]}";
    CHECK(er_pick_items(&wanted, text, strlen(text), out, &error) == ER_OK);
    CHECK(count == 7);
    CHECK_STR(picked(0), "\"t\"");
    CHECK(er_pick_items(&wanted, "{\"items\":null}", 14, out, &error) == ER_OK && !out[0].at);
    CHECK(er_pick_items(&wanted, "{\"items\":[],\"items\":[]}", 23, out, &error) == ER_INVALID);
    CHECK(er_pick_items(&wanted, "{\"items\":[1", 11, out, &error) == ER_INVALID);
    CHECK(er_pick_items(&wanted, "[]", 2, out, &error) == ER_INVALID);
    er_pick_release(&head);
}

// Store
// ----------------------------------------------------------------------------------------------------------------

static struct er_store store;
static struct er_store_news news;

static void open_store(void) {
    CHECK(er_store_init(&store, (const char *const[]){"status.phase"}, 1, &error) == ER_OK);
    store.tracks = true;
}

static enum er_status feed(const char *text) { return er_store_feed(&store, text, strlen(text), &news, &error); }

static enum er_status event(const char *type, const char *name, const char *uid, int version, const char *phase) {
    char text[400];
    snprintf(text, sizeof text,
             "{\"type\":\"%s\",\"object\":{\"metadata\":{\"namespace\":\"n\",\"name\":\"%s\",\"uid\":\"%s\","
             "\"resourceVersion\":\"%d\"},\"status\":{\"phase\":\"%s\"}}}\n",
             type, name, uid, version, phase);
    return feed(text);
}

// "+web" added, "~web" modified, "-web" deleted.
static const char *changes(void) {
    static char text[512];
    size_t used = 0;
    enum er_store_change change;
    struct er_store_row *row;
    text[0] = '\0';
    while (er_store_next_change(&store, &change, &row)) {
        struct er_slice name = er_store_field(&store, row, ER_STORE_NAME);
        used += (size_t)snprintf(text + used, sizeof text - used, "%c%.*s ", "+~-"[change], (int)name.length - 2,
                                 name.at + 1);
        if (change == ER_STORE_DELETED) {
            er_free(row);
        }
    }
    return text;
}

static void a_change_is_told_once_and_only_when_a_wanted_field_changed(void) {
    open_store();
    CHECK(event("ADDED", "a", "1", 1, "Pending") == ER_OK);
    CHECK(event("MODIFIED", "a", "1", 2, "Running") == ER_OK);
    CHECK_STR(changes(), "+a ");
    CHECK(event("MODIFIED", "a", "1", 3, "Running") == ER_OK);
    CHECK_STR(changes(), "");
    CHECK(event("MODIFIED", "a", "1", 4, "Succeeded, with a longer word than there was room for") == ER_OK);
    CHECK(event("MODIFIED", "a", "1", 5, "Failed") == ER_OK);
    CHECK_STR(changes(), "~a ");
    CHECK(event("MODIFIED", "a", "1", 5, "the same version twice") == ER_OK);
    CHECK_STR(changes(), "");
    CHECK(event("ADDED", "b", "2", 6, "x") == ER_OK && event("DELETED", "b", "2", 7, "x") == ER_OK);
    CHECK(event("DELETED", "a", "1", 8, "x") == ER_OK && event("DELETED", "zzz", "1", 9, "x") == ER_OK);
    CHECK_STR(changes(), "-a ");
    CHECK_STR(store.version.data, "9");
    CHECK(store.count == 0 && store.bytes == 0);
    er_store_release(&store);
}

static void an_object_made_anew_is_another_one(void) {
    open_store();
    CHECK(event("ADDED", "a", "1", 1, "x") == ER_OK);
    CHECK_STR(changes(), "+a ");
    CHECK(event("MODIFIED", "a", "other", 5, "x") == ER_OK);
    CHECK_STR(changes(), "-a +a ");
    er_store_release(&store);
}

static enum er_status page(const char *names, const char *version) {
    char text[2000];
    size_t used =
        (size_t)snprintf(text, sizeof text, "{\"metadata\":{\"resourceVersion\":\"%s\"},\"items\":[", version);
    for (const char *name = names; *name; name++) {
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "%s{\"metadata\":{\"name\":\"%c\",\"uid\":\"u\",\"resourceVersion\":\"1\"}}",
                                 name == names ? "" : ",", *name);
    }
    snprintf(text + used, sizeof text - used, "]}");
    struct er_slice more;
    return er_store_page(&store, text, strlen(text), &more, &error);
}

static void what_no_page_holds_is_deleted(void) {
    open_store();
    er_store_begin(&store);
    CHECK(page("abc", "10") == ER_OK && page("de", "10") == ER_OK && er_store_finish(&store, &error) == ER_OK);
    CHECK_STR(changes(), "+a +b +c +d +e ");
    er_store_begin(&store);
    CHECK(page("bex", "20") == ER_OK && er_store_finish(&store, &error) == ER_OK);
    CHECK(store.count == 3);
    CHECK(er_store_find(&store, "", 0, "x", 1) && !er_store_find(&store, "", 0, "a", 1));
    CHECK_STR(store.version.data, "20");
    er_store_release(&store);
}

static void many_come_and_go(void) {
    open_store();
    char name[16];
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "p%d", i);
        CHECK(event("ADDED", name, "1", i + 1, "Running") == ER_OK);
    }
    for (int i = 0; i < 3000; i += 3) {
        snprintf(name, sizeof name, "p%d", i);
        CHECK(event("DELETED", name, "1", 5000 + i, "Running") == ER_OK);
    }
    CHECK(store.count == 2000);
    for (int i = 0; i < 3000; i++) {
        size_t length = (size_t)snprintf(name, sizeof name, "p%d", i);
        CHECK(!er_store_find(&store, "n", 1, name, length) == (i % 3 == 0));
    }
    er_store_release(&store);
    er_store_release(&store);
}

static void lines_may_come_in_pieces(void) {
    static const char text[] =
        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"7\"}}}\n\r\n"
        "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"123\",\"annotations\":"
        "{\"k8s.io/initial-events-end\":\"true\"}}}}\n";
    for (size_t step = 1; step < sizeof text; step++) {
        size_t events = 0;
        bool listed = false;
        open_store();
        for (size_t at = 0; at < sizeof text - 1; at += step) {
            size_t length = at + step < sizeof text ? step : sizeof text - 1 - at;
            CHECK(er_store_feed(&store, text + at, length, &news, &error) == ER_OK);
            events += news.events;
            listed = listed || news.listed;
        }
        CHECK(events == 1 && listed && store.count == 1);
        CHECK_STR(store.version.data, "123");
        er_store_release(&store);
    }
}

static void what_is_no_event_is_refused(void) {
    open_store();
    CHECK(feed("{\"type\":\"NEWS\",\"object\":{}}\n") == ER_INVALID);
    CHECK(feed("{\"type\":\"ADDED\",\"object\":{}}\n") == ER_INVALID);
    CHECK(feed("{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\n") == ER_INVALID);
    CHECK(feed("nonsense\n") == ER_INVALID);
    er_store_forget_line(&store);
    CHECK(feed("{\"type\":\"ERROR\",\"object\":{\"code\":410}}\nwhatever") == ER_OK);
    CHECK(news.failed.length == 12);
    er_store_release(&store);
}

static void nothing_leaks_when_memory_ends(void) {
    for (uint64_t n = 1; n < 60; n++) {
        er_mem_fail_from(n);
        if (er_store_init(&store, (const char *const[]){"status.phase"}, 1, &error) == ER_OK) {
            store.tracks = true;
            (void)event("ADDED", "a", "1", 1, "x");
            (void)event("MODIFIED", "a", "1", 2, "a phase that is longer");
            (void)feed("{\"type\":");
        }
        er_mem_fail_from(0);
        er_store_release(&store);
    }
}

int main(void) {
    static const struct check_test tests[] = {
        {"raw_values_are_found_at_their_paths", raw_values_are_found_at_their_paths},
        {"keys_with_escapes_are_keys_all_the_same", keys_with_escapes_are_keys_all_the_same},
        {"what_is_not_there_or_no_object_is_absent", what_is_not_there_or_no_object_is_absent},
        {"a_path_and_one_below_it_may_both_be_asked_for", a_path_and_one_below_it_may_both_be_asked_for},
        {"a_wanted_key_that_is_said_twice_is_an_error", a_wanted_key_that_is_said_twice_is_an_error},
        {"what_is_no_json_is_refused", what_is_no_json_is_refused},
        {"nesting_has_an_end", nesting_has_an_end},
        {"what_is_no_path_is_refused", what_is_no_path_is_refused},
        {"a_list_is_read_item_by_item", a_list_is_read_item_by_item},
        {"a_change_is_told_once_and_only_when_a_wanted_field_changed",
         a_change_is_told_once_and_only_when_a_wanted_field_changed},
        {"an_object_made_anew_is_another_one", an_object_made_anew_is_another_one},
        {"what_no_page_holds_is_deleted", what_no_page_holds_is_deleted},
        {"many_come_and_go", many_come_and_go},
        {"lines_may_come_in_pieces", lines_may_come_in_pieces},
        {"what_is_no_event_is_refused", what_is_no_event_is_refused},
        {"nothing_leaks_when_memory_ends", nothing_leaks_when_memory_ends},
        {0}};
    int code = check_run(tests);
    er_pick_release(&pick);
    return code;
}
