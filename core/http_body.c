// SPDX-License-Identifier: Apache-2.0
// The bytes of one transfer: header lines, the answer to memory, file or reader, and the request's body from a file.
#include "http_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// A stream's reader that falls behind by this much stops the connection until it has read.
enum { STREAM_HIGH_WATER = 256 * 1024 };

static void stay_active(struct er_transfer *t) { t->active = er_deadline_now(&t->deadline); }

static enum er_status note_errno(struct er_transfer *t, const char *action, const char *path) {
    return er_http_note(t, errno == ENOENT ? ER_NOT_FOUND : ER_INTERNAL, "cannot %s '%s': %s", action, path,
                        uv_strerror(-errno));
}

// ---- header

static void begin_headers(struct er_transfer *t, const char *line, size_t length) {
    er_headers_clear(&t->reply.headers); // an interim answer or another try came before
    t->reply.version = memcmp(line, "HTTP/2", 6) == 0 ? "2" : memcmp(line, "HTTP/1.0", 8) == 0 ? "1.0" : "1.1";
    const char *space = memchr(line, ' ', length);
    t->reply.status = space ? (int)strtol(space, NULL, 10) : 0;
}

static void end_headers(struct er_transfer *t) {
    if (t->reply.status < 200) {
        return;
    }
    t->reply.has_headers = true;
    if (t->stream) {
        er_op_done(&t->reply.op);
    }
}

static enum er_status take_line(struct er_transfer *t, const char *line, size_t length) {
    if (t->reply.has_headers) {
        return ER_OK; // trailers
    }
    if (length >= 9 && memcmp(line, "HTTP/", 5) == 0) {
        begin_headers(t, line, length);
        return ER_OK;
    }
    if (length == 0 || line[0] == '\r' || line[0] == '\n') {
        end_headers(t);
        return ER_OK;
    }
    enum er_status status = er_headers_add_line(&t->reply.headers, line, length);
    if (status == ER_QUOTA) {
        return er_http_note(t, ER_QUOTA, "the header of the answer from %s:%u is larger than %zu bytes", t->place.host,
                            t->place.port, t->reply.headers.text.max);
    }
    return status == ER_INVALID ? er_http_note(t, ER_NETWORK, "%s:%u answered with a line that is no header",
                                               t->place.host, t->place.port)
                                : status;
}

size_t er_http_on_header(char *line, size_t size, size_t count, void *transfer) {
    struct er_transfer *t = transfer;
    stay_active(t);
    return take_line(t, line, size * count) == ER_OK ? size * count : 0;
}

// ---- answer

static bool goes_to_sink(const struct er_transfer *t) {
    return t->sink_file && t->reply.status >= 200 && t->reply.status < 300;
}

static enum er_status open_sink(struct er_transfer *t) {
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (t->sink_offset < 0 ? O_TRUNC : 0);
    t->sink_fd = open(t->sink_file, flags, 0666);
    if (t->sink_fd < 0) {
        return note_errno(t, "open", t->sink_file);
    }
    t->sink_offset = t->sink_offset < 0 ? 0 : t->sink_offset;
    return ER_OK;
}

static enum er_status write_sink(struct er_transfer *t, const char *bytes, size_t length) {
    if (t->sink_fd < 0 && open_sink(t) != ER_OK) {
        return t->reply.error.status;
    }
    for (size_t done = 0; done < length;) {
        ssize_t written = pwrite(t->sink_fd, bytes + done, length - done, (off_t)t->sink_offset);
        if (written < 0 && errno != EINTR) {
            return note_errno(t, "write", t->sink_file);
        }
        done += written > 0 ? (size_t)written : 0;
        t->sink_offset += written > 0 ? written : 0;
    }
    return t->reply.digests ? er_digests_update(t->reply.digests, bytes, length) : ER_OK;
}

static enum er_status keep(struct er_transfer *t, const char *bytes, size_t length) {
    enum er_status status = er_buf_add(&t->reply.body, bytes, length);
    if (status == ER_QUOTA) {
        return er_http_note(t, ER_QUOTA, "the answer from %s:%u is larger than %zu bytes", t->place.host, t->place.port,
                            t->reply.body.max);
    }
    return status;
}

size_t er_http_on_body(char *bytes, size_t size, size_t count, void *transfer) {
    struct er_transfer *t = transfer;
    size_t length = size * count;
    stay_active(t);
    if (goes_to_sink(t)) {
        return write_sink(t, bytes, length) == ER_OK ? length : 0;
    }
    if (t->stream && t->reply.body.length >= STREAM_HIGH_WATER) {
        t->paused = true;
        return CURL_WRITEFUNC_PAUSE;
    }
    if (keep(t, bytes, length) != ER_OK) {
        return 0;
    }
    if (t->stream) {
        er_op_done(&t->reply.op);
    }
    return length;
}

