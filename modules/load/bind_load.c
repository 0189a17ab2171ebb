// SPDX-License-Identifier: Apache-2.0
// eirun.core.load: start(opts) -> run | nil, err; run:wait([seconds]) -> finished; run:stop(); run:state([brief]);
// run:series(from); run:histogram(slice); run:close(). Seconds everywhere.
#include "bind_load.h"

#include "address.h"
#include "bind.h"
#include "engine.h"
#include "task.h"

#include <math.h>
#include <netdb.h>
#include <string.h>

int luaopen_eirun_core_load(lua_State *L);

static const char *const run_type = "eirun.load.run";

struct run {
    struct er_op op; // one task waits at a time
    struct er_timer tick;
    struct er_runtime *rt;
    struct er_load *load; // NULL: closed
};

struct options {
    const char *unix_path, *address, *arrivals, *contains, *tls_host, *ca_file, *ca_pem;
    size_t contains_length;
    int64_t port, seed, status, max_connections, max_body, timeout, threads, closed, ring;
    double closed_seconds;
    bool head, keep_alive, verify;
};

static const struct er_opt option_rows[] = {
    {"unix", ER_OPT_STRING, offsetof(struct options, unix_path), 0, false},
    {"address", ER_OPT_STRING, offsetof(struct options, address), 0, false},
    {"port", ER_OPT_INTEGER, offsetof(struct options, port), 0, false},
    {"arrivals", ER_OPT_STRING, offsetof(struct options, arrivals), 0, false},
    {"seed", ER_OPT_INTEGER, offsetof(struct options, seed), 0, false},
    {"status", ER_OPT_INTEGER, offsetof(struct options, status), 0, false},
    {"contains", ER_OPT_STRING, offsetof(struct options, contains), offsetof(struct options, contains_length), false},
    {"max_connections", ER_OPT_INTEGER, offsetof(struct options, max_connections), 0, false},
    {"max_body", ER_OPT_INTEGER, offsetof(struct options, max_body), 0, false},
    {"threads", ER_OPT_INTEGER, offsetof(struct options, threads), 0, false},
    {"ring", ER_OPT_INTEGER, offsetof(struct options, ring), 0, false},
    {"closed", ER_OPT_INTEGER, offsetof(struct options, closed), 0, false},
    {"closed_seconds", ER_OPT_NUMBER, offsetof(struct options, closed_seconds), 0, false},
    {"timeout", ER_OPT_SECONDS, offsetof(struct options, timeout), 0, false},
    {"head", ER_OPT_BOOLEAN, offsetof(struct options, head), 0, false},
    {"tls", ER_OPT_STRING, offsetof(struct options, tls_host), 0, false}, // the host that must prove itself
    {"ca_file", ER_OPT_STRING, offsetof(struct options, ca_file), 0, false},
    {"ca_pem", ER_OPT_STRING, offsetof(struct options, ca_pem), 0, false},
    {"verify", ER_OPT_BOOLEAN, offsetof(struct options, verify), 0, false},
    {"keep_alive", ER_OPT_BOOLEAN, offsetof(struct options, keep_alive), 0, false},
    {"requests", ER_OPT_ANY, 0, 0, true},
    {"pieces", ER_OPT_ANY, 0, 0, false},
    {"instants", ER_OPT_ANY, 0, 0, false},
    {"slices", ER_OPT_ANY, 0, 0, false},
};

static struct run *check_run(lua_State *L) {
    struct run *run = luaL_checkudata(L, 1, run_type);
    if (!run->load) {
        luaL_error(L, "this load run is closed");
    }
    return run;
}

static int l_close(lua_State *L) {
    struct run *run = luaL_checkudata(L, 1, run_type);
    if (run->load) {
        struct er_load *load = run->load;
        run->load = NULL;
        er_timer_stop(run->rt, &run->tick);
        er_load_free(load);
        er_op_done(&run->op);
    }
    return 0;
}

static size_t array_length(lua_State *L, int index, const char *what) {
    if (lua_type(L, index) != LUA_TTABLE) {
        luaL_error(L, "option '%s' must be an array", what);
    }
    return (size_t)lua_rawlen(L, index);
}

// The k-th number of the table on top of the stack. [-0, +0, v]
static double number_at(lua_State *L, int k, const char *what) {
    lua_rawgeti(L, -1, k);
    int is_number = 0;
    double number = lua_tonumberx(L, -1, &is_number);
    if (!is_number) {
        luaL_error(L, "option '%s' must hold numbers", what);
    }
    lua_pop(L, 1);
    return number;
}

