// SPDX-License-Identifier: Apache-2.0
// The client's mechanism against a server thread that answers by path, without Lua: failures, cancels at every moment,
// and memory that runs out at every allocation.
#include "check.h"
#include "curl_dl.h"
#include "embedded.h"
#include "http_client.h"
#include "http_peer.h"
#include "runtime_internal.h"

#include <signal.h>

const struct er_embedded er_embedded[] = {{0}}; // no Lua here
const char er_embedded_lua[] = "";

// ---- client

struct world {
    struct er_runtime *rt;
    struct er_routes routes;
    struct er_http_client *client;
};

static struct er_http_options options = {.user_agent = "test", .max_connections = 2};

static void open_world(struct world *world) {
    *world = (struct world){0};
    struct er_error err;
    CHECK(er_runtime_new(&world->rt) == ER_OK);
    CHECK(er_routes_add(&world->routes, "a.test", 0, socket_path, NULL) == ER_OK);
    world->routes.closed = true;
    CHECK(er_http_client_new(world->rt, &options, &world->client, &err) == ER_OK);
}

static void close_world(struct world *world) {
    er_http_client_free(world->client);
    er_routes_release(&world->routes);
    er_runtime_free(world->rt);
}

static bool is_finished(void *reply) { return ((struct er_http_reply *)reply)->finished; }

static struct er_http_call call_to(const char *url) {
    return (struct er_http_call){.method = "GET", .url = url, .max_body = 1000, .sink_offset = -1};
}

static struct er_http_reply *start(struct world *world, const struct er_http_call *call) {
    struct er_http_reply *reply = NULL;
    struct er_error err;
    CHECK(er_http_start(world->client, &world->routes, call, &reply, &err) == ER_OK);
    return reply;
}

static struct er_http_reply *fetch(struct world *world, const struct er_http_call *call) {
    struct er_http_reply *reply = start(world, call);
    CHECK(er_runtime_run(world->rt, is_finished, reply));
    return reply;
}

// ---- tests

static void answer_arrives_and_the_connection_is_used_again(void) {
    struct world world;
    open_world(&world);
    struct er_http_call call = call_to("http://a.test/ok");
    struct er_http_reply *first = fetch(&world, &call);
    struct er_http_reply *second = fetch(&world, &call);
    CHECK(first->error.status == ER_OK && first->status == 200 && !first->reused);
    CHECK_STR(first->body.data, "ok");
    CHECK_STR(er_headers_get(&first->headers, "x-a"), "1");
    CHECK(second->reused);
    er_http_free(first);
    er_http_free(second);
    close_world(&world);
}

static void interim_answers_and_trailers_are_not_the_answer(void) {
    struct world world;
    open_world(&world);
    struct er_http_call call = call_to("http://a.test/interim");
    struct er_http_reply *reply = fetch(&world, &call);
    CHECK(reply->status == 200);
    CHECK(er_headers_get(&reply->headers, "x-early") == NULL);
    er_http_free(reply);
    call.url = "http://a.test/chunked";
    reply = fetch(&world, &call);
    CHECK_STR(reply->body.data, "abcde");
    CHECK(er_headers_get(&reply->headers, "x-t") == NULL);
    er_http_free(reply);
    close_world(&world);
}

static void failures_say_where_and_why(void) {
    static const struct {
        const char *path, *part;
    } rows[] = {
        {"http://a.test/short", "connection to a.test:80 at "},
        {"http://a.test/none", "it was closed before the answer"},
        {"http://a.test/rubbish", "the answer is not HTTP"},
    };
    struct world world;
    open_world(&world);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct er_http_call call = call_to(rows[i].path);
        struct er_http_reply *reply = fetch(&world, &call);
        CHECK(reply->error.status == ER_NETWORK);
        CHECK(strstr(reply->error.message, rows[i].part) != NULL);
        CHECK(reply->sent);
        er_http_free(reply);
    }
    close_world(&world);
}

