// SPDX-License-Identifier: Apache-2.0
#include "crew.h"

#include "nap.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <unistd.h>

// How many sockets are looked at between two looks at what is due; a closed loop sends between a few of them what
// answers let it send, so that the server is never without work.
enum { EVENTS = 64, EVENTS_OPEN = 8, EVENTS_REFILL = 8, EVENTS_FEW = 16, DEAD_MAX = 256 };
enum { SHELVE = 1, STOP = 2, BEGIN = 4 }; // what the loop's thread asks for
static const int64_t gather_ns = 150000;  // see er_load_config
static const int64_t look_ns = 250000000; // how often figures are gathered

struct figures { // of a worker, beside its statistics
    size_t in_flight, connections;
    uint64_t capped, unsent, aborted, opened, starved, resent;
    int64_t ended, oldest;
};

struct member {
    struct er_load_worker worker;
    struct er_load *load;
    struct er_load_crew *crew;
    pthread_t thread;
    bool joinable, collected;
    sem_t halted; // its statistics will not change any more
    struct er_load_nap nap;
    struct er_load_pace pace;
    bool ahead;                // of the server: the last turn found few answers
    int bell;                  // wakes the thread
    int64_t wake;              // on the run's clock
    struct er_load_conn *dead; // closed, freed when no event of the batch is theirs
    size_t dead_count;
    _Atomic unsigned asked;
    _Atomic bool shelved; // the shelf is the loop's until it clears this
    _Atomic bool finished, warmed;
    struct er_load_stats shelf;
    struct er_load_stats *target_shelves; // where there are several targets
    struct figures figures;               // belong to the shelf
    struct figures last;                  // set before `finished` is
    struct figures seen;                  // the loop's own
    uint32_t *in_flight;                  // what this member has added to each second; a row a target after that
    size_t seconds;                       // of a row
};

struct er_load_crew {
    struct er_load *load;
    uv_async_t async;
    struct er_timer timer;
    struct member *members;
    size_t count;
    int64_t start; // on the run's clock, once all are warm
};

static struct member *member_of(struct er_load_worker *worker) { return (struct member *)worker; }

static int64_t thread_now(struct er_load_worker *worker) { return er_now(member_of(worker)->load->rt); }

static enum er_status thread_wake_at(struct er_load_worker *worker, int64_t at) {
    member_of(worker)->wake = at;
    return ER_OK;
}

static int control(struct er_load_conn *conn, int operation, bool write) {
    struct epoll_event event = {.events = EPOLLIN | (write ? (unsigned)EPOLLOUT : 0u), .data.ptr = conn};
    return epoll_ctl(member_of(conn->worker)->nap.epoll, operation, conn->fd, &event);
}

static enum er_status thread_watch(struct er_load_conn *conn) {
    if (control(conn, EPOLL_CTL_ADD, false) != 0) {
        return ER_NETWORK;
    }
    conn->watcher = conn;
    return ER_OK;
}

static void thread_want_write(struct er_load_conn *conn, bool yes) { control(conn, EPOLL_CTL_MOD, yes); }

static void thread_unwatch(struct er_load_conn *conn) {
    struct member *member = member_of(conn->worker);
    control(conn, EPOLL_CTL_DEL, false);
    conn->next = member->dead;
    member->dead = conn;
    member->dead_count++;
}

static void thread_finished(struct er_load_worker *worker) { (void)worker; } // its loop sees the phase

static void thread_warmed(struct er_load_worker *worker) {
    atomic_store_explicit(&member_of(worker)->warmed, true, memory_order_release);
    uv_async_send(&member_of(worker)->crew->async);
}

static const struct er_load_io thread_io = {
    .now = thread_now,
    .wake_at = thread_wake_at,
    .watch = thread_watch,
    .want_write = thread_want_write,
    .unwatch = thread_unwatch,
    .finished = thread_finished,
    .warmed = thread_warmed,
    .stamps = true,
};

static void bury(struct member *member) {
    while (member->dead) {
        struct er_load_conn *conn = member->dead;
        member->dead = conn->next;
        er_load_conn_free(conn);
    }
    member->dead_count = 0;
}

