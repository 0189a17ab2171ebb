// SPDX-License-Identifier: Apache-2.0
// A server in threads of its own that answers by path, for tests of the client; it does not share the client's loop.
#ifndef EIRUN_HTTP_PEER_H
#define EIRUN_HTTP_PEER_H

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char socket_path[64];
static int listener;

static const char *answer_to(const char *request) {
    static const struct {
        const char *path, *answer;
    } answers[] = {
        {"/ok", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\n\r\nok"},
        {"/interim", "HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
        {"/chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"},
        {"/short", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"},
        {"/rubbish", "what?\r\n\r\n"},
        {"/none", ""},
    };
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
        if (strncmp(strchr(request, ' ') + 1, answers[i].path, strlen(answers[i].path)) == 0) {
            return answers[i].answer;
        }
    }
    return NULL; // never answers
}

static void *serve_connection(void *argument) {
    int fd = (int)(intptr_t)argument;
    char request[4096] = "";
    size_t length = 0;
    for (ssize_t got; (got = read(fd, request + length, sizeof request - 1 - length)) > 0;) {
        length += (size_t)got;
        request[length] = '\0';
        if (!strstr(request, "\r\n\r\n")) {
            continue;
        }
        const char *answer = answer_to(request);
        if (!answer) {
            continue;
        }
        (void)!send(fd, answer, strlen(answer), MSG_NOSIGNAL);
        if (!strstr(answer, "200 OK") || strstr(request, "/short")) {
            break;
        }
        length = 0;
    }
    close(fd);
    return NULL;
}

static void *serve(void *argument) {
    (void)argument;
    for (int fd; (fd = accept(listener, NULL, NULL)) >= 0;) {
        pthread_t thread;
        pthread_create(&thread, NULL, serve_connection, (void *)(intptr_t)fd);
        pthread_detach(thread);
    }
    return NULL;
}

// Listens on socket_path, which the test unlinks at its end.
static void start_server(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(socket_path, sizeof socket_path, "/tmp/eirun-test-%d.sock", (int)getpid());
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    unlink(socket_path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    pthread_t thread;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 64) != 0 ||
        pthread_create(&thread, NULL, serve, NULL) != 0) {
        abort();
    }
    pthread_detach(thread);
}

#endif
