// SPDX-License-Identifier: Apache-2.0
// The HTTP server's connections: slow and leaving clients, limits, closing, and memory that runs out.
#include "server_world.h"

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
