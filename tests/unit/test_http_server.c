// SPDX-License-Identifier: Apache-2.0
// The HTTP server against raw bytes, over a Unix socket, on the virtual clock. The handler echoes method, path and
// body.
#include "check.h"
#include "embedded.h"
#include "http_server.h"
#include "runtime_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

const struct er_embedded er_embedded[] = {{0}}; // no Lua here
const char er_embedded_lua[] = "";

static const int64_t second = INT64_C(1000000000);

// ---- a server whose requests are handled in C

struct exchange {
    struct er_httpd_req *req;
    bool reading, replied;
    char text[4096];
};

struct world {
    struct er_runtime *rt;
    struct er_httpd *server;
    struct exchange open[8];
    size_t requests;
    bool hold;      // take requests but leave them alone
    bool to_file;   // bodies go to a file
    bool no_body;   // reply without reading the body
    size_t padding; // bytes of reply beside the echo
    char *large;
    int client;
    char got[1 << 16];
    size_t got_length;
    bool ended;    // the server closed
    size_t wanted; // stop after this many bytes, 0: at the end
    int idle_turns;
};

static char path[64], file[80];

static void reply(struct world *world, struct exchange *exchange) {
    struct er_httpd_req *req = exchange->req;
    const struct er_httpd_head *head = er_httpd_req_head(req);
    exchange->replied = true;
    int status = 200;
    struct er_buf body = {.max = sizeof exchange->text};
    struct er_error err;
    if (!world->no_body && er_httpd_body_result(req, &err) != ER_OK) {
        status = er_httpd_default_status(req);
    }
    const struct er_buf *memory = er_httpd_body_memory(req);
    er_buf_printf(&body, "%s %.*s [%.*s]", head->method, (int)head->path.length, head->path.data, (int)memory->length,
                  memory->data ? memory->data : "");
    snprintf(exchange->text, sizeof exchange->text, "%s", body.data ? body.data : "");
    er_buf_release(&body);
    if (er_httpd_reply_begin(req, status, NULL) != ER_OK) {
        return;
    }
    if (world->large) {
        er_httpd_reply_whole(req, world->large, world->padding, NULL);
    } else {
        er_httpd_reply_whole(req, exchange->text, strlen(exchange->text), NULL);
    }
}

static struct exchange *free_place(struct world *world) {
    for (size_t i = 0; i < 8; i++) {
        if (!world->open[i].req) {
            return &world->open[i];
        }
    }
    return NULL;
}

static void advance(struct world *world, struct exchange *exchange) {
    if (!exchange->reading && !world->no_body) {
        exchange->reading = true;
        if (world->to_file) {
            er_httpd_body_to_file(exchange->req, file, ER_DIGEST_BIT(ER_DIGEST_MD5), UINT64_MAX);
        } else {
            er_httpd_body_to_memory(exchange->req, 1000);
        }
    }
    if (!exchange->replied && (world->no_body || !er_httpd_body_pending(exchange->req))) {
        reply(world, exchange);
    }
    if (exchange->replied && !er_httpd_reply_pending(exchange->req)) {
        er_httpd_req_free(exchange->req);
        exchange->req = NULL;
    }
}

static void serve(struct world *world) {
    do {
        struct exchange *place = free_place(world);
        if (place && er_httpd_has_next(world->server)) {
            *place = (struct exchange){.req = er_httpd_next(world->server)};
            world->requests++;
        }
        for (size_t i = 0; i < 8; i++) {
            if (world->open[i].req && !world->hold) {
                advance(world, &world->open[i]);
            }
        }
    } while (er_httpd_has_next(world->server) && free_place(world));
}

static void receive(struct world *world) {
    while (!world->ended && world->got_length < sizeof world->got - 1) {
        ssize_t count = recv(world->client, world->got + world->got_length, sizeof world->got - 1 - world->got_length,
                             MSG_DONTWAIT);
        if (count < 0 && errno == EAGAIN) {
            return;
        }
        if (count <= 0) {
            world->ended = true;
            return;
        }
        world->idle_turns = 0;
        world->got_length += (size_t)count;
        world->got[world->got_length] = '\0';
    }
}

// Called between two turns of the loop.
static bool turn(void *context) {
    struct world *world = context;
    if (world->server) {
        serve(world);
    }
    if (world->client >= 0) {
        receive(world);
    }
    bool enough = world->wanted && world->got_length >= world->wanted;
    return world->ended || enough || ++world->idle_turns > 50;
}

