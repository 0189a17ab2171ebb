// SPDX-License-Identifier: Apache-2.0
// The HTTP server against raw bytes: what it refuses, what may come in pieces, and what it answers.
#include "server_world.h"

// What the server says to these bytes, up to its close or the idle time-out. Static storage.
static const char *answer(const char *bytes, size_t length) {
    static struct world world;
    static char text[1 << 16];
    text[0] = '\0';
    if (open_world(&world, &small) && connect_client(&world)) {
        say(&world, bytes, length);
        run(&world);
        strcpy(text, world.got);
    }
    close_world(&world);
    return text;
}

static int count(const char *text, const char *part) {
    int found = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) {
        found++;
    }
    return found;
}

// ---- one request a row: what is refused, and what is not

#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
#define THOUSAND HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED

static const struct {
    const char *request;
    const char *status; // "" where the connection closes without a word
    const char *body;   // part of what is answered, NULL: no matter
} rows[] = {
    {"GET / HTTP/1.1\r\n" HOST "\r\n", "200", "GET / []"},
    {"GET /a/b?c=d HTTP/1.1\r\n" HOST "\r\n", "200", "GET /a/b []"},
    {"GET http://a/b?c HTTP/1.1\r\n" HOST "\r\n", "200", "GET /b []"},
    {"GET http://a HTTP/1.1\r\n" HOST "\r\n", "200", "GET / []"},
    {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "200", "OPTIONS * []"},
    {"\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", "200", NULL},
    {"GET / HTTP/1.0\r\n\r\n", "200", "Connection: close"},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", "Connection: keep-alive"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello", "200", "[hello]"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: v\r\n\r\n", "200",
     "[hello]"},
    {"GET / HTTP/1.1\r\n" HOST "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "200", NULL},
    {"PROPFIND / HTTP/1.1\r\n" HOST "\r\n", "200", NULL},
    // not HTTP
    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400", NULL},
    {"hello\r\n\r\n", "400", NULL},
    {"GET\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1 \r\n" HOST "\r\n", "505", NULL},
    {"GET / XTTP/1.1\r\n" HOST "\r\n", "400", NULL},
    {"GET / HTTP/1.2\r\n" HOST "\r\n", "505", NULL},
    {"GET / HTTP/2.0\r\n" HOST "\r\n", "505", NULL},
    {"GET / HTTP/0.9\r\n\r\n", "505", NULL},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", NULL},
    {"CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n", "501", NULL},
    {"SETUP / RTSP/1.0\r\n\r\n", "501", NULL},
    // heads that two parsers could read in two ways
    {"GET / HTTP/1.1\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n" HOST "Host: b\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\n" HOST "\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\nHost: a\r\n\n", "400", NULL},
    {"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\n\tb\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n" HOST " X: a\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n" HOST "X y: a\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n: a\r\n\r\n", "400", NULL},
    {"GET / HTTP/1.1\r\n:\r\n\r\n", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5, 5\r\n\r\nhello", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\nhello", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: -5\r\n\r\nhello", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\nhello", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: \r\n\r\nhello", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\nhello", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400",
     NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", "501", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "501", NULL},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Expect: the-unexpected\r\n\r\n", "417", NULL},
    // limits
    {"GET /" HUNDRED " HTTP/1.1\r\n" HOST "\r\n", "414", NULL},
    {"GET / HTTP/1.1\r\n" HOST "X: " THOUSAND "\r\n\r\n", "431", NULL},
    {"GET / HTTP/1.1\r\n" HOST "A:1\r\nB:1\r\nC:1\r\nD:1\r\nE:1\r\nF:1\r\nG:1\r\nH:1\r\nI:1\r\nJ:1\r\n\r\n", "431",
     NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 2001\r\n\r\n", "413", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1001\r\n\r\n", "413", NULL}, // the handler's own maximum
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n3e9\r\n" THOUSAND "x\r\n0\r\n\r\n", "413", NULL},
    // bodies
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nzz\r\n", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", "400", NULL},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n 2\r\nab\r\n0\r\n\r\n", "400", NULL},
};

static void each_request_gets_its_status(void) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *text = answer(rows[i].request, strlen(rows[i].request));
        char line[32];
        snprintf(line, sizeof line, "HTTP/1.1 %s ", rows[i].status);
        bool right = strncmp(text, line, strlen(line)) == 0 && (!rows[i].body || strstr(text, rows[i].body));
        if (!right) {
            fprintf(stderr, "row %zu: %.60s...\n  answered: %.200s\n", i, rows[i].request, text);
        }
        CHECK(right);
        CHECK(count(text, "HTTP/1.1 ") == 1);
    }
}