static void open_row(lua_State *L, int table, size_t row, const char *what) {
    if (lua_rawgeti(L, table, (lua_Integer)row) != LUA_TTABLE) {
        luaL_error(L, "option '%s' must hold tables", what);
    }
}

static enum er_status read_pieces(lua_State *L, int table, const struct options *o, struct er_load *load,
                                  struct er_error *err) {
    size_t count = array_length(L, table, "pieces");
    struct er_plan_piece *pieces = lua_newuserdatauv(L, (count + 1) * sizeof *pieces, 0);
    for (size_t i = 0; i < count; i++) {
        open_row(L, table, i + 1, "pieces");
        pieces[i].from = number_at(L, 1, "pieces");
        pieces[i].to = number_at(L, 2, "pieces");
        pieces[i].seconds = number_at(L, 3, "pieces");
        lua_pop(L, 1);
    }
    bool poisson = o->arrivals && strcmp(o->arrivals, "poisson") == 0;
    return er_plan_init(&load->plan, pieces, count, poisson ? ER_ARRIVALS_POISSON : ER_ARRIVALS_EVEN, (uint64_t)o->seed,
                        err);
}

static enum er_status read_instants(lua_State *L, int table, struct er_load *load, struct er_error *err) {
    size_t count = array_length(L, table, "instants");
    int64_t *instants = lua_newuserdatauv(L, (count + 1) * sizeof *instants, 0);
    lua_pushvalue(L, table);
    for (size_t i = 0; i < count; i++) {
        double seconds = number_at(L, (int)i + 1, "instants");
        luaL_argcheck(L, seconds >= 0 && seconds < 1e8, 1, "an instant is out of range");
        instants[i] = llround(seconds * 1e9);
    }
    lua_pop(L, 1);
    return er_plan_init_instants(&load->plan, instants, count, err);
}

static enum er_status read_plan(lua_State *L, const struct options *o, struct er_load *load, struct er_error *err) {
    if (o->closed) {
        er_plan_init_closed(&load->plan, o->closed_seconds);
        return ER_OK;
    }
    if (lua_getfield(L, 1, "instants") != LUA_TNIL) {
        return read_instants(L, lua_gettop(L), load, err);
    }
    lua_getfield(L, 1, "pieces");
    return read_pieces(L, lua_gettop(L), o, load, err);
}

static enum er_status read_requests(lua_State *L, const struct options *o, struct er_load *load, struct er_error *err) {
    luaL_argcheck(L, o->ring >= 0 && o->ring <= 1 << 20, 1, "ring is out of range");
    if (o->ring && er_load_add_rings(load, (size_t)o->ring) != ER_OK) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for a ring of requests");
    }
    lua_getfield(L, 1, "requests");
    size_t count = array_length(L, -1, "requests");
    luaL_argcheck(L, count > 0, 1, "there must be at least one request");
    for (size_t i = 0; i < count; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        size_t length;
        const char *bytes = er_check_bytes(L, -1, &length);
        enum er_status status = o->ring ? er_load_feed(load, bytes, length) : er_load_add_request(load, bytes, length);
        if (status != ER_OK) {
            return er_fail(err, status, "not enough room for %zu requests", count);
        }
        lua_pop(L, 1);
    }
    return ER_OK;
}

static int64_t nanoseconds(double seconds) {
    return seconds >= 9e9 ? INT64_MAX : seconds <= 0 ? 0 : llround(seconds * 1e9);
}

static enum er_status read_slices(lua_State *L, struct er_load *load, struct er_error *err) {
    if (lua_getfield(L, 1, "slices") == LUA_TNIL) {
        return ER_OK;
    }
    int table = lua_gettop(L);
    size_t count = array_length(L, table, "slices");
    luaL_argcheck(L, count <= 64, 1, "there may be at most 64 slices");
    load->slices = er_calloc(count, sizeof *load->slices);
    if (!load->slices) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for %zu slices", count);
    }
    load->worker.config.slice_count = count;
    for (size_t i = 0; i < count; i++) {
        open_row(L, table, i + 1, "slices");
        load->slices[i].from = nanoseconds(number_at(L, 1, "slices"));
        load->slices[i].to = nanoseconds(number_at(L, 2, "slices"));
        lua_pop(L, 1);
    }
    return ER_OK;
}