static bool open_world(struct world *world, const struct er_httpd_opts *opts) {
    *world = (struct world){.client = -1};
    if (er_runtime_new(&world->rt) != ER_OK) {
        return false;
    }
    er_clock_use_virtual(world->rt, 1767600000 * second);
    struct er_error err;
    struct er_httpd_opts used = *opts;
    used.unix_path = path;
    if (er_httpd_listen(world->rt, &used, &world->server, &err) != ER_OK) {
        world->server = NULL;
        return false;
    }
    return true;
}

static void close_world(struct world *world) {
    for (size_t i = 0; i < 8; i++) {
        if (world->open[i].req) {
            er_httpd_req_free(world->open[i].req);
        }
    }
    if (world->client >= 0) {
        close(world->client);
    }
    er_httpd_free(world->server);
    free(world->large);
    if (world->rt) {
        er_runtime_free(world->rt);
    }
}

static bool connect_client(struct world *world) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    world->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(world->client, (struct sockaddr *)&address, sizeof address) == 0;
}

static void say(struct world *world, const char *bytes, size_t length) {
    (void)!send(world->client, bytes, length, MSG_NOSIGNAL);
}

static void run(struct world *world) {
    world->idle_turns = 0;
    er_runtime_run(world->rt, turn, world);
}

static const struct er_httpd_opts small = {
    .limits = {.target = 100, .header = 1000, .header_count = 10, .body = 2000},
    .idle_timeout = 75 * second,
    .header_timeout = 30 * second,
    .stall_timeout = 60 * second,
};

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

#define HOST "Host: a\r\n"
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

// ---- time and partings

static int64_t seconds_passed(struct world *world) { return (er_now(world->rt) - 1767600000 * second) / second; }

static void slow_clients_are_left(void) {
    static const struct {
        const char *bytes, *status;
        int64_t seconds;
    } slow[] = {
        {"", "", 75},
        {"GET / HT", "HTTP/1.1 408 ", 30},
        {"POST / HTTP/1.1\r\n" HOST "Content-Length: 10\r\n\r\n012", "HTTP/1.1 408 ", 60},
        {"GET / HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 ", 75},
    };
    static struct world world;
    for (size_t i = 0; i < sizeof slow / sizeof *slow; i++) {
        CHECK(open_world(&world, &small) && connect_client(&world));
        say(&world, slow[i].bytes, strlen(slow[i].bytes));
        run(&world);
        CHECK(strncmp(world.got, slow[i].status, strlen(slow[i].status)) == 0);
        CHECK(world.ended);
        int64_t passed = seconds_passed(&world);
        CHECK(passed >= slow[i].seconds && passed <= slow[i].seconds + 2);
        close_world(&world);
    }
}

static void a_client_that_does_not_read_its_reply_is_left(void) {
    static const char bytes[] = "GET / HTTP/1.1\r\n" HOST "\r\n";
    static struct world world;
    CHECK(open_world(&world, &small) && connect_client(&world));
    world.padding = 8 << 20;
    world.large = calloc(1, world.padding);
    say(&world, bytes, sizeof bytes - 1);
    int client = world.client;
    world.client = -1; // nobody receives
    run(&world);
    int64_t passed = seconds_passed(&world);
    CHECK(passed >= 60 && passed < 200);
    CHECK(world.open[0].req == NULL);
    world.client = client;
    close_world(&world);
}

static void a_peer_that_leaves_early_is_seen(void) {
    static const char bytes[] = "GET / HTTP/1.1\r\n" HOST "\r\n";
    static struct world world;
    CHECK(open_world(&world, &small) && connect_client(&world));
    world.hold = true;
    say(&world, bytes, sizeof bytes - 1);
    for (int i = 0; i < 5; i++) {
        uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
        serve(&world);
    }
    CHECK(world.requests == 1 && !er_httpd_req_peer_closed(world.open[0].req));
    close(world.client);
    world.client = -1;
    for (int i = 0; i < 5; i++) {
        uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
    }
    CHECK(er_httpd_req_peer_closed(world.open[0].req));
    close_world(&world);
}