static void a_nul_byte_in_the_head_is_refused(void) {
    static const char bytes[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
    CHECK(strncmp(answer(bytes, sizeof bytes - 1), "HTTP/1.1 400 ", 13) == 0);
}

static void a_refusal_ends_the_connection(void) {
    static const char bytes[] = "GET / HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n" HOST "\r\n";
    const char *text = answer(bytes, sizeof bytes - 1);
    CHECK(strstr(text, "Connection: close"));
    CHECK(!strstr(text, "smuggled"));
}

// ---- arrival in pieces

static void a_message_may_be_cut_anywhere(void) {
    static const char bytes[] =
        "POST /x HTTP/1.1\r\n" HOST "X-Long: value with spaces \r\nTransfer-Encoding: chunked\r\n\r\n"
        "4;e=f\r\nbody\r\n3\r\n012\r\n0\r\nTrailer: t\r\n\r\nGET /next HTTP/1.1\r\n" HOST "\r\n";
    static struct world world;
    for (size_t cut = 1; cut < sizeof bytes - 1; cut++) {
        CHECK(open_world(&world, &small) && connect_client(&world));
        world.wanted = 1;
        say(&world, bytes, cut);
        for (int i = 0; i < 5; i++) { // far from any time-out
            uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
            serve(&world);
        }
        say(&world, bytes + cut, sizeof bytes - 1 - cut);
        world.wanted = 0;
        run(&world);
        bool right = strstr(world.got, "POST /x [body012]") && strstr(world.got, "GET /next []");
        CHECK(right);
        if (!right) {
            fprintf(stderr, "cut at %zu: %s\n", cut, world.got);
        }
        close_world(&world);
    }
}

static void a_fold_that_is_cut_is_still_seen(void) {
    static const char bytes[] = "GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n";
    static struct world world;
    for (size_t cut = 1; cut < sizeof bytes - 1; cut++) {
        CHECK(open_world(&world, &small) && connect_client(&world));
        say(&world, bytes, cut);
        for (int i = 0; i < 5; i++) {
            uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
        }
        say(&world, bytes + cut, sizeof bytes - 1 - cut);
        run(&world);
        CHECK(strncmp(world.got, "HTTP/1.1 400 ", 13) == 0);
        close_world(&world);
    }
}

static void pipelined_requests_are_answered_in_order(void) {
    static const char bytes[] =
        "GET /1 HTTP/1.1\r\n" HOST "\r\nPOST /2 HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc"
        "GET /3 HTTP/1.1\r\n" HOST "Connection: close\r\n\r\nGET /4 HTTP/1.1\r\n" HOST "\r\n";
    const char *text = answer(bytes, sizeof bytes - 1);
    const char *one = strstr(text, "GET /1 []"), *two = strstr(text, "POST /2 [abc]"),
               *three = strstr(text, "GET /3 []");
    CHECK(one && two && three && one < two && two < three);
    CHECK(!strstr(text, "GET /4"));
}

static void a_body_that_nobody_reads_is_passed_over(void) {
    static const char bytes[] =
        "POST /1 HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n" TEN "GET /2 HTTP/1.1\r\n" HOST "\r\n";
    static struct world world;
    CHECK(open_world(&world, &small) && connect_client(&world));
    world.no_body = true;
    say(&world, bytes, sizeof bytes - 1);
    run(&world);
    CHECK(strstr(world.got, "POST /1 []") && strstr(world.got, "GET /2 []"));
    close_world(&world);
}

// While the thread pool still writes the body's end, the next request waits its turn.
static void a_request_behind_a_body_for_a_file_waits(void) {
    static const char head[] = "PUT /1 HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n";
    static const char next[] = "GET /2 HTTP/1.1\r\n" HOST "\r\n";
    static struct world world;
    static char body[100000];
    struct er_httpd_opts opts = small;
    opts.limits.body = sizeof body;
    CHECK(open_world(&world, &opts) && connect_client(&world));
    world.to_file = true;
    say(&world, head, sizeof head - 1);
    say(&world, body, sizeof body);
    say(&world, next, sizeof next - 1);
    run(&world);
    const char *one = strstr(world.got, "PUT /1 []"), *two = strstr(world.got, "GET /2 []");
    CHECK(one && two && one < two);
    CHECK(unlink(file) == 0);
    close_world(&world);
}

static void head_has_a_length_and_no_body(void) {
    static const char bytes[] = "HEAD /h HTTP/1.1\r\n" HOST "\r\n";
    const char *text = answer(bytes, sizeof bytes - 1);
    CHECK(strstr(text, "Content-Length: 10\r\n"));
    CHECK(!strstr(text, "HEAD /h []"));
}

static void expect_continue_is_answered_when_the_body_is_wanted(void) {
    static const char head[] = "POST / HTTP/1.1\r\n" HOST "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    static struct world world;
    CHECK(open_world(&world, &small) && connect_client(&world));
    say(&world, head, sizeof head - 1);
    world.wanted = 1;
    run(&world);
    CHECK_STR(world.got, "HTTP/1.1 100 Continue\r\n\r\n");
    say(&world, "hello", 5);
    world.wanted = 30;
    run(&world);
    CHECK(strstr(world.got, "[hello]"));
    CHECK(!strstr(world.got, "Connection: close"));
    close_world(&world);
    CHECK(open_world(&world, &small) && connect_client(&world));
    world.no_body = true;
    say(&world, head, sizeof head - 1);
    run(&world);
    CHECK(strncmp(world.got, "HTTP/1.1 200 ", 13) == 0); // not invited: the client keeps the body, so we part
    CHECK(strstr(world.got, "Connection: close"));
    CHECK(world.ended);
    close_world(&world);
}

int main(void) {
    snprintf(path, sizeof path, "/tmp/eirun-test-%ld.sock", (long)getpid());
    snprintf(file, sizeof file, "%s.body", path);
    return check_run((struct check_test[]){
        {"each_request_gets_its_status", each_request_gets_its_status},
        {"a_nul_byte_in_the_head_is_refused", a_nul_byte_in_the_head_is_refused},
        {"a_refusal_ends_the_connection", a_refusal_ends_the_connection},
        {"a_message_may_be_cut_anywhere", a_message_may_be_cut_anywhere},
        {"a_fold_that_is_cut_is_still_seen", a_fold_that_is_cut_is_still_seen},
        {"pipelined_requests_are_answered_in_order", pipelined_requests_are_answered_in_order},
        {"a_body_that_nobody_reads_is_passed_over", a_body_that_nobody_reads_is_passed_over},
        {"a_request_behind_a_body_for_a_file_waits", a_request_behind_a_body_for_a_file_waits},
        {"head_has_a_length_and_no_body", head_has_a_length_and_no_body},
        {"expect_continue_is_answered_when_the_body_is_wanted", expect_continue_is_answered_when_the_body_is_wanted},
        {0},
    });
}
