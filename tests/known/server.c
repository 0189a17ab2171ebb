// SPDX-License-Identifier: Apache-2.0
// An HTTP server whose behaviour is known: server PORT_FILE LOG MODE [A [B]]. It listens on a free port of loopback,
// and on SIGTERM writes one line for each request, in the order of their arrival: when it came (by the kernel's stamp),
// when its answer went out (nanoseconds since the epoch; 0: the connection was reset instead).
//   constant A        each answer takes A seconds
//   lognormal A B     exp of a normal with mean log(A) and deviation B, from a seed
//   pause A B         answers at once, but sleeps B seconds of each A
//   reset A B         answers after A seconds, and resets each B-th connection instead
//   queue A           one after the other, A seconds each: it can take 1 / A a second
//   slow A            half of the body at once, the rest after A seconds, which is when the answer counts as out
#include <arpa/inet.h>
#include <errno.h>
#include <linux/net_tstamp.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQUESTS = 10000000, FILES = 65536, EVENTS = 256 };

struct due {
    int64_t at;
    int fd;
    uint32_t request;
    uint32_t generation;
};

static struct {
    int64_t *read_at, *sent_at;
    uint32_t count, due_count;
    struct due *due; // a heap
    uint32_t generation[FILES];
    char tail[FILES][4]; // of what was read last: a request may come in pieces
    const char *mode;
    double a, b;
    int64_t free_at; // of a queue
    uint64_t rng;
} s;

static volatile sig_atomic_t stopped;
static void on_signal(int number) { (void)number, stopped = 1; }

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static double uniform(void) {
    s.rng = s.rng * 6364136223846793005u + 1442695040888963407u;
    return ((double)(s.rng >> 11) + 0.5) * 0x1p-53;
}

static bool is(const char *mode) { return strcmp(s.mode, mode) == 0; }

static int64_t delay(void) {
    double seconds = s.a;
    if (is("lognormal")) {
        seconds = s.a * exp(s.b * sqrt(-2 * log(uniform())) * cos(2 * M_PI * uniform()));
    }
    return is("pause") ? 0 : (int64_t)(seconds * 1e9);
}

static void push(struct due due) {
    uint32_t i = s.due_count++;
    for (; i && s.due[(i - 1) / 2].at > due.at; i = (i - 1) / 2) {
        s.due[i] = s.due[(i - 1) / 2];
    }
    s.due[i] = due;
}

static struct due pop(void) {
    struct due top = s.due[0], last = s.due[--s.due_count];
    uint32_t i = 0, child;
    while ((child = 2 * i + 1) < s.due_count) {
        child += child + 1 < s.due_count && s.due[child + 1].at < s.due[child].at;
        if (last.at <= s.due[child].at) {
            break;
        }
        s.due[i] = s.due[child];
        i = child;
    }
    s.due[i] = last;
    return top;
}

static void hang_up(int fd, bool hard) {
    struct linger linger = {.l_onoff = 1};
    if (hard) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    }
    s.generation[fd]++;
    close(fd);
}

static void send_text(int fd, const char *text) {
    ssize_t sent = send(fd, text, strlen(text), MSG_NOSIGNAL);
    (void)sent;
}

static const char whole[] = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalfhalf";

static void answer(struct due due) {
    if (s.generation[due.fd] != due.generation) {
        return;
    }
    if (is("reset") && (due.request + 1) % (uint32_t)s.b == 0) {
        hang_up(due.fd, true);
        return;
    }
    send_text(due.fd, is("slow") ? "half" : whole);
    s.sent_at[due.request] = now();
}

static void take_request(int fd, int64_t came) {
    if (s.count == REQUESTS) {
        return;
    }
    struct due due = {.fd = fd, .request = s.count++, .generation = s.generation[fd]};
    int64_t at = now();
    s.read_at[due.request] = came ? came : at;
    if (is("slow")) {
        send_text(fd, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
    }
    if (is("queue")) {
        s.free_at = at = at > s.free_at ? at : s.free_at;
    }
    due.at = at + delay();
    s.free_at = due.at;
    if (due.at <= at) {
        answer(due);
    } else {
        push(due);
    }
}

// When the kernel took these bytes from the network; 0: it does not say.
static int64_t stamp_of(struct msghdr *message) {
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPING) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
            return stamp.tv_sec * INT64_C(1000000000) + stamp.tv_nsec;
        }
    }
    return 0;
}