// Where a server drowns, one event may close thousands of connections: what is left of the batch forgets them.
static void bury_early(struct member *member, struct epoll_event *events, int count) {
    for (int i = 0; i < count; i++) {
        struct er_load_conn *conn = events[i].data.ptr;
        if (conn && conn->state == ER_CONN_CLOSED) {
            events[i] = (struct epoll_event){0};
        }
    }
    bury(member);
}

static void swap(struct er_load_stats *counted, struct er_load_stats *shelf) {
    struct er_load_stats full = *counted;
    *counted = *shelf;
    counted->in_flight = full.in_flight;
    counted->second_noted = full.second_noted;
    *shelf = full;
}

static size_t several(const struct er_load_worker *worker) {
    return worker->config.target_count > 1 ? worker->config.target_count : 0;
}

static void swap_all(struct member *member) {
    struct er_load_worker *worker = &member->worker;
    swap(&worker->stats, &member->shelf);
    for (size_t i = 0; i < several(worker); i++) {
        swap(&worker->pools[i].stats, &member->target_shelves[i]);
    }
}

static struct figures figures_of(const struct er_load_worker *worker) {
    return (struct figures){.in_flight = worker->in_flight,
                            .connections = worker->connections,
                            .capped = worker->capped,
                            .unsent = worker->unsent,
                            .aborted = worker->aborted,
                            .opened = worker->opened,
                            .starved = worker->starved,
                            .resent = worker->resent,
                            .ended = worker->ended,
                            .oldest = er_load_worker_oldest(worker)};
}

static void shelve(struct member *member) {
    swap_all(member);
    member->figures = figures_of(&member->worker);
    atomic_store_explicit(&member->shelved, true, memory_order_release);
    uv_async_send(&member->crew->async);
}

static void obey(struct member *member) {
    unsigned asked = atomic_exchange_explicit(&member->asked, 0, memory_order_acquire);
    if (asked & BEGIN) {
        er_load_worker_begin(&member->worker, member->crew->start);
        er_load_worker_wake(&member->worker);
    }
    if (asked & STOP) {
        er_load_worker_halt(&member->worker);
    } else if (asked & SHELVE && !atomic_load_explicit(&member->shelved, memory_order_acquire)) {
        shelve(member);
    }
}

static void listen_to_bell(struct member *member) {
    uint64_t rings;
    ssize_t got = read(member->bell, &rings, sizeof rings);
    (void)got; // the bell says that there is something; `asked` says what
}

static int wait_for_events(struct member *member, struct epoll_event *events) {
    int64_t left = member->wake == INT64_MAX ? INT64_MAX : member->wake - thread_now(&member->worker);
    int most = member->worker.config.closed ? EVENTS : EVENTS_OPEN;
    int64_t rest = member->ahead ? er_load_pace_rest(&member->pace, member->worker.in_flight) : 0;
    if (rest > 0 && rest < left) {
        er_load_rest(rest);
        left -= rest;
    }
    return er_load_nap(&member->nap, events, most, left, member->worker.unstamped == 0);
}

static void handle(struct member *member, const struct epoll_event *event) {
    if (event->events == 0) {
        return;
    }
    if (!event->data.ptr) {
        listen_to_bell(member);
        return;
    }
    bool broken = event->events & (EPOLLERR | EPOLLHUP);
    er_load_conn_look(event->data.ptr, broken || event->events & EPOLLIN, broken || event->events & EPOLLOUT);
}

static void note_pace(struct member *member, int64_t now, int count) {
    const struct er_load_config *config = &member->worker.config;
    if (config->closed && config->think == 0) {
        er_load_pace_note(&member->pace, now, member->worker.looped);
        member->ahead = count < EVENTS_FEW;
    }
}