static void host_outside_a_closed_table_is_denied(void) {
    struct world world;
    open_world(&world);
    struct er_http_call call = call_to("http://b.test/ok");
    struct er_http_reply *reply = NULL;
    struct er_error err;
    CHECK(er_http_start(world.client, &world.routes, &call, &reply, &err) == ER_DENIED);
    CHECK(reply == NULL);
    close_world(&world);
}

static void lost_answer_to_a_write_is_not_sent_twice(void) {
    struct world world;
    open_world(&world);
    struct er_http_call call = call_to("http://a.test/ok");
    er_http_free(fetch(&world, &call)); // leaves a connection to be used again
    call.url = "http://a.test/none";
    call.method = "POST";
    struct er_http_reply *reply = fetch(&world, &call);
    CHECK(reply->error.status == ER_NETWORK && reply->sent && reply->retryable);
    CHECK(reply->reused); // no second connection was made
    er_http_free(reply);
    close_world(&world);
}

static void answer_beyond_the_maximum_is_refused(void) {
    struct world world;
    open_world(&world);
    struct er_http_call call = call_to("http://a.test/chunked");
    call.max_body = 4;
    struct er_http_reply *reply = fetch(&world, &call);
    CHECK(reply->error.status == ER_QUOTA);
    er_http_free(reply);
    close_world(&world);
}

static void deadlines_name_what_was_late(void) {
    struct world world;
    open_world(&world);
    er_clock_use_virtual(world.rt, 1000000000);
    struct er_http_call call = call_to("http://a.test/silent");
    call.timeout = 60 * 1000000000LL;
    struct er_http_reply *reply = fetch(&world, &call);
    CHECK(reply->error.status == ER_TIMEOUT && reply->sent);
    CHECK_STR(reply->error.message, "a.test:80 did not answer within 60 s");
    er_http_free(reply);
    call.timeout = 0;
    call.stall_timeout = 5 * 1000000000LL;
    reply = fetch(&world, &call);
    CHECK_STR(reply->error.message, "a.test:80 neither took nor sent a byte within 5 s");
    er_http_free(reply);
    close_world(&world);
}

static void requests_beyond_the_maximum_wait_their_turn(void) {
    struct world world;
    open_world(&world);
    struct er_http_call silent = call_to("http://a.test/silent"), call = call_to("http://a.test/ok");
    struct er_http_reply *one = start(&world, &silent), *two = start(&world, &silent), *three = start(&world, &call);
    CHECK(!three->finished);
    er_http_cancel(one);
    CHECK(er_runtime_run(world.rt, is_finished, three));
    CHECK(three->status == 200);
    CHECK(!two->finished);
    er_http_free(one);
    er_http_free(two);
    er_http_free(three);
    close_world(&world);
}

static void closing_the_client_fails_what_is_under_way(void) {
    struct world world;
    open_world(&world);
    struct er_http_call call = call_to("http://a.test/silent");
    struct er_http_reply *replies[3];
    for (size_t i = 0; i < 3; i++) {
        replies[i] = start(&world, &call);
    }
    close_world(&world);
    for (size_t i = 0; i < 3; i++) {
        CHECK(replies[i]->finished && replies[i]->error.status == ER_INVALID);
        er_http_free(replies[i]);
    }
}

static void cancel_after_any_number_of_turns_leaves_nothing_behind(void) {
    static const char *const urls[] = {"http://a.test/chunked", "http://a.test/silent"};
    struct world world;
    open_world(&world);
    for (size_t i = 0; i < 2 * 8; i++) {
        struct er_http_call call = call_to(urls[i % 2]);
        call.stream = i % 3 == 0;
        struct er_http_reply *reply = start(&world, &call);
        for (size_t turn = 0; turn < i / 2; turn++) {
            uv_run(er_loop(world.rt), UV_RUN_NOWAIT);
        }
        er_http_free(reply);
    }
    struct er_http_call call = call_to("http://a.test/ok");
    struct er_http_reply *reply = fetch(&world, &call);
    CHECK(reply->status == 200);
    er_http_free(reply);
    close_world(&world);
}