static enum er_status set_config(const struct options *o, struct er_load *load, struct er_error *err) {
    struct er_load_config *config = &load->worker.config;
    if (o->max_connections < 0 || o->max_connections > 1000000 || o->timeout < 1000000 || o->max_body < 0) {
        return er_fail(err, ER_INVALID, "max_connections, timeout or max_body is out of range");
    }
    if (o->threads < 0 || o->threads > 256 || o->closed < 0 || (o->max_connections && o->closed > o->max_connections) ||
        (o->closed && !(o->closed_seconds > 0 && o->closed_seconds < 1e8))) {
        return er_fail(err, ER_INVALID, "threads, closed or closed_seconds is out of range");
    }
    // A thread without a connection of its own would have nothing to do.
    int64_t most = o->closed ? o->closed : o->max_connections;
    load->threads = (size_t)(most && o->threads > most ? most : o->threads);
    config->closed = (size_t)o->closed;
    config->timeout = o->timeout;
    config->max_connections = (size_t)o->max_connections;
    config->max_body = (uint64_t)o->max_body;
    config->head = o->head;
    config->keep_alive = o->keep_alive;
    config->check.status = (unsigned)o->status;
    if (o->contains && o->contains_length) {
        load->contains = er_strndup(o->contains, o->contains_length);
        config->check.contains_length = o->contains_length;
        if (!load->contains) {
            return er_fail(err, ER_NO_MEMORY, "not enough memory");
        }
    }
    return o->unix_path
               ? er_address_unix(&config->address, &config->address_length, o->unix_path, err)
               : er_address_inet(&config->address, &config->address_length, o->address ? o->address : "", o->port, err);
}

static enum er_status set_tls(const struct options *o, struct er_load *load, struct er_error *err) {
    struct er_tls_options tls = {o->tls_host, o->ca_file, o->ca_pem, o->verify, er_now(load->rt)};
    return o->tls_host ? er_tls_init(&load->tls, &tls, err) : ER_OK;
}

static enum er_status fill(lua_State *L, const struct options *o, struct er_load *load, struct er_error *err) {
    enum er_status status = set_config(o, load, err);
    status = status == ER_OK ? set_tls(o, load, err) : status;
    status = status == ER_OK ? read_plan(L, o, load, err) : status;
    status = status == ER_OK ? read_requests(L, o, load, err) : status;
    return status == ER_OK ? read_slices(L, load, err) : status;
}

static void on_finished(struct er_load *load) { er_op_done(&((struct run *)load->owner)->op); }

static int l_start(lua_State *L) {
    struct options o = {.keep_alive = true, .verify = true, .max_body = 64 << 20, .timeout = 30000000000};
    luaL_checktype(L, 1, LUA_TTABLE);
    er_read_opts(L, 1, option_rows, sizeof option_rows / sizeof *option_rows, &o);
    struct run *run = er_handle_new(L, sizeof *run, run_type);
    int handle = lua_gettop(L);
    struct er_error err = {.status = ER_NO_MEMORY, .message = "not enough memory for a load run"};
    run->rt = er_runtime_of(L);
    run->load = er_load_new(run->rt);
    if (!run->load) {
        return er_push_fail(L, &err);
    }
    run->load->finished = on_finished;
    run->load->owner = run;
    if (fill(L, &o, run->load, &err) != ER_OK || er_load_start(run->load, &err) != ER_OK) {
        lua_settop(L, handle);
        return er_push_fail(L, &err);
    }
    lua_settop(L, handle);
    return 1;
}

static void on_tick(struct er_timer *tick) {
    struct run *run = (struct run *)((char *)tick - offsetof(struct run, tick));
    er_op_done(&run->op);
}

static void cancel_wait(struct er_op *op) { er_op_done(op); }

static int push_finished(lua_State *L, struct run *run) {
    lua_pushboolean(L, !run->load || er_load_finished(run->load));
    return 1;
}

static int k_wait(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    struct run *run = luaL_checkudata(L, 1, run_type);
    er_timer_stop(run->rt, &run->tick);
    er_task_check(L);
    return push_finished(L, run);
}