enum er_status er_http_end_body(struct er_transfer *t) {
    if (goes_to_sink(t) && t->sink_fd < 0 && open_sink(t) != ER_OK) { // nothing came: an empty file
        return t->reply.error.status;
    }
    return t->reply.digests ? er_digests_finish(t->reply.digests) : ER_OK;
}

void er_http_consumed(struct er_http_reply *reply) {
    struct er_transfer *t = (struct er_transfer *)reply;
    er_buf_clear(&reply->body);
    if (t->paused && t->easy) {
        t->paused = false;
        stay_active(t);
        t->client->curl->easy_pause(t->easy, CURLPAUSE_CONT); // may call er_http_on_body
    }
}

// ---- request

enum er_status er_http_open_body(struct er_transfer *t, const char *path, int64_t length, struct er_error *err) {
    struct stat info;
    t->body_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (t->body_fd < 0 || fstat(t->body_fd, &info) != 0) {
        return er_fail(err, errno == ENOENT ? ER_NOT_FOUND : ER_INTERNAL, "cannot open '%s': %s", path,
                       uv_strerror(-errno));
    }
    int64_t rest = info.st_size - t->body_offset;
    if (rest < 0 || length > rest) {
        return er_fail(err, ER_INVALID, "cannot send '%s': it has %lld bytes, too few for that range", path,
                       (long long)info.st_size);
    }
    t->body_file_length = length < 0 ? rest : length;
    return ER_OK;
}

// What a writer may leave waiting before it has to wait itself.
enum { FEED_HIGH_WATER = 256 * 1024 };

static size_t send_fed(struct er_transfer *t, char *into, size_t most) {
    size_t left = t->feed.length - t->feed_at;
    stay_active(t);
    if (left == 0 && !t->feed_ended) {
        t->send_paused = true;
        return CURL_READFUNC_PAUSE;
    }
    size_t length = left < most ? left : most;
    if (length) {
        memcpy(into, t->feed.data + t->feed_at, length);
    }
    t->feed_at += length;
    t->body_sent += (int64_t)length;
    if (t->feed_at == t->feed.length) {
        er_buf_clear(&t->feed);
        t->feed_at = 0;
    }
    er_op_done(&t->reply.op);
    return length;
}

static void resume_sending(struct er_transfer *t) {
    if (t->send_paused && t->easy) {
        t->send_paused = false;
        stay_active(t);
        t->client->curl->easy_pause(t->easy, t->paused ? CURLPAUSE_RECV : CURLPAUSE_CONT); // may call er_http_on_send
    }
}

enum er_status er_http_feed(struct er_http_reply *reply, const char *bytes, size_t length) {
    struct er_transfer *t = (struct er_transfer *)reply;
    enum er_status status = er_buf_add(&t->feed, bytes, length);
    if (status == ER_OK) {
        resume_sending(t);
    }
    return status;
}

void er_http_feed_end(struct er_http_reply *reply) {
    struct er_transfer *t = (struct er_transfer *)reply;
    t->feed_ended = true;
    resume_sending(t);
}

bool er_http_feed_is_full(const struct er_http_reply *reply) {
    const struct er_transfer *t = (const struct er_transfer *)reply;
    return t->feed.length - t->feed_at >= FEED_HIGH_WATER;
}

size_t er_http_on_send(char *into, size_t size, size_t count, void *transfer) {
    struct er_transfer *t = transfer;
    if (t->feeds) {
        return send_fed(t, into, size * count);
    }
    int64_t left = t->body_file_length - t->body_sent;
    size_t length = size * count;
    length = (int64_t)length > left ? (size_t)left : length;
    stay_active(t);
    ssize_t got = 0;
    do {
        got = pread(t->body_fd, into, length, (off_t)(t->body_offset + t->body_sent));
    } while (got < 0 && errno == EINTR);
    if (got < 0 || (got == 0 && length > 0)) {
        er_http_note(t, ER_CONFLICT, "cannot send a file to %s:%u: %s", t->place.host, t->place.port,
                     got < 0 ? uv_strerror(-errno) : "it became shorter meanwhile");
        return CURL_READFUNC_ABORT;
    }
    t->body_sent += got;
    return (size_t)got;
}

int er_http_on_rewind(void *transfer, curl_off_t offset, int origin) {
    struct er_transfer *t = transfer;
    if (t->feeds) {
        return t->body_sent == 0 && offset == 0 ? CURL_SEEKFUNC_OK : CURL_SEEKFUNC_FAIL;
    }
    if (origin != SEEK_SET || offset < 0 || offset > t->body_file_length) {
        return CURL_SEEKFUNC_FAIL;
    }
    t->body_sent = offset;
    return CURL_SEEKFUNC_OK;
}