static ssize_t read_stamped(int fd, char *into, size_t size, int64_t *came) {
    char control[256];
    struct iovec part = {into, size};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    ssize_t got = recvmsg(fd, &message, 0);
    *came = got > 0 ? stamp_of(&message) : 0;
    return got;
}

// A request ends in an empty line; none has a body. No client here sends the next before it was answered.
static void on_readable(int fd) {
    char bytes[8192 + 4];
    memcpy(bytes, s.tail[fd], 4);
    int64_t came;
    ssize_t got = read_stamped(fd, bytes + 4, sizeof bytes - 4, &came);
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN) {
            hang_up(fd, false);
        }
        return;
    }
    memcpy(s.tail[fd], bytes + got, 4);
    if (memcmp(s.tail[fd], "\r\n\r\n", 4) == 0) {
        memset(s.tail[fd], 0, 4);
        take_request(fd, came);
    }
}

static void accept_all(int listener, int epoll) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        int stamps = SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE;
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPING, &stamps, sizeof stamps);
        memset(s.tail[fd], 0, 4);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(const char *port_file) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0) {
        perror("listen");
        exit(1);
    }
    char hidden[4096];
    snprintf(hidden, sizeof hidden, "%s.new", port_file);
    FILE *file = fopen(hidden, "w");
    if (!file || fprintf(file, "%d\n", ntohs(address.sin_port)) < 0 || fclose(file) != 0 ||
        rename(hidden, port_file) != 0) {
        perror(port_file);
        exit(1);
    }
    return fd;
}

static void pause_if_due(void) {
    int64_t period = (int64_t)(s.a * 1e9), at = now() % period;
    if (is("pause") && at < (int64_t)(s.b * 1e9)) {
        int64_t left = (int64_t)(s.b * 1e9) - at;
        nanosleep(&(struct timespec){left / 1000000000, left % 1000000000}, NULL);
    }
}

static void turn(int epoll, int listener) {
    struct epoll_event events[EVENTS];
    int64_t left = s.due_count ? s.due[0].at - now() : INT64_C(200000000);
    left = left > 0 ? left : 0;
    int count = epoll_pwait2(epoll, events, EVENTS, &(struct timespec){left / 1000000000, left % 1000000000}, NULL);
    pause_if_due();
    while (s.due_count && s.due[0].at <= now()) {
        answer(pop());
    }
    for (int i = 0; i < count; i++) {
        if (events[i].data.fd == listener) {
            accept_all(listener, epoll);
        } else {
            on_readable(events[i].data.fd);
        }
    }
}

static int write_log(const char *path) {
    FILE *file = fopen(path, "w");
    for (uint32_t i = 0; file && i < s.count; i++) {
        fprintf(file, "%lld %lld\n", (long long)s.read_at[i], (long long)s.sent_at[i]);
    }
    return file && fclose(file) == 0 ? 0 : 1;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: server PORT_FILE LOG MODE [A [B]]\n");
        return 64;
    }
    s.mode = argv[3];
    s.a = argc > 4 ? strtod(argv[4], NULL) : 0;
    s.b = argc > 5 ? strtod(argv[5], NULL) : 0;
    s.rng = 42;
    s.read_at = calloc(REQUESTS, sizeof *s.read_at);
    s.sent_at = calloc(REQUESTS, sizeof *s.sent_at);
    s.due = calloc(FILES, sizeof *s.due);
    int epoll = epoll_create1(EPOLL_CLOEXEC), listener = listen_on(argv[1]);
    if (!s.read_at || !s.sent_at || !s.due || epoll < 0) {
        return 1;
    }
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    signal(SIGTERM, on_signal);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    while (!stopped) {
        turn(epoll, listener);
    }
    return write_log(argv[2]);
}