static int l_wait(lua_State *L) {
    struct run *run = check_run(L);
    double seconds = luaL_optnumber(L, 2, -1);
    er_task_check_yieldable(L, "load.wait");
    er_task_check(L);
    if (er_op_waiting(&run->op)) {
        return luaL_error(L, "another task waits for this load run");
    }
    if (er_load_finished(run->load)) {
        return push_finished(L, run);
    }
    if (seconds >= 0 && er_timer_start(run->rt, &run->tick, er_now(run->rt) + nanoseconds(seconds), on_tick) != ER_OK) {
        return luaL_error(L, "not enough memory for a timer");
    }
    return er_op_wait(L, &run->op, cancel_wait, k_wait, 0);
}

static int l_stop(lua_State *L) {
    er_load_stop(check_run(L)->load);
    return 0;
}

// feed(bytes) -> true; false when the ring is full. Only for a run with a ring.
static int l_feed(lua_State *L) {
    struct run *run = check_run(L);
    size_t length;
    const char *bytes = er_check_bytes(L, 2, &length);
    luaL_argcheck(L, run->load->rings, 1, "this run has no ring");
    enum er_status status = er_load_feed(run->load, bytes, length);
    if (status == ER_NO_MEMORY) {
        return luaL_error(L, "not enough memory for a request");
    }
    lua_pushboolean(L, status == ER_OK);
    return 1;
}

static void set_integer(lua_State *L, const char *key, uint64_t value) {
    lua_pushinteger(L, (lua_Integer)value);
    lua_setfield(L, -2, key);
}

static void set_number(lua_State *L, const char *key, double value) {
    lua_pushnumber(L, value);
    lua_setfield(L, -2, key);
}

static void set_micros(lua_State *L, const char *key, uint64_t value) { set_number(L, key, (double)value / 1e6); }

static void push_latency(lua_State *L, const struct er_hdr *hdr) {
    static const struct {
        const char *key;
        double percent;
    } rows[] = {{"p50", 50}, {"p75", 75},     {"p90", 90},       {"p95", 95},
                {"p99", 99}, {"p99_9", 99.9}, {"p99_99", 99.99}, {"max", 100}};
    lua_createtable(L, 0, 11);
    set_integer(L, "count", hdr->total);
    set_number(L, "mean", er_hdr_mean(hdr) / 1e6);
    set_micros(L, "min", hdr->min);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        set_micros(L, rows[i].key, er_hdr_percentile(hdr, rows[i].percent));
    }
}

static void push_errors(lua_State *L, const uint64_t *outcomes) {
    lua_newtable(L);
    for (int i = ER_LOAD_OK + 1; i < ER_LOAD_OUTCOMES; i++) {
        if (outcomes[i]) {
            set_integer(L, er_load_outcome_name((enum er_load_outcome)i), outcomes[i]);
        }
    }
}

static void push_slice(lua_State *L, const struct er_load_slice *slice, bool brief) {
    lua_createtable(L, 0, 5);
    set_integer(L, "planned", slice->planned);
    set_integer(L, "done", er_load_slice_done(slice));
    set_integer(L, "ok", slice->outcomes[ER_LOAD_OK]);
    push_errors(L, slice->outcomes);
    lua_setfield(L, -2, "errors");
    if (!brief) {
        push_latency(L, &slice->latency);
        lua_setfield(L, -2, "latency");
    }
}

static void push_example(lua_State *L, const struct er_load_example *example) {
    lua_createtable(L, 0, 4);
    lua_pushstring(L, er_load_outcome_name(example->outcome));
    lua_setfield(L, -2, "kind");
    set_number(L, "at", (double)example->planned / 1e9);
    if (example->status) {
        set_integer(L, "status", example->status);
    }
    lua_pushstring(L, example->text);
    lua_setfield(L, -2, "text");
}