static void turn(struct member *member, struct epoll_event *events) {
    int count = wait_for_events(member, events);
    for (int i = 0; i < count && member->worker.phase != ER_LOAD_FINISHED; i++) {
        handle(member, &events[i]);
        if (atomic_load_explicit(&member->asked, memory_order_relaxed) & STOP) {
            break;
        }
        if (member->dead_count > DEAD_MAX) {
            bury_early(member, events + i + 1, count - i - 1);
        }
        if ((i + 1) % EVENTS_REFILL == 0) {
            er_load_worker_refill(&member->worker);
        }
    }
    int64_t now = thread_now(&member->worker);
    bool due = member->wake <= now;
    if (due) {
        member->wake = INT64_MAX; // one alarm, as a timer gives it
    }
    if (due || count > 0) { // what all of them have left to do is done at once
        er_load_worker_wake(&member->worker);
    }
    note_pace(member, now, count);
    bury(member);
    if (atomic_load_explicit(&member->asked, memory_order_relaxed)) {
        obey(member);
    }
}

static void *run_member(void *argument) {
    struct member *member = argument;
    struct epoll_event events[EVENTS];
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    prctl(PR_SET_NAME, "eirun-load", 0UL, 0UL, 0UL);
    er_load_worker_wake(&member->worker);
    while (member->worker.phase != ER_LOAD_FINISHED) {
        turn(member, events);
    }
    member->last = figures_of(&member->worker);
    atomic_store_explicit(&member->finished, true, memory_order_release);
    uv_async_send(&member->crew->async);
    sem_post(&member->halted); // from here on the statistics are the loop's; thousands of sockets take a while to close
    er_load_worker_stop(&member->worker);
    bury(member);
    return NULL;
}

// ---- the loop's side

// What a thread counted since its last shelf comes when it is collected: until then its seconds stay open.
static const struct figures *see_figures(struct member *member) {
    int64_t oldest = member->seen.oldest;
    if (atomic_load_explicit(&member->finished, memory_order_acquire)) {
        member->seen = member->last;
        member->seen.oldest = member->collected ? member->last.oldest : oldest;
    }
    return &member->seen;
}

static void add_up(struct er_load_crew *crew) {
    struct er_load_worker *lead = &crew->load->worker;
    int64_t oldest = INT64_MAX;
    lead->in_flight = lead->connections = 0;
    lead->capped = lead->unsent = lead->aborted = lead->opened = lead->starved = lead->resent = 0;
    for (size_t i = 0; i < crew->count; i++) {
        const struct figures *figures = see_figures(&crew->members[i]);
        lead->in_flight += figures->in_flight;
        lead->connections += figures->connections;
        lead->capped += figures->capped;
        lead->unsent += figures->unsent;
        lead->aborted += figures->aborted;
        lead->opened += figures->opened;
        lead->starved += figures->starved;
        lead->resent += figures->resent;
        lead->ended = figures->ended > lead->ended ? figures->ended : lead->ended;
        oldest = figures->oldest < oldest ? figures->oldest : oldest;
    }
    er_load_stats_settle(&lead->stats, oldest);
    for (size_t i = 0; i < several(lead); i++) {
        er_load_stats_settle(&lead->pools[i].stats, oldest);
    }
}

static void take_shelf(struct member *member) {
    struct er_load_worker *lead = &member->load->worker;
    member->seen = member->figures;
    er_load_stats_drain(&lead->stats, &member->shelf, member->in_flight);
    for (size_t i = 0; i < several(lead); i++) {
        er_load_stats_drain(&lead->pools[i].stats, &member->target_shelves[i],
                            member->in_flight + (i + 1) * member->seconds);
    }
    atomic_store_explicit(&member->shelved, false, memory_order_release);
}

static void ask(struct member *member, unsigned what) {
    atomic_fetch_or_explicit(&member->asked, what, memory_order_release);
    ssize_t put = write(member->bell, &(uint64_t){1}, sizeof(uint64_t));
    (void)put; // full means that it rings already
}

static bool all_finished(const struct er_load_crew *crew) {
    for (size_t i = 0; i < crew->count; i++) {
        if (!atomic_load_explicit(&crew->members[i].finished, memory_order_acquire)) {
            return false;
        }
    }
    return true;
}

