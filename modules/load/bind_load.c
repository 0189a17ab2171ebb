// SPDX-License-Identifier: Apache-2.0
// eirun.core.load: start(opts) -> run | nil, err; run:wait([seconds]) -> finished; run:feed(bytes, target);
// run:sample(); run:reject(sample, why); run:stop(); run:close(); and what bind_figures.c tells. Seconds everywhere.
#include "bind_load.h"

#include "bind.h"
#include "engine.h"
#include "task.h"

#include <arpa/inet.h>
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
    const char *arrivals, *contains, *equals, *ca_file, *ca_pem;
    size_t contains_length, equals_length;
    int64_t seed, status, max_connections, max_body, timeout, threads, closed, most, ring, streams, warm, sample_every,
        least_body, most_body, think;
    double closed_seconds;
    bool keep_alive, verify, h2;
};

static const struct er_opt option_rows[] = {
    {"arrivals", ER_OPT_STRING, offsetof(struct options, arrivals), 0, false},
    {"seed", ER_OPT_INTEGER, offsetof(struct options, seed), 0, false},
    {"status", ER_OPT_INTEGER, offsetof(struct options, status), 0, false},
    {"contains", ER_OPT_STRING, offsetof(struct options, contains), offsetof(struct options, contains_length), false},
    {"equals", ER_OPT_STRING, offsetof(struct options, equals), offsetof(struct options, equals_length), false},
    {"least_body", ER_OPT_INTEGER, offsetof(struct options, least_body), 0, false},
    {"most_body", ER_OPT_INTEGER, offsetof(struct options, most_body), 0, false},
    {"sample_every", ER_OPT_INTEGER, offsetof(struct options, sample_every), 0, false},
    {"streams", ER_OPT_INTEGER, offsetof(struct options, streams), 0, false},
    {"h2", ER_OPT_BOOLEAN, offsetof(struct options, h2), 0, false},
    {"warm", ER_OPT_INTEGER, offsetof(struct options, warm), 0, false},
    {"think", ER_OPT_SECONDS, offsetof(struct options, think), 0, false},
    {"max_connections", ER_OPT_INTEGER, offsetof(struct options, max_connections), 0, false},
    {"max_body", ER_OPT_INTEGER, offsetof(struct options, max_body), 0, false},
    {"threads", ER_OPT_INTEGER, offsetof(struct options, threads), 0, false},
    {"ring", ER_OPT_INTEGER, offsetof(struct options, ring), 0, false},
    {"closed", ER_OPT_INTEGER, offsetof(struct options, closed), 0, false},
    {"most", ER_OPT_INTEGER, offsetof(struct options, most), 0, false},
    {"closed_seconds", ER_OPT_NUMBER, offsetof(struct options, closed_seconds), 0, false},
    {"timeout", ER_OPT_SECONDS, offsetof(struct options, timeout), 0, false},
    {"ca_file", ER_OPT_STRING, offsetof(struct options, ca_file), 0, false},
    {"ca_pem", ER_OPT_STRING, offsetof(struct options, ca_pem), 0, false},
    {"verify", ER_OPT_BOOLEAN, offsetof(struct options, verify), 0, false},
    {"keep_alive", ER_OPT_BOOLEAN, offsetof(struct options, keep_alive), 0, false},
    {"targets", ER_OPT_ANY, 0, 0, true},
    {"turns", ER_OPT_ANY, 0, 0, false},
    {"first", ER_OPT_ANY, 0, 0, false},
    {"field", ER_OPT_ANY, 0, 0, false},
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

struct er_load *er_load_check_run(lua_State *L) {
    return check_run(L)->load;
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

static enum er_status no_room(enum er_status status, struct er_error *err) {
    return status == ER_INVALID
               ? er_fail(err, status, "a request cannot be sent as HTTP/2: it has over a hundred headers, or no host")
               : er_fail(err, status, "not enough room for the requests");
}

// The requests of the target on top of the stack. [-0, +0, v]
static enum er_status read_requests(lua_State *L, struct er_load *load, size_t target, struct er_error *err) {
    lua_getfield(L, -1, "requests");
    size_t count = array_length(L, -1, "requests");
    luaL_argcheck(L, count > 0, 1, "a target must have at least one request");
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < count; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        size_t length;
        const char *bytes = er_check_bytes(L, -1, &length);
        status = er_load_add_request(load, target, bytes, length);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return status == ER_OK ? ER_OK : no_room(status, err);
}

// What the ring holds before the run begins: {bytes, target} each.
static enum er_status read_first(lua_State *L, struct er_load *load, struct er_error *err) {
    lua_getfield(L, 1, "first");
    int table = lua_gettop(L);
    size_t count = array_length(L, table, "first");
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < count; i++) {
        open_row(L, table, i + 1, "first");
        size_t target = (size_t)number_at(L, 2, "first") - 1, length;
        luaL_argcheck(L, target < load->target_count, 1, "a first request names no target");
        lua_rawgeti(L, -1, 1);
        const char *bytes = er_check_bytes(L, -1, &length);
        status = er_load_feed(load, target, bytes, length);
        lua_pop(L, 2);
    }
    return status == ER_OK ? ER_OK : no_room(status, err);
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

// "@name" is an abstract socket: a NUL in front, and its length says where it ends.
static enum er_status set_unix(struct er_load_address *place, const char *path, struct er_error *err) {
    struct sockaddr_un *address = (struct sockaddr_un *)&place->at;
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address->sun_path) {
        return er_fail(err, ER_INVALID, "the path of the socket is empty or too long: '%s'", path);
    }
    bool abstract = path[0] == '@';
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length + 1);
    if (abstract) {
        address->sun_path[0] = '\0';
    }
    place->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + !abstract);
    return ER_OK;
}