static void proxy_variables_hold_for_hosts_without_a_route(void) {
    struct world world;
    open_world(&world);
    world.routes.closed = false;
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    struct er_http_call call = call_to("http://far.test/ok");
    struct er_http_reply *reply = fetch(&world, &call);
    CHECK_STR(reply->error.message, "cannot connect to far.test:80 through proxy 127.0.0.1:1: connection refused");
    er_http_free(reply);
    call.url = "http://a.test/ok";
    reply = fetch(&world, &call);
    CHECK(reply->status == 200);
    er_http_free(reply);
    unsetenv("http_proxy");
    close_world(&world);
}

// One request in a world of its own, with every allocation from the n-th on failing. True when it succeeded.
static bool survives(uint64_t n, const struct er_http_call *call) {
    struct world world;
    open_world(&world);
    er_http_client_free(world.client);
    world.client = NULL;
    struct er_http_reply *reply = NULL;
    struct er_error err;
    er_mem_fail_from(n);
    enum er_status status = er_http_client_new(world.rt, &options, &world.client, &err);
    if (status == ER_OK) {
        status = er_http_start(world.client, &world.routes, call, &reply, &err);
    }
    if (status == ER_OK) {
        er_runtime_run(world.rt, is_finished, reply);
        status = reply->error.status;
    }
    er_mem_fail_from(0);
    er_http_free(reply);
    if (world.client) { // it works as soon as there is memory again
        struct er_http_call next = call_to("http://a.test/ok");
        reply = fetch(&world, &next);
        CHECK(reply->status == 200);
        er_http_free(reply);
        er_http_client_free(world.client);
    }
    er_routes_release(&world.routes);
    er_runtime_free(world.rt);
    CHECK(status == ER_OK || status == ER_NO_MEMORY);
    return status == ER_OK;
}

static void memory_that_runs_out_anywhere_is_reported(void) {
    struct er_http_pair header = {.name = {"x-a", 3}, .value = {"1", 1}};
    struct er_http_call call = call_to("http://a.test/ok");
    call.headers = &header;
    call.header_count = 1;
    call.method = "POST";
    call.body = (struct er_bytes){"body", 4};
    call.timeout = 5 * 1000000000LL;
    uint64_t n = 1;
    while (n < 200 && !survives(n, &call)) {
        n++;
    }
    CHECK(n > 5 && n < 200);
}

static void version_is_told_without_starting_the_library(void) {
    struct er_error err;
    const char *told = er_curl_version();
    CHECK_STR(told, er_curl_open(&err)->version_info(CURLVERSION_NOW)->version);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    start_server();
    int code = check_run((struct check_test[]){
        {"version_is_told_without_starting_the_library", version_is_told_without_starting_the_library},
        {"answer_arrives_and_the_connection_is_used_again", answer_arrives_and_the_connection_is_used_again},
        {"interim_answers_and_trailers_are_not_the_answer", interim_answers_and_trailers_are_not_the_answer},
        {"failures_say_where_and_why", failures_say_where_and_why},
        {"host_outside_a_closed_table_is_denied", host_outside_a_closed_table_is_denied},
        {"lost_answer_to_a_write_is_not_sent_twice", lost_answer_to_a_write_is_not_sent_twice},
        {"answer_beyond_the_maximum_is_refused", answer_beyond_the_maximum_is_refused},
        {"deadlines_name_what_was_late", deadlines_name_what_was_late},
        {"requests_beyond_the_maximum_wait_their_turn", requests_beyond_the_maximum_wait_their_turn},
        {"closing_the_client_fails_what_is_under_way", closing_the_client_fails_what_is_under_way},
        {"cancel_after_any_number_of_turns_leaves_nothing_behind",
         cancel_after_any_number_of_turns_leaves_nothing_behind},
        {"proxy_variables_hold_for_hosts_without_a_route", proxy_variables_hold_for_hosts_without_a_route},
        {"memory_that_runs_out_anywhere_is_reported", memory_that_runs_out_anywhere_is_reported},
        {0},
    });
    unlink(socket_path);
    return code;
}