static void push_lists(lua_State *L, const struct er_load_stats *stats, bool brief) {
    lua_createtable(L, (int)stats->slice_count, 0);
    for (size_t i = 0; i < stats->slice_count; i++) {
        push_slice(L, &stats->slices[i], brief);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "slices");
    lua_createtable(L, (int)stats->example_count, 0);
    for (size_t i = 0; i < stats->example_count; i++) {
        push_example(L, &stats->examples[i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    lua_setfield(L, -2, "examples");
    push_latency(L, &stats->lateness);
    lua_setfield(L, -2, "lateness");
}

static void push_counts(lua_State *L, const struct er_load_worker *worker) {
    set_integer(L, "sent", worker->stats.sent);
    set_integer(L, "bytes_in", worker->stats.bytes_in);
    set_integer(L, "bytes_out", worker->stats.bytes_out);
    set_integer(L, "in_flight", worker->in_flight);
    set_integer(L, "connections", worker->connections);
    set_integer(L, "opened", worker->opened);
    set_integer(L, "max_connections", worker->config.max_connections);
    set_integer(L, "capped", worker->capped);
    set_integer(L, "starved", worker->starved);
    set_integer(L, "unsent", worker->unsent);
    set_integer(L, "aborted", worker->aborted);
}

// state([brief]): everything but the series, and when brief no latencies of the slices: slices[1] is the whole plan,
// slices[i + 1] the i-th that start was given.
static int l_state(lua_State *L) {
    struct run *run = check_run(L);
    bool brief = lua_toboolean(L, 2);
    const struct er_load_worker *worker = &run->load->worker;
    static const char *const phases[] = {"connecting", "running", "finished"};
    lua_createtable(L, 0, 20);
    lua_pushstring(L, phases[worker->phase]);
    lua_setfield(L, -2, "phase");
    set_number(L, "started_at", (double)worker->start / 1e9);
    bool finished = worker->phase == ER_LOAD_FINISHED;
    set_number(L, "elapsed", (double)(finished ? worker->ended : er_now(run->rt) - worker->start) / 1e9);
    push_counts(L, worker);
    push_lists(L, &worker->stats, brief);
    if (worker->error.status != ER_OK) {
        er_push_error(L, &worker->error);
        lua_setfield(L, -2, "error");
    }
    return 1;
}

static void push_second(lua_State *L, const struct er_load_stats *stats, size_t index) {
    struct er_load_second second = er_load_stats_second(stats, index);
    lua_createtable(L, 0, 9);
    set_integer(L, "t", index);
    set_integer(L, "planned", second.planned);
    set_integer(L, "sent", second.sent);
    set_integer(L, "ok", second.ok);
    set_integer(L, "errors", second.errors);
    set_integer(L, "in_flight", second.in_flight);
    if (second.p50) {
        set_micros(L, "p50", second.p50);
        set_micros(L, "p95", second.p95);
        set_micros(L, "p99", second.p99);
    }
}

// The seconds of the plan from `from` (0 is the first) to the last that saw anything.
static int l_series(lua_State *L) {
    const struct er_load_stats *stats = &check_run(L)->load->worker.stats;
    lua_Integer from = luaL_optinteger(L, 2, 0);
    luaL_argcheck(L, from >= 0, 2, "must not be negative");
    lua_newtable(L);
    for (size_t i = (size_t)from; i < stats->second_used; i++) {
        push_second(L, stats, i);
        lua_rawseti(L, -2, (lua_Integer)(i - (size_t)from) + 1);
    }
    return 1;
}

// Counters of a slice that are not empty: { {lowest, highest, count, index} ... } in whole microseconds, ascending.
static int l_histogram(lua_State *L) {
    const struct er_load_stats *stats = &check_run(L)->load->worker.stats;
    lua_Integer slice = luaL_optinteger(L, 2, 1);
    luaL_argcheck(L, slice >= 1 && (size_t)slice <= stats->slice_count, 2, "no such slice");
    const struct er_hdr *hdr = &stats->slices[slice - 1].latency;
    lua_newtable(L);
    for (size_t i = 0, n = 0; i < hdr->length; i++) {
        if (hdr->counts[i]) {
            lua_createtable(L, 4, 0);
            lua_pushinteger(L, (lua_Integer)er_hdr_lowest(hdr, i));
            lua_rawseti(L, -2, 1);
            lua_pushinteger(L, (lua_Integer)er_hdr_highest(hdr, i));
            lua_rawseti(L, -2, 2);
            lua_pushinteger(L, (lua_Integer)hdr->counts[i]);
            lua_rawseti(L, -2, 3);
            lua_pushinteger(L, (lua_Integer)i);
            lua_rawseti(L, -2, 4);
            lua_rawseti(L, -2, (lua_Integer)++n);
        }
    }
    return 1;
}

static const luaL_Reg run_methods[] = {
    {"wait", l_wait},     {"feed", l_feed},           {"stop", l_stop},   {"state", l_state},
    {"series", l_series}, {"histogram", l_histogram}, {"close", l_close}, {NULL, NULL},
};

static const luaL_Reg functions[] = {{"start", l_start}, {"resolve", er_load_l_resolve}, {NULL, NULL}};

int luaopen_eirun_core_load(lua_State *L) {
    er_handle_type(L, run_type, run_methods, l_close);
    luaL_newlib(L, functions);
    return 1;
}