static enum er_status set_inet(struct er_load_address *place, const char *host, int64_t port, struct er_error *err) {
    struct sockaddr_in *v4 = (struct sockaddr_in *)&place->at;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&place->at;
    if (port < 1 || port > 65535) {
        return er_fail(err, ER_INVALID, "a port is between 1 and 65535");
    }
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        place->length = (socklen_t)sizeof *v4;
        return ER_OK;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        place->length = (socklen_t)sizeof *v6;
        return ER_OK;
    }
    return er_fail(err, ER_INVALID, "'%s' is not an IP address", host);
}

// A text field of the table on top of the stack, or NULL: good as long as the table. [-0, +0, -]
static const char *text_at(lua_State *L, const char *key) {
    lua_getfield(L, -1, key);
    const char *text = lua_tostring(L, -1);
    lua_pop(L, 1);
    return text;
}

// {unix = path}, or {addresses = {"127.0.0.1", "::1"}, port = n}
static enum er_status read_addresses(lua_State *L, struct er_load_target *target, struct er_error *err) {
    const char *path = text_at(L, "unix");
    if (path) {
        target->address_count = 1;
        return set_unix(&target->addresses[0], path, err);
    }
    lua_getfield(L, -1, "port");
    lua_Integer port = lua_tointeger(L, -1);
    lua_pop(L, 1);
    lua_getfield(L, -1, "addresses");
    size_t count = array_length(L, -1, "addresses");
    luaL_argcheck(L, count > 0, 1, "a target must have an address");
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < count && i < ER_LOAD_ADDRESSES; i++) {
        lua_rawgeti(L, -1, (lua_Integer)i + 1);
        const char *host = lua_tostring(L, -1);
        status = set_inet(&target->addresses[i], host ? host : "", port, err);
        target->address_count = i + 1;
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return status;
}

static enum er_status set_tls(lua_State *L, const struct options *o, struct er_load *load,
                              struct er_load_target *target, struct er_error *err) {
    struct er_tls_options tls = {.host = text_at(L, "tls"), // the host that must prove itself
                                 .ca_file = o->ca_file,
                                 .ca_pem = o->ca_pem,
                                 .verify = o->verify,
                                 .h2 = o->h2,
                                 .now = er_now(load->rt)};
    return tls.host ? er_tls_init(&target->tls, &tls, err) : ER_OK;
}

static enum er_status read_target(lua_State *L, const struct options *o, struct er_load *load, size_t index,
                                  struct er_error *err) {
    struct er_load_target *target = &load->targets[index];
    enum er_status status = read_addresses(L, target, err);
    status = status == ER_OK ? set_tls(L, o, load, target, err) : status;
    return status != ER_OK || o->ring ? status : read_requests(L, load, index, err);
}

static enum er_status read_turns(lua_State *L, struct er_load *load, struct er_error *err) {
    if (lua_getfield(L, 1, "turns") == LUA_TNIL) {
        return ER_OK;
    }
    size_t count = array_length(L, -1, "turns");
    luaL_argcheck(L, count > 0 && count <= 100000, 1, "turns are out of range");
    uint32_t *targets = lua_newuserdatauv(L, count * sizeof *targets, 0);
    lua_insert(L, -2);
    for (size_t i = 0; i < count; i++) {
        double target = number_at(L, (int)i + 1, "turns");
        luaL_argcheck(L, target >= 1 && target <= (double)load->target_count, 1, "a turn names no target");
        targets[i] = (uint32_t)target - 1;
    }
    enum er_status status = er_load_set_turns(load, targets, count);
    return status == ER_OK ? ER_OK : er_fail(err, status, "not enough memory for %zu turns", count);
}

