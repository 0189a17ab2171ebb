// SPDX-License-Identifier: Apache-2.0
// Answers as they come over a socket: whole, byte by byte, cut, and wrong.
#include "check.h"
#include "reply.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

static struct er_oss_peer peer = {.name = "peer", .bell = -1, .stall_ms = 2000};
static struct er_oss_reply reply;
static struct er_error error;

// Reads `text` (all of it at once, then the end of the stream) through a buffer of `size`.
static enum er_status read_reply(const char *text, size_t length, size_t size) {
    int ends[2];
    char buffer[4096];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    struct er_oss_conn conn = {.peer = &peer, .fd = ends[0]};
    CHECK(write(ends[1], text, length) == (ssize_t)length);
    close(ends[1]);
    er_oss_reply_begin(&reply);
    enum er_status status = er_oss_reply_read(&reply, &conn, buffer, size, &error);
    er_oss_conn_release(&conn);
    return status;
}

static enum er_status read_text(const char *text, size_t size) { return read_reply(text, strlen(text), size); }

static const char good[] = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nETag: \"ABC\"\r\nContent-Length: 0\r\n"
                           "x-oss-hash-crc64ecma: 18446744073709551615\r\nX-Oss-Request-Id: R1\r\n"
                           "x-oss-qos-delay-time: 250\r\nDate: Tue, 04 Mar 2025 05:06:07 GMT\r\n\r\n";

static void what_matters_is_taken_from_the_headers(void) {
    for (size_t size = 1; size < 300; size++) { // however it is cut
        CHECK(read_text(good, size) == ER_OK);
        CHECK(reply.status == 200 && reply.complete && reply.keep_alive);
        CHECK(strcmp(reply.etag, "\"ABC\"") == 0 && strcmp(reply.request_id, "R1") == 0);
        CHECK(reply.has_crc && reply.crc == UINT64_MAX);
        CHECK(reply.qos_delay_ms == 250 && reply.date == 1741064767);
    }
}

static void the_body_of_a_refusal_is_kept(void) {
    CHECK(read_text("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
                    7) == ER_OK);
    CHECK(reply.status == 403 && strcmp(reply.body.data, "hello!") == 0);
    CHECK(
        read_text("HTTP/1.1 307 Moved\r\nLocation: http://b.oss-cn-beijing.aliyuncs.com/k\r\nContent-Length: 0\r\n\r\n",
                  64) == ER_OK);
    CHECK(strcmp(reply.location, "http://b.oss-cn-beijing.aliyuncs.com/k") == 0);
}

static void an_answer_that_is_cut_or_wrong_is_a_failure_of_the_network(void) {
    static const char *const texts[] = {"", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "HTTP/1.1 200",
                                        "SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        CHECK(read_text(texts[i], 64) == ER_NETWORK);
        CHECK(error.message[0]);
    }
}

static void what_follows_an_answer_ends_the_connection(void) {
    CHECK(read_text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n", 4096) == ER_OK);
    CHECK(reply.complete && !reply.keep_alive);
}

static void headers_without_end_are_refused(void) {
    static char text[100 * 1024];
    strcpy(text, "HTTP/1.1 200 OK\r\nx-long: ");
    memset(text + strlen(text), 'a', sizeof text - 64);
    CHECK(read_text(text, 4096) == ER_NETWORK);
}

static void a_bad_crc_is_no_crc(void) {
    static const char *const values[] = {"", "-", "12x", "abc"};
    char text[200];
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-oss-hash-crc64ecma: %s\r\n\r\n",
                 values[i]);
        CHECK(read_text(text, 64) == ER_OK);
        CHECK(!reply.has_crc);
    }
}

// Nothing that a server may say ends the process or is read beyond its end (the sanitizers look on).
static void changed_bytes_do_no_harm(void) {
    unsigned seed = 1;
    for (size_t n = 0; n < 20000; n++) {
        char text[sizeof good];
        memcpy(text, good, sizeof good);
        for (size_t k = 0; k < 1 + n % 4; k++) {
            seed = seed * 1103515245u + 12345u;
            text[(seed >> 8) % (sizeof good - 1)] = (char)(seed >> 20);
        }
        enum er_status status = read_reply(text, sizeof good - 1, 1 + n % 97);
        CHECK(status == ER_OK || status == ER_NETWORK);
    }
}

static void the_bell_ends_a_wait(void) {
    int ends[2];
    char buffer[64];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    struct er_oss_peer with_bell = peer;
    with_bell.bell = eventfd(1, EFD_CLOEXEC);
    struct er_oss_conn conn = {.peer = &with_bell, .fd = ends[0]};
    er_oss_reply_begin(&reply);
    CHECK(er_oss_reply_read(&reply, &conn, buffer, sizeof buffer, &error) == ER_CANCELLED);
    er_oss_conn_release(&conn);
    close(ends[1]);
    close(with_bell.bell);
}

int main(void) {
    int failed = check_run((struct check_test[]){
        {"what_matters_is_taken_from_the_headers", what_matters_is_taken_from_the_headers},
        {"the_body_of_a_refusal_is_kept", the_body_of_a_refusal_is_kept},
        {"an_answer_that_is_cut_or_wrong_is_a_failure_of_the_network",
         an_answer_that_is_cut_or_wrong_is_a_failure_of_the_network},
        {"what_follows_an_answer_ends_the_connection", what_follows_an_answer_ends_the_connection},
        {"headers_without_end_are_refused", headers_without_end_are_refused},
        {"a_bad_crc_is_no_crc", a_bad_crc_is_no_crc},
        {"changed_bytes_do_no_harm", changed_bytes_do_no_harm},
        {"the_bell_ends_a_wait", the_bell_ends_a_wait},
        {0},
    });
    er_oss_reply_release(&reply);
    return failed;
}
