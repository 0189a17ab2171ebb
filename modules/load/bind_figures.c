// SPDX-License-Identifier: Apache-2.0
// What a run has seen, as tables for Lua. Seconds everywhere.
#include "bind_load.h"

#include "bind.h"
#include "engine.h"
#include "runtime.h"

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

// A sample may be found wrong before its thread has told that it ended: never more than those that did.
static uint64_t rejected(const struct er_load_slice *slice) {
    uint64_t ok = slice->outcomes[ER_LOAD_OK];
    return slice->rejected < ok ? slice->rejected : ok;
}

static void push_errors(lua_State *L, const struct er_load_slice *slice) {
    lua_newtable(L);
    for (int i = ER_LOAD_OK + 1; i < ER_LOAD_OUTCOMES; i++) {
        uint64_t count = slice->outcomes[i] + (i == ER_LOAD_CHECK ? rejected(slice) : 0);
        if (count) {
            set_integer(L, er_load_outcome_name((enum er_load_outcome)i), count);
        }
    }
}

static void push_slice(lua_State *L, const struct er_load_slice *slice, bool brief) {
    lua_createtable(L, 0, 6);
    set_integer(L, "planned", slice->planned);
    set_integer(L, "done", er_load_slice_done(slice));
    set_integer(L, "ok", slice->outcomes[ER_LOAD_OK] - rejected(slice));
    set_integer(L, "bytes", slice->bytes);
    push_errors(L, slice);
    lua_setfield(L, -2, "errors");
    if (!brief) {
        push_latency(L, &slice->latency);
        lua_setfield(L, -2, "latency");
    }
}

static void push_example(lua_State *L, const struct er_load_example *example) {
    lua_createtable(L, 0, 5);
    lua_pushstring(L, er_load_outcome_name(example->outcome));
    lua_setfield(L, -2, "kind");
    set_number(L, "at", (double)example->planned / 1e9);
    set_integer(L, "target", example->target + 1);
    if (example->status) {
        set_integer(L, "status", example->status);
    }
    lua_pushstring(L, example->text);
    lua_setfield(L, -2, "text");
}

static void push_slices(lua_State *L, const struct er_load_stats *stats, bool brief) {
    lua_createtable(L, (int)stats->slice_count, 0);
    for (size_t i = 0; i < stats->slice_count; i++) {
        push_slice(L, &stats->slices[i], brief);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

// Of each target, where there are several, the same slices.
static void push_targets(lua_State *L, const struct er_load_worker *worker, bool brief) {
    lua_newtable(L);
    for (size_t i = 0; worker->config.target_count > 1 && i < worker->config.target_count; i++) {
        push_slices(L, &worker->pools[i].stats, brief);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
}

static void push_lists(lua_State *L, const struct er_load_worker *worker, bool brief) {
    const struct er_load_stats *stats = &worker->stats;
    push_slices(L, stats, brief);
    lua_setfield(L, -2, "slices");
    push_targets(L, worker, brief);
    lua_setfield(L, -2, "targets");
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
    set_integer(L, "resent", worker->resent);
}

// state([brief]): everything but the series, and when brief no latencies of the slices: slices[1] is the whole plan,
// slices[i + 1] the i-th that start was given.
int er_load_l_state(lua_State *L) {
    struct er_load *load = er_load_check_run(L);
    bool brief = lua_toboolean(L, 2);
    const struct er_load_worker *worker = &load->worker;
    static const char *const phases[] = {"connecting", "warming", "running", "finished"};
    lua_createtable(L, 0, 20);
    lua_pushstring(L, phases[worker->phase]);
    lua_setfield(L, -2, "phase");
    set_number(L, "started_at", (double)worker->start / 1e9);
    bool finished = worker->phase == ER_LOAD_FINISHED;
    set_number(L, "elapsed", (double)(finished ? worker->ended : er_now(load->rt) - worker->start) / 1e9);
    push_counts(L, worker);
    push_lists(L, worker, brief);
    if (worker->error.status != ER_OK) {
        er_push_error(L, &worker->error);
        lua_setfield(L, -2, "error");
        set_integer(L, "failed_target", worker->door + 1);
    }
    return 1;
}

static void push_second(lua_State *L, const struct er_load_stats *stats, size_t index) {
    struct er_load_second second = er_load_stats_second(stats, index);
    static const char *const names[ER_LOAD_PERCENTILES] = {"p50", "p90", "p95", "p99", "p99_9", "p99_99", "max"};
    uint32_t wrong = second.rejected < second.ok ? second.rejected : second.ok;
    lua_createtable(L, 0, 16);
    set_integer(L, "t", index);
    set_integer(L, "planned", second.planned);
    set_integer(L, "sent", second.sent);
    set_integer(L, "ok", second.ok - wrong);
    set_integer(L, "errors", second.errors + wrong);
    set_integer(L, "in_flight", second.in_flight);
    set_integer(L, "bytes_in", second.bytes_in);
    set_integer(L, "bytes_out", second.bytes_out);
    for (size_t i = 0; second.percentiles[ER_LOAD_P50] && i < ER_LOAD_PERCENTILES; i++) {
        set_micros(L, names[i], second.percentiles[i]);
    }
    if (second.percentiles[ER_LOAD_P50]) {
        set_number(L, "mean", (double)second.mean / 1e6);
    }
}

// Of a target, from 1 on, where there are several; of all without one.
static const struct er_load_stats *stats_of(lua_State *L, const struct er_load *load, int arg) {
    const struct er_load_worker *worker = &load->worker;
    lua_Integer target = luaL_optinteger(L, arg, 0);
    luaL_argcheck(L,
                  target >= 0 && (target == 0 || worker->config.target_count > 1) &&
                      (size_t)target <= worker->config.target_count,
                  arg, "no such target");
    return target ? &worker->pools[target - 1].stats : &worker->stats;
}

// The seconds of the plan from `from` (0 is the first) to the last that saw anything.
int er_load_l_series(lua_State *L) {
    const struct er_load_stats *stats = stats_of(L, er_load_check_run(L), 3);
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
int er_load_l_histogram(lua_State *L) {
    const struct er_load_stats *stats = stats_of(L, er_load_check_run(L), 3);
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