static void collect(struct member *member) {
    if (!member->joinable || member->collected) {
        return;
    }
    while (sem_wait(&member->halted) != 0) {
    }
    member->collected = true;
    if (atomic_load(&member->shelved)) {
        take_shelf(member);
    }
    swap_all(member); // what came since
    member->figures = member->last;
    take_shelf(member);
}

void er_load_crew_stop(struct er_load_crew *crew) {
    er_timer_stop(crew->load->rt, &crew->timer);
    for (size_t i = 0; i < crew->count; i++) {
        if (crew->members[i].joinable) {
            ask(&crew->members[i], STOP);
        }
    }
    for (size_t i = 0; i < crew->count; i++) {
        collect(&crew->members[i]);
    }
    add_up(crew);
}

static bool all_warmed(const struct er_load_crew *crew) {
    for (size_t i = 0; i < crew->count; i++) {
        if (!atomic_load_explicit(&crew->members[i].warmed, memory_order_acquire)) {
            return false;
        }
    }
    return true;
}

// A little later, so that none is late for the first request.
static void begin_if_warm(struct er_load_crew *crew) {
    if (crew->start || !crew->load->worker.config.warm || !all_warmed(crew)) {
        return;
    }
    crew->start = crew->load->worker.start = er_now(crew->load->rt) + 2000000;
    for (size_t i = 0; i < crew->count; i++) {
        ask(&crew->members[i], BEGIN);
    }
}

static void on_async(uv_async_t *async) {
    struct er_load_crew *crew = async->data;
    if (!crew->load) {
        return; // closing
    }
    er_touch(crew->load->rt);
    begin_if_warm(crew);
    for (size_t i = 0; i < crew->count; i++) {
        if (atomic_load_explicit(&crew->members[i].shelved, memory_order_acquire)) {
            take_shelf(&crew->members[i]);
        }
    }
    add_up(crew);
    if (all_finished(crew) && crew->load->worker.phase != ER_LOAD_FINISHED) {
        er_load_stop(crew->load);
    }
}

static void on_look(struct er_timer *timer) {
    struct er_load_crew *crew = (struct er_load_crew *)((char *)timer - offsetof(struct er_load_crew, timer));
    for (size_t i = 0; i < crew->count; i++) {
        if (!atomic_load_explicit(&crew->members[i].shelved, memory_order_acquire)) {
            ask(&crew->members[i], SHELVE);
        }
    }
    er_timer_start(crew->load->rt, timer, er_now(crew->load->rt) + look_ns, on_look);
}

static void release_member(struct member *member) {
    if (member->joinable) {
        pthread_join(member->thread, NULL);
    }
    sem_destroy(&member->halted);
    if (member->bell >= 0) {
        close(member->bell);
    }
    if (member->nap.epoll >= 0) {
        close(member->nap.epoll);
    }
    for (size_t i = 0; member->target_shelves && i < several(&member->worker); i++) {
        er_load_stats_release(&member->target_shelves[i]);
    }
    er_load_worker_release(&member->worker);
    er_load_stats_release(&member->shelf);
    er_free(member->target_shelves);
    er_free(member->in_flight);
}

static void on_async_closed(uv_handle_t *handle) {
    struct er_load_crew *crew = handle->data;
    for (size_t i = 0; i < crew->count; i++) {
        release_member(&crew->members[i]);
    }
    er_free(crew->members);
    er_free(crew);
}

void er_load_crew_free(struct er_load_crew *crew) {
    er_timer_stop(crew->load->rt, &crew->timer);
    crew->load = NULL;
    uv_close((uv_handle_t *)&crew->async, on_async_closed);
}

static uint64_t share(uint64_t whole, size_t part, size_t parts) { return whole / parts + (part < whole % parts); }

