// SPDX-License-Identifier: Apache-2.0
#include "check.h"
#include "embedded.h"
#include "runtime_internal.h"

#include <unistd.h>

const struct er_embedded er_embedded[] = {{0}};
const char er_embedded_lua[] = "";

static const int64_t MS = 1000000;

struct note {
    struct er_timer timer;
    struct er_runtime *rt;
    int *order, *count, name;
};

static void on_note(struct er_timer *timer) {
    struct note *note = (struct note *)timer;
    note->order[(*note->count)++] = note->name;
}

static bool three_came(void *count) { return *(int *)count == 3; }

static void timers_fire_by_time_and_those_of_one_instant_in_the_order_they_were_started(void) {
    struct er_runtime *rt;
    CHECK(er_runtime_new(&rt) == ER_OK);
    er_clock_use_virtual(rt, 1000);
    int order[3], count = 0;
    struct note notes[3];
    const int64_t at[] = {5000, 2000, 5000};
    for (int i = 0; i < 3; i++) {
        notes[i] = (struct note){.order = order, .count = &count, .name = i};
        CHECK(er_timer_start(rt, &notes[i].timer, at[i], on_note) == ER_OK);
    }
    CHECK(er_runtime_run(rt, three_came, &count));
    CHECK(order[0] == 1 && order[1] == 0 && order[2] == 2);
    CHECK(er_now(rt) == 5000);
    er_runtime_free(rt);
}

static void a_stopped_timer_does_not_fire_and_many_keep_their_order(void) {
    enum { MANY = 500 };
    struct er_runtime *rt;
    CHECK(er_runtime_new(&rt) == ER_OK);
    er_clock_use_virtual(rt, 0);
    static struct note notes[MANY];
    static int order[MANY];
    int count = 0;
    for (int i = 0; i < MANY; i++) {
        notes[i] = (struct note){.order = order, .count = &count, .name = i};
        CHECK(er_timer_start(rt, &notes[i].timer, 1 + i * 7919 % MANY, on_note) == ER_OK);
    }
    for (int i = 0; i < MANY; i++) {
        if (i % 3) {
            er_timer_stop(rt, &notes[i].timer);
            er_timer_stop(rt, &notes[i].timer);
        }
    }
    CHECK(!er_runtime_run(rt, three_came, &(int){0})); // nothing is left to wait for
    CHECK(count == (MANY + 2) / 3);
    for (int i = 1; i < count; i++) {
        CHECK(order[i - 1] * 7919 % MANY < order[i] * 7919 % MANY);
    }
    er_runtime_free(rt);
}

struct refused {
    uv_pipe_t pipe;
    uv_connect_t request;
    struct er_runtime *rt;
    struct note note;
    int count, order[3];
};

static void on_refused(uv_connect_t *request, int status) {
    struct refused *refused = request->data;
    er_touch(refused->rt);
    CHECK(status < 0);
    refused->note = (struct note){.order = refused->order, .count = &refused->count};
    CHECK(er_timer_start(refused->rt, &refused->note.timer, er_now(refused->rt) + 10 * MS, on_note) == ER_OK);
}

static void on_room(uv_handle_t *handle, size_t size, uv_buf_t *buf) {
    (void)handle, (void)size;
    *buf = uv_buf_init(NULL, 0);
}

static void on_nothing(uv_stream_t *stream, ssize_t size, const uv_buf_t *buf) { (void)stream, (void)size, (void)buf; }

static bool one_came(void *context) { return ((struct refused *)context)->count == 1; }

// libuv tells a connection that failed at once just before it polls: the timer that the callback starts must end that
// poll.
static void a_timer_started_right_before_the_poll_ends_it(void) {
    struct refused refused = {0};
    CHECK(er_runtime_new(&refused.rt) == ER_OK);
    uv_pipe_init(er_loop(refused.rt), &refused.pipe, 0);
    refused.request.data = &refused;
    uv_pipe_connect(&refused.request, &refused.pipe, "/nowhere/at/all", on_refused);
    uv_pipe_t idle; // keeps the loop alive with nothing to say, as a kept connection does
    uv_file ends[2];
    CHECK(uv_pipe(ends, UV_NONBLOCK_PIPE, 0) == 0);
    uv_pipe_init(er_loop(refused.rt), &idle, 0);
    CHECK(uv_pipe_open(&idle, ends[0]) == 0);
    CHECK(uv_read_start((uv_stream_t *)&idle, on_room, on_nothing) == 0);
    alarm(20); // a poll that nobody ends must not hang the suite
    CHECK(er_runtime_run(refused.rt, one_came, &refused));
    alarm(0);
    uv_close((uv_handle_t *)&refused.pipe, NULL);
    uv_close((uv_handle_t *)&idle, NULL);
    close(ends[1]);
    er_runtime_free(refused.rt);
}

int main(void) {
    return check_run((struct check_test[]){
        {"timers_fire_by_time_and_those_of_one_instant_in_the_order_they_were_started",
         timers_fire_by_time_and_those_of_one_instant_in_the_order_they_were_started},
        {"a_stopped_timer_does_not_fire_and_many_keep_their_order",
         a_stopped_timer_does_not_fire_and_many_keep_their_order},
        {"a_timer_started_right_before_the_poll_ends_it", a_timer_started_right_before_the_poll_ends_it},
        {0},
    });
}