static enum er_status read_targets(lua_State *L, const struct options *o, struct er_load *load, struct er_error *err) {
    lua_getfield(L, 1, "targets");
    int table = lua_gettop(L);
    size_t count = array_length(L, table, "targets");
    luaL_argcheck(L, count >= 1 && count <= 64, 1, "there may be 1 to 64 targets");
    luaL_argcheck(L, o->ring >= 0 && o->ring <= 1 << 20, 1, "ring is out of range");
    if (er_load_add_targets(load, count) != ER_OK || (o->ring && er_load_add_rings(load, (size_t)o->ring) != ER_OK) ||
        (o->sample_every && er_load_add_samples(load, 64) != ER_OK)) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory for %zu targets", count);
    }
    enum er_status status = ER_OK;
    for (size_t i = 0; status == ER_OK && i < count; i++) {
        open_row(L, table, i + 1, "targets");
        status = read_target(L, o, load, i, err);
        lua_pop(L, 1);
    }
    status = status == ER_OK && o->ring ? read_first(L, load, err) : status;
    return status == ER_OK ? read_turns(L, load, err) : status;
}

static bool in_range(const struct options *o) {
    return o->max_connections >= 0 && o->max_connections <= 1000000 && o->timeout >= 1000000 && o->max_body >= 0 &&
           o->threads >= 0 && o->threads <= 256 && o->closed >= 0 && o->closed <= 1000000 && o->most >= 0 &&
           (!o->max_connections || o->closed <= o->max_connections) &&
           (!o->closed || (o->closed_seconds > 0 && o->closed_seconds < 1e8)) && o->streams >= 1 &&
           o->streams <= 1000 && o->warm >= 0 && o->warm <= 1000000 && o->think >= 0 && o->sample_every >= 0 &&
           o->least_body >= 0 && o->most_body >= 0;
}

static enum er_status set_config(const struct options *o, struct er_load *load, struct er_error *err) {
    struct er_load_config *config = &load->worker.config;
    if (!in_range(o)) {
        return er_fail(err, ER_INVALID, "an option of the load run is out of range");
    }
    // A thread without a connection of its own would have nothing to do.
    int64_t most = o->closed ? o->closed : o->max_connections;
    load->threads = (size_t)(most && o->threads > most ? most : o->threads);
    config->closed = (size_t)o->closed;
    config->streams = (size_t)o->streams;
    config->warm = (size_t)o->warm;
    config->think = o->think;
    config->most = o->most ? (uint64_t)o->most : UINT64_MAX;
    config->sample_every = (size_t)o->sample_every;
    config->timeout = o->timeout;
    config->max_connections = (size_t)o->max_connections;
    config->max_body = (uint64_t)o->max_body;
    config->protocol = o->h2 ? ER_LOAD_H2_PLAIN : ER_LOAD_HTTP1;
    config->keep_alive = o->keep_alive;
    return ER_OK;
}

// The way to a JSON field: names, and places in arrays from 0.
static enum er_status read_field(lua_State *L, struct er_load_check *check) {
    if (lua_getfield(L, 1, "field") == LUA_TNIL) {
        return ER_OK;
    }
    size_t count = array_length(L, -1, "field");
    check->steps = er_calloc(count + 1, sizeof *check->steps);
    for (size_t i = 0; check->steps && i < count; i++) {
        struct er_load_step *step = &check->steps[check->step_count++];
        if (lua_rawgeti(L, -1, (lua_Integer)i + 1) == LUA_TNUMBER) {
            step->index = (size_t)lua_tointeger(L, -1);
        } else {
            step->name = er_strdup(luaL_checkstring(L, -1));
        }
        lua_pop(L, 1);
    }
    return check->steps ? ER_OK : ER_NO_MEMORY;
}

