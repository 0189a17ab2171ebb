// SPDX-License-Identifier: Apache-2.0
// Files: what takes more than one system call. Every function blocks, touches neither Lua nor the loop, and may run on
// the thread pool.
#ifndef EIRUN_FS_H
#define EIRUN_FS_H

#include "digests.h"
#include "er.h"

#include <sys/types.h>

// A failure in the terms of a message: "cannot ACTION 'path': reason". Code 0: none.
struct er_fs_failure {
    int code; // errno
    const char *action;
};

// Reads a regular file (or a pipe, or what /proc has) whole. ER_QUOTA over `into->max`, with EFBIG.
enum er_status er_fs_read(const char *path, struct er_buf *into, struct er_fs_failure *failure);

struct er_fs_write_opts {
    mode_t mode;  // of a file that is made
    bool atomic;  // write beside, rename over; else in place
    bool durable; // reaches the disk before this returns
    bool append;
};
enum er_status er_fs_write(const char *path, const char *data, size_t length, const struct er_fs_write_opts *opts,
                           struct er_fs_failure *failure);

// Adds `length` bytes of `source` from `offset` (up to its end where it is shorter) to the end of `path`, which is made
// where it is missing. The kernel moves the bytes where it can. Stops early when `*stop` becomes true (ER_CANCELLED).
enum er_status er_fs_extend(const char *path, const char *source, uint64_t offset, uint64_t length,
                            const volatile bool *stop, struct er_fs_failure *failure);

// Digests `length` bytes from `offset`, up to the end where the file is shorter, and says how many there were. Stops
// early when `*stop` becomes true (ER_CANCELLED).
enum er_status er_fs_digest(const char *path, struct er_digests *digests, uint64_t offset, uint64_t length,
                            const volatile bool *stop, uint64_t *size, struct er_fs_failure *failure);

// All of it, however many writes it takes; 0 or an errno.
int er_fs_write_all(int fd, const char *data, size_t length);

// Names in byte order, without "." and "..". Free with er_fs_names_release.
struct er_fs_names {
    char **names;
    size_t count, capacity;
};
enum er_status er_fs_list(const char *path, struct er_fs_names *names, struct er_fs_failure *failure);
void er_fs_names_release(struct er_fs_names *names); // may run twice

// With `parents`, makes missing ones and is content with a directory that exists.
enum er_status er_fs_mkdir(const char *path, mode_t mode, bool parents, struct er_fs_failure *failure);
// A file, a link (never what it points to), or an empty directory; with `recursive` a tree.
enum er_status er_fs_remove(const char *path, bool recursive, struct er_fs_failure *failure);

// An advisory lock on a file that is made for it and that says who holds it.
struct er_fs_holder {
    long pid;
    char host[128];
    char since[40]; // real time, ISO 8601
};
// ER_CONFLICT: another holds it, `holder` says who (pid 0 where it has not said yet).
enum er_status er_fs_lock(const char *path, int *fd, struct er_fs_holder *holder, struct er_fs_failure *failure);
void er_fs_unlock(int fd);

#endif