static struct er_load_config config_of(const struct er_load *load, size_t index, size_t count) {
    struct er_load_config config = load->worker.config;
    config.first = index;
    config.step = count;
    config.ring = load->rings ? &load->rings[index] : NULL;
    config.samples = load->samples ? &load->samples[index] : NULL;
    config.max_connections = share(config.max_connections, index, count);
    config.warm = share(config.warm, index, count);
    config.closed = share(config.closed, index, count);
    config.most = share(config.most, index, count);
    config.gather = gather_ns;
    return config;
}

static bool open_files(struct member *member) {
    member->nap.epoll = epoll_create1(EPOLL_CLOEXEC);
    member->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN};
    return member->nap.epoll >= 0 && member->bell >= 0 &&
           epoll_ctl(member->nap.epoll, EPOLL_CTL_ADD, member->bell, &event) == 0;
}

// Counts as the worker's own do, and the loop's thread settles for all.
static bool init_shelf(struct er_load_stats *shelf, struct er_load_stats *counted,
                       const struct er_load_config *config) {
    int64_t length = (int64_t)(config->plan->seconds * 1e9) + config->timeout;
    bool ready = er_load_stats_init(shelf, config->slices, config->slice_count, length) == ER_OK;
    counted->keep_live = shelf->keep_live = true;
    return ready;
}

static bool init_shelves(struct member *member, const struct er_load_config *config) {
    size_t targets = several(&member->worker);
    member->seconds = member->worker.stats.second_count;
    member->in_flight = er_calloc((targets + 1) * member->seconds, sizeof *member->in_flight);
    member->target_shelves = er_calloc(targets + 1, sizeof *member->target_shelves);
    bool ready =
        member->in_flight && member->target_shelves && init_shelf(&member->shelf, &member->worker.stats, config);
    if (ready) {
        er_load_stats_touch(&member->shelf);
    }
    for (size_t i = 0; ready && i < targets; i++) {
        ready = init_shelf(&member->target_shelves[i], &member->worker.pools[i].stats, config);
    }
    return ready;
}

static bool init_member(struct er_load_crew *crew, size_t index) {
    struct member *member = &crew->members[index];
    struct er_load_config config = config_of(crew->load, index, crew->count);
    member->load = crew->load;
    member->crew = crew;
    member->wake = INT64_MAX;
    return er_load_worker_init(&member->worker, &config, &thread_io) == ER_OK && init_shelves(member, &config) &&
           open_files(member);
}

// Signals are the host's: a thread that inherits this mask gets none.
static bool start_thread(struct member *member) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    member->joinable = pthread_create(&member->thread, NULL, run_member, member) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return member->joinable;
}

static bool launch(struct er_load_crew *crew) {
    for (size_t i = 0; i < crew->count; i++) {
        struct member *member = &crew->members[i];
        if (crew->load->worker.config.warm) {
            er_load_worker_warm(&member->worker);
        } else {
            er_load_worker_begin(&member->worker, crew->load->worker.start);
        }
        if (!start_thread(member)) {
            return false;
        }
    }
    return er_timer_start(crew->load->rt, &crew->timer, er_now(crew->load->rt) + look_ns, on_look) == ER_OK;
}

static struct er_load_crew *new_crew(struct er_load *load, size_t count) {
    struct er_load_crew *crew = er_calloc(1, sizeof *crew);
    struct member *members = er_calloc(count, sizeof *members);
    if (!crew || !members || uv_async_init(er_loop(load->rt), &crew->async, on_async) != 0) {
        er_free(crew);
        er_free(members);
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        members[i].nap.epoll = members[i].bell = -1;
        sem_init(&members[i].halted, 0, 0);
    }
    crew->async.data = crew;
    crew->load = load;
    crew->members = members;
    crew->count = count;
    return crew;
}

bool er_load_crew_start(struct er_load *load, size_t count) {
    struct er_load_crew *crew = new_crew(load, count);
    if (!crew) {
        return false;
    }
    bool ready = true;
    for (size_t i = 0; ready && i < count; i++) {
        ready = init_member(crew, i);
    }
    load->crew = crew;
    if (ready && launch(crew)) {
        return true;
    }
    er_load_crew_stop(crew);
    er_load_crew_free(crew);
    load->crew = NULL;
    return false;
}
