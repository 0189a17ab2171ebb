// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "http_routes.h"

static void url_is_taken_apart(void) {
    struct er_url url;
    CHECK(er_url_parse("https://CS.cn-hangzhou.aliyuncs.com/clusters?page=1", &url, NULL) == ER_OK);
    CHECK(url.tls && url.port == 443);
    CHECK_STR(url.host, "cs.cn-hangzhou.aliyuncs.com");
    CHECK_STR(url.rest, "/clusters?page=1");
    CHECK(er_url_parse("http://127.0.0.1:8080", &url, NULL) == ER_OK);
    CHECK(!url.tls && url.port == 8080);
    CHECK_STR(url.rest, "");
    CHECK(er_url_parse("HTTP://[::1]:6443?x", &url, NULL) == ER_OK);
    CHECK(url.ipv6 && url.port == 6443);
    CHECK_STR(url.host, "::1");
}

// Each of these names one host to one reader and another host to another reader.
static void ambiguous_url_is_refused(void) {
    static const char *const urls[] = {
        "",
        "ftp://a/",
        "//a/",
        "http://",
        "http:///path",
        "http://user@a/",
        "http://a.test\\@b.test/",
        "http://a.test#@b.test/",
        "http://a.test%2eb.test/",
        "http://a.test:80:90/",
        "http://a.test:/",
        "http://a.test:0/",
        "http://a.test:65536/",
        "http://a.test:+80/",
        "http://[::1/",
        "http://a b/",
        "http://a/b c",
        "http://a/\r\nX: y",
        "http://a/b#fragment",
        "http://b\xc3\xbc.test/",
    };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct er_url url;
        struct er_error err = {0};
        CHECK(er_url_parse(urls[i], &url, &err) == ER_INVALID);
        CHECK(err.message[0] != '\0');
    }
}

static void pattern_matches_whole_names(void) {
    CHECK(er_host_matches("*.aliyuncs.com", "bucket.oss-cn-hangzhou.aliyuncs.com"));
    CHECK(er_host_matches("*.aliyuncs.com", "cs.aliyuncs.com"));
    CHECK(er_host_matches("CS.aliyuncs.com", "cs.aliyuncs.com"));
    CHECK(er_host_matches("a*c*e", "abcde"));
    CHECK(er_host_matches("*", "anything"));
    CHECK(!er_host_matches("*.aliyuncs.com", "aliyuncs.com"));
    CHECK(!er_host_matches("*.aliyuncs.com", "cs.aliyuncs.com.evil.test"));
    CHECK(!er_host_matches("cs.aliyuncs.com", "cs.aliyuncs.co"));
    CHECK(!er_host_matches("cs.aliyuncs.com", "xcs.aliyuncs.com"));
}

static void first_row_that_fits_wins_and_ports_count(void) {
    struct er_routes routes = {0};
    CHECK(er_routes_add(&routes, "a.test", 80, "/plain", NULL) == ER_OK);
    CHECK(er_routes_add(&routes, "*.test", 0, NULL, "127.0.0.1:1") == ER_OK);
    CHECK_STR(er_routes_find(&routes, "a.test", 80)->unix_path, "/plain");
    CHECK_STR(er_routes_find(&routes, "a.test", 443)->address, "127.0.0.1:1");
    CHECK(er_routes_find(&routes, "test", 80) == NULL);
    er_routes_release(&routes);
    er_routes_release(&routes);
}

static void row_that_finds_no_memory_leaves_the_table_as_it_was(void) {
    for (unsigned n = 1; n <= 3; n++) {
        struct er_routes routes = {0};
        er_mem_fail_from(n);
        CHECK(er_routes_add(&routes, "a", 0, "/x", NULL) == ER_NO_MEMORY);
        er_mem_fail_from(0);
        CHECK(routes.count == 0);
        er_routes_release(&routes);
    }
}

int main(void) {
    return check_run((struct check_test[]){
        {"url_is_taken_apart", url_is_taken_apart},
        {"ambiguous_url_is_refused", ambiguous_url_is_refused},
        {"pattern_matches_whole_names", pattern_matches_whole_names},
        {"first_row_that_fits_wins_and_ports_count", first_row_that_fits_wins_and_ports_count},
        {"row_that_finds_no_memory_leaves_the_table_as_it_was", row_that_finds_no_memory_leaves_the_table_as_it_was},
        {0},
    });
}