static enum er_status set_check(lua_State *L, const struct options *o, struct er_load *load, struct er_error *err) {
    struct er_load_check *check = &load->worker.config.check;
    check->status = (unsigned)o->status;
    check->least_body = (uint64_t)o->least_body;
    check->most_body = (uint64_t)o->most_body;
    if (o->contains && o->contains_length) {
        check->contains = er_strndup(o->contains, o->contains_length);
        check->contains_length = o->contains_length;
    }
    if ((o->contains && o->contains_length && !check->contains) || read_field(L, check) != ER_OK) {
        return er_fail(err, ER_NO_MEMORY, "not enough memory");
    }
    bool known = !o->equals || er_load_check_equals(check, o->equals, o->equals_length) == ER_OK;
    return known ? ER_OK : er_fail(err, ER_INVALID, "'%s' is not JSON", o->equals);
}

static enum er_status fill(lua_State *L, const struct options *o, struct er_load *load, struct er_error *err) {
    enum er_status status = set_config(o, load, err);
    status = status == ER_OK ? set_check(L, o, load, err) : status;
    status = status == ER_OK ? read_plan(L, o, load, err) : status;
    status = status == ER_OK ? read_targets(L, o, load, err) : status;
    return status == ER_OK ? read_slices(L, load, err) : status;
}

static void on_finished(struct er_load *load) { er_op_done(&((struct run *)load->owner)->op); }

static int l_start(lua_State *L) {
    struct options o = {.keep_alive = true, .verify = true, .max_body = 64 << 20, .timeout = 30000000000, .streams = 1};
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

// feed(bytes[, target]) -> true; false when the ring is full. Only for a run with a ring.
static int l_feed(lua_State *L) {
    struct run *run = check_run(L);
    size_t length;
    const char *bytes = er_check_bytes(L, 2, &length);
    lua_Integer target = luaL_optinteger(L, 3, 1);
    luaL_argcheck(L, run->load->rings, 1, "this run has no ring");
    luaL_argcheck(L, target >= 1 && (size_t)target <= run->load->target_count, 3, "no such target");
    enum er_status status = er_load_feed(run->load, (size_t)target - 1, bytes, length);
    if (status != ER_OK && status != ER_QUOTA) {
        return luaL_error(L,
                          status == ER_INVALID ? "a request has too many headers" : "not enough memory for a request");
    }
    lua_pushboolean(L, status == ER_OK);
    return 1;
}

// sample() -> { status, target, body, planned (opaque) } | nil: the next of the good answers that a sample kept.
static int l_sample(lua_State *L) {
    struct er_load *load = check_run(L)->load;
    struct er_load_request kept;
    if (!er_load_next_sample(load, &kept)) {
        return 0;
    }
    struct er_load_sample sample;
    memcpy(&sample, kept.bytes, sizeof sample);
    lua_createtable(L, 0, 4);
    lua_pushinteger(L, (lua_Integer)sample.planned);
    lua_setfield(L, -2, "planned");
    lua_pushinteger(L, (lua_Integer)sample.status);
    lua_setfield(L, -2, "status");
    lua_pushinteger(L, (lua_Integer)sample.target + 1);
    lua_setfield(L, -2, "target");
    lua_pushlstring(L, kept.bytes + sizeof sample, kept.length - sizeof sample);
    lua_setfield(L, -2, "body");
    er_load_request_release(&kept);
    return 1;
}

// reject(sample, why): it was not a good answer after all.
static int l_reject(lua_State *L) {
    struct er_load *load = check_run(L)->load;
    struct er_load_sample sample;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_getfield(L, 2, "planned");
    sample.planned = lua_tointeger(L, -1);
    lua_getfield(L, 2, "target");
    lua_Integer target = lua_tointeger(L, -1);
    luaL_argcheck(L, target >= 1 && (size_t)target <= load->target_count, 2, "not a sample");
    sample.target = (size_t)target - 1;
    lua_getfield(L, 2, "status");
    sample.status = (unsigned)lua_tointeger(L, -1);
    er_load_reject(load, &sample, luaL_checkstring(L, 3));
    return 0;
}

static const luaL_Reg run_methods[] = {
    {"wait", l_wait},
    {"feed", l_feed},
    {"sample", l_sample},
    {"reject", l_reject},
    {"stop", l_stop},
    {"state", er_load_l_state},
    {"series", er_load_l_series},
    {"histogram", er_load_l_histogram},
    {"close", l_close},
    {NULL, NULL},
};

static const luaL_Reg functions[] = {{"start", l_start}, {"resolve", er_load_l_resolve}, {NULL, NULL}};

int luaopen_eirun_core_load(lua_State *L) {
    er_handle_type(L, run_type, run_methods, l_close);
    luaL_newlib(L, functions);
    return 1;
}