static void a_half_closed_client_gets_its_reply(void) {
    static const char bytes[] = "POST / HTTP/1.1\r\n" HOST "Content-Length: 2\r\n\r\nok";
    static struct world world;
    CHECK(open_world(&world, &small) && connect_client(&world));
    say(&world, bytes, sizeof bytes - 1);
    shutdown(world.client, SHUT_WR);
    run(&world);
    CHECK(strstr(world.got, "[ok]"));
    CHECK(seconds_passed(&world) == 0);
    close_world(&world);
}

static void close_lets_requests_finish_and_free_cuts_them(void) {
    static const char bytes[] = "GET / HTTP/1.1\r\n" HOST "\r\n";
    static struct world world;
    for (int cut = 0; cut < 2; cut++) {
        CHECK(open_world(&world, &small) && connect_client(&world));
        world.hold = true;
        say(&world, bytes, sizeof bytes - 1);
        for (int i = 0; i < 5; i++) {
            uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
            serve(&world);
        }
        CHECK(world.requests == 1);
        if (cut) {
            er_httpd_free(world.server);
            world.server = NULL;
            CHECK(er_httpd_req_peer_closed(world.open[0].req));
        } else {
            er_httpd_close(world.server);
            world.hold = false;
        }
        run(&world);
        CHECK(world.ended);
        CHECK((strstr(world.got, "GET / []") != NULL) == !cut);
        CHECK(!strstr(world.got, "200") || strstr(world.got, "Connection: close"));
        close_world(&world);
    }
}

static void more_connections_than_allowed_wait_their_turn(void) {
    static const char bytes[] = "GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n";
    struct er_httpd_opts one = small;
    one.limits.connections = 1;
    static struct world world;
    CHECK(open_world(&world, &one) && connect_client(&world));
    int first = world.client;
    for (int i = 0; i < 5; i++) {
        uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
    }
    CHECK(connect_client(&world));
    say(&world, bytes, sizeof bytes - 1);
    for (int i = 0; i < 5; i++) {
        uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
        serve(&world);
    }
    CHECK(world.requests == 0);
    close(first);
    run(&world);
    CHECK(strstr(world.got, "GET / []"));
    close_world(&world);
}

static void a_stale_socket_is_taken_over_and_a_live_one_is_not(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int left = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK(bind(left, (struct sockaddr *)&address, sizeof address) == 0);
    close(left);
    static struct world world;
    CHECK(open_world(&world, &small));
    struct er_httpd_opts opts = small;
    struct er_httpd *second_server;
    struct er_error err;
    opts.unix_path = path;
    CHECK(er_httpd_listen(world.rt, &opts, &second_server, &err) == ER_CONFLICT);
    close_world(&world);
    CHECK(access(path, F_OK) != 0);
}

// ---- memory

static void every_allocation_may_fail(void) {
    static const char bytes[] = "POST /x HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"
                                "GET /next HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n";
    static struct world world;
    bool whole = false;
    uint64_t n = 1;
    for (; !whole && n < 500; n++) {
        world = (struct world){.client = -1};
        CHECK(er_runtime_new(&world.rt) == ER_OK);
        er_clock_use_virtual(world.rt, 1767600000 * second);
        struct er_httpd_opts opts = small;
        opts.unix_path = path;
        er_mem_fail_from(n);
        if (er_httpd_listen(world.rt, &opts, &world.server, NULL) != ER_OK) {
            world.server = NULL;
        } else if (connect_client(&world)) {
            say(&world, bytes, sizeof bytes - 1);
            run(&world);
            whole = strstr(world.got, "POST /x [body]") && strstr(world.got, "GET /next []");
        }
        er_mem_fail_from(0);
        close_world(&world);
    }
    CHECK(whole);
    CHECK(n > 5);
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
        {"slow_clients_are_left", slow_clients_are_left},
        {"a_client_that_does_not_read_its_reply_is_left", a_client_that_does_not_read_its_reply_is_left},
        {"a_peer_that_leaves_early_is_seen", a_peer_that_leaves_early_is_seen},
        {"a_half_closed_client_gets_its_reply", a_half_closed_client_gets_its_reply},
        {"close_lets_requests_finish_and_free_cuts_them", close_lets_requests_finish_and_free_cuts_them},
        {"more_connections_than_allowed_wait_their_turn", more_connections_than_allowed_wait_their_turn},
        {"a_stale_socket_is_taken_over_and_a_live_one_is_not", a_stale_socket_is_taken_over_and_a_live_one_is_not},
        {"every_allocation_may_fail", every_allocation_may_fail},
        {0},
    });
}
