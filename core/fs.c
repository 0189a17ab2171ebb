// SPDX-License-Identifier: Apache-2.0
#include "fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STEP = 256 << 10 };

static enum er_status failed(struct er_fs_failure *failure, const char *action, int code) {
    *failure = (struct er_fs_failure){.code = code, .action = action};
    return code == ENOMEM ? ER_NO_MEMORY : code == EFBIG ? ER_QUOTA : ER_INTERNAL;
}

// ---- reading

static int open_input(const char *path, struct er_fs_failure *failure) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    if (fd < 0) {
        failed(failure, "open", errno);
    } else if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        failed(failure, "read", EISDIR);
        close(fd);
        fd = -1;
    }
    return fd;
}

static enum er_status read_rest(int fd, struct er_buf *into, char *chunk, struct er_fs_failure *failure) {
    for (;;) {
        ssize_t count = read(fd, chunk, STEP);
        if (count == 0) {
            return ER_OK;
        }
        if (count < 0 && errno != EINTR) {
            return failed(failure, "read", errno);
        }
        enum er_status status = count < 0 ? ER_OK : er_buf_add(into, chunk, (size_t)count);
        if (status != ER_OK) {
            return failed(failure, "read", status == ER_QUOTA ? EFBIG : ENOMEM);
        }
    }
}

enum er_status er_fs_read(const char *path, struct er_buf *into, struct er_fs_failure *failure) {
    int fd = open_input(path, failure);
    if (fd < 0) {
        return failure->code == ENOMEM ? ER_NO_MEMORY : ER_INTERNAL;
    }
    char *chunk = er_alloc(STEP);
    enum er_status status = chunk ? read_rest(fd, into, chunk, failure) : failed(failure, "read", ENOMEM);
    er_free(chunk);
    close(fd);
    return status;
}

static enum er_status digest_range(int fd, char *chunk, struct er_digests *digests, uint64_t offset, uint64_t length,
                                   const volatile bool *stop, uint64_t *size, struct er_fs_failure *failure) {
    *size = 0;
    while (*size < length && !*stop) {
        size_t step = length - *size < STEP ? (size_t)(length - *size) : STEP;
        ssize_t count = pread(fd, chunk, step, (off_t)(offset + *size));
        if (count == 0) {
            break;
        }
        if (count < 0 && errno != EINTR) {
            return failed(failure, "read", errno);
        }
        if (count > 0 && er_digests_update(digests, chunk, (size_t)count) != ER_OK) {
            return failed(failure, "digest", ENOMEM);
        }
        *size += count < 0 ? 0 : (uint64_t)count;
    }
    return *stop                                 ? failed(failure, "digest", ECANCELED)
           : er_digests_finish(digests) == ER_OK ? ER_OK
                                                 : failed(failure, "digest", ENOMEM);
}

enum er_status er_fs_digest(const char *path, struct er_digests *digests, uint64_t offset, uint64_t length,
                            const volatile bool *stop, uint64_t *size, struct er_fs_failure *failure) {
    int fd = open_input(path, failure);
    if (fd < 0) {
        return ER_INTERNAL;
    }
    char *chunk = er_alloc(STEP);
    enum er_status status = chunk ? digest_range(fd, chunk, digests, offset, length, stop, size, failure)
                                  : failed(failure, "digest", ENOMEM);
    er_free(chunk);
    close(fd);
    return status;
}

// ---- writing

int er_fs_write_all(int fd, const char *data, size_t length) {
    while (length > 0) {
        ssize_t count = write(fd, data, length);
        if (count < 0 && errno != EINTR) {
            return errno;
        }
        size_t step = count < 0 ? 0 : (size_t)count;
        data += step;
        length -= step;
    }
    return 0;
}

// Writes, settles mode and disk, and closes `fd` in any case. `mode` 0 leaves it.
static enum er_status fill(int fd, const char *data, size_t length, mode_t mode, bool durable,
                           struct er_fs_failure *failure) {
    int code = er_fs_write_all(fd, data, length);
    if (!code && mode && fchmod(fd, mode) < 0) { // the umask may have taken some of it
        code = errno;
    }
    if (!code && durable && fsync(fd) < 0) {
        code = errno;
    }
    if (close(fd) < 0 && !code) {
        code = errno;
    }
    return code ? failed(failure, "write", code) : ER_OK;
}

static enum er_status write_in_place(const char *path, const char *data, size_t length,
                                     const struct er_fs_write_opts *opts, struct er_fs_failure *failure) {
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | (opts->append ? O_APPEND : O_TRUNC);
    int fd = open(path, flags, opts->mode);
    if (fd < 0) {
        return failed(failure, "open", errno);
    }
    return fill(fd, data, length, 0, opts->durable, failure);
}

// "dir/.name.XXXXXX": in the same directory, or the rename would not be one.
static char *name_beside(const char *path) {
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? (size_t)(slash - path) + 1 : 0;
    size_t size = strlen(path) + sizeof "..XXXXXX";
    char *name = er_alloc(size);
    if (name) {
        snprintf(name, size, "%.*s.%.200s.XXXXXX", (int)folder, path, path + folder);
    }
    return name;
}

// Makes the rename itself last: it lives in the directory.
static int sync_folder(char *name) {
    char *slash = strrchr(name, '/');
    const char *folder = slash == name ? "/" : slash ? name : ".";
    if (slash && slash != name) {
        *slash = '\0';
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    int code = fsync(fd) < 0 && errno != EINVAL ? errno : 0;
    close(fd);
    return code;
}

static enum er_status write_beside(const char *path, char *beside, const char *data, size_t length,
                                   const struct er_fs_write_opts *opts, struct er_fs_failure *failure) {
    int fd = mkostemp(beside, O_CLOEXEC); // mode 0600 until the content is in
    if (fd < 0) {
        return failed(failure, "write", errno);
    }
    enum er_status status = fill(fd, data, length, opts->mode, opts->durable, failure);
    if (status == ER_OK && rename(beside, path) < 0) {
        status = failed(failure, "replace", errno);
    }
    if (status != ER_OK) {
        unlink(beside);
        return status;
    }
    int code = opts->durable ? sync_folder(beside) : 0;
    return code ? failed(failure, "write", code) : ER_OK;
}

enum er_status er_fs_write(const char *path, const char *data, size_t length, const struct er_fs_write_opts *opts,
                           struct er_fs_failure *failure) {
    if (!opts->atomic || opts->append) {
        return write_in_place(path, data, length, opts, failure);
    }
    char *beside = name_beside(path);
    enum er_status status =
        beside ? write_beside(path, beside, data, length, opts, failure) : failed(failure, "write", ENOMEM);
    er_free(beside);
    return status;
}

// ---- adding a part of one file to another

enum { EXTEND_STEP = 8 << 20, EXTEND_BLOCK = 64 << 10 };

static ssize_t move_by_hand(int from, loff_t *offset, int to, size_t length) {
    char block[EXTEND_BLOCK];
    ssize_t got = pread(from, block, length < sizeof block ? length : sizeof block, *offset);
    for (ssize_t done = 0; done < got;) {
        ssize_t wrote = write(to, block + done, (size_t)(got - done));
        if (wrote < 0 && errno != EINTR) {
            return -1;
        }
        done += wrote > 0 ? wrote : 0;
    }
    *offset += got > 0 ? got : 0;
    return got;
}

// copy_file_range knows no other file system than one's own on older kernels, and not every kind of file.
static ssize_t move_some(int from, loff_t *offset, int to, size_t length) {
    ssize_t moved = copy_file_range(from, offset, to, NULL, length, 0);
    bool unable = moved < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP);
    return unable ? move_by_hand(from, offset, to, length) : moved;
}

static enum er_status move_range(int from, int to, uint64_t offset, uint64_t length, const volatile bool *stop,
                                 struct er_fs_failure *failure) {
    loff_t at = (loff_t)offset;
    while (length > 0) {
        if (*stop) {
            return ER_CANCELLED;
        }
        ssize_t moved = move_some(from, &at, to, length < EXTEND_STEP ? (size_t)length : EXTEND_STEP);
        if (moved < 0 && errno != EINTR) {
            return failed(failure, "extend", errno);
        }
        if (moved == 0) {
            return ER_OK;
        }
        length -= moved > 0 ? (uint64_t)moved : 0;
    }
    return ER_OK;
}

// Not opened with O_APPEND: copy_file_range refuses that.
static enum er_status extend_from(int from, const char *path, uint64_t offset, uint64_t length,
                                  const volatile bool *stop, struct er_fs_failure *failure) {
    int to = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY, 0600);
    if (to < 0 || lseek(to, 0, SEEK_END) < 0) {
        int code = errno;
        if (to >= 0) {
            close(to);
        }
        return failed(failure, "open", code);
    }
    enum er_status status = move_range(from, to, offset, length, stop, failure);
    if (close(to) < 0 && status == ER_OK) {
        status = failed(failure, "extend", errno);
    }
    return status;
}

enum er_status er_fs_extend(const char *path, const char *source, uint64_t offset, uint64_t length,
                            const volatile bool *stop, struct er_fs_failure *failure) {
    int from = open(source, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (from < 0) {
        return failed(failure, "extend", errno);
    }
    enum er_status status = extend_from(from, path, offset, length, stop, failure);
    close(from);
    return status;
}

// ---- directories

void er_fs_names_release(struct er_fs_names *names) {
    for (size_t i = 0; i < names->count; i++) {
        er_free(names->names[i]);
    }
    er_free(names->names);
    *names = (struct er_fs_names){0};
}

static bool add_name(struct er_fs_names *names, const char *name) {
    if (names->count == names->capacity) {
        size_t capacity = names->capacity ? 2 * names->capacity : 32;
        char **grown = er_realloc(names->names, capacity * sizeof *grown);
        if (!grown) {
            return false;
        }
        names->names = grown;
        names->capacity = capacity;
    }
    names->names[names->count] = er_strdup(name);
    return names->names[names->count] && ++names->count;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool is_dots(const char *name) { return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2])); }

static int read_names(DIR *dir, struct er_fs_names *names) {
    struct dirent *entry;
    while (errno = 0, (entry = readdir(dir))) {
        if (!is_dots(entry->d_name) && !add_name(names, entry->d_name)) {
            return ENOMEM;
        }
    }
    return errno;
}

enum er_status er_fs_list(const char *path, struct er_fs_names *names, struct er_fs_failure *failure) {
    *names = (struct er_fs_names){0};
    DIR *dir = opendir(path);
    if (!dir) {
        return failed(failure, "list", errno);
    }
    int code = read_names(dir, names);
    closedir(dir);
    if (code) {
        er_fs_names_release(names);
        return failed(failure, "list", code);
    }
    if (names->count) {
        qsort(names->names, names->count, sizeof *names->names, by_name);
    }
    return ER_OK;
}

static int make_or_find(const char *path, mode_t mode) {
    if (mkdir(path, mode) == 0) {
        return 0;
    }
    int code = errno;
    struct stat st;
    return code == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? 0 : code;
}

static int make_parents(char *path, mode_t mode) {
    for (char *at = path + 1; *at; at++) {
        if (*at == '/') {
            *at = '\0';
            int code = make_or_find(path, mode);
            *at = '/';
            if (code && code != EEXIST) {
                return code;
            }
        }
    }
    return make_or_find(path, mode);
}

enum er_status er_fs_mkdir(const char *path, mode_t mode, bool parents, struct er_fs_failure *failure) {
    if (!parents) {
        return mkdir(path, mode) == 0 ? ER_OK : failed(failure, "make", errno);
    }
    char *copy = *path ? er_strdup(path) : NULL;
    int code = copy ? make_parents(copy, mode) : *path ? ENOMEM : ENOENT;
    er_free(copy);
    return code ? failed(failure, "make", code) : ER_OK;
}

static int remove_tree(int parent, const char *name, unsigned depth);

static int remove_content(int fd, unsigned depth) {
    DIR *dir = fdopendir(fd);
    if (!dir) {
        int code = errno;
        close(fd);
        return code;
    }
    int code = 0;
    struct dirent *entry;
    while (!code && (errno = 0, (entry = readdir(dir)))) {
        if (!is_dots(entry->d_name)) {
            code = remove_tree(fd, entry->d_name, depth);
        }
    }
    closedir(dir);
    return code;
}

// O_NOFOLLOW and names relative to open directories: a link that somebody plants meanwhile is removed, not followed.
static int remove_tree(int parent, const char *name, unsigned depth) {
    if (depth == 0) {
        return ELOOP;
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        bool no_directory = errno == ENOTDIR || errno == ELOOP;
        return no_directory && unlinkat(parent, name, 0) == 0 ? 0 : errno;
    }
    int code = remove_content(fd, depth - 1);
    return code ? code : unlinkat(parent, name, AT_REMOVEDIR) == 0 ? 0 : errno;
}

enum er_status er_fs_remove(const char *path, bool recursive, struct er_fs_failure *failure) {
    enum { DEEPEST = 200 };
    int code = recursive ? remove_tree(AT_FDCWD, path, DEEPEST) : remove(path) == 0 ? 0 : errno;
    return code ? failed(failure, "remove", code) : ER_OK;
}

// ---- locks

static void parse_holder(char *text, struct er_fs_holder *holder) {
    *holder = (struct er_fs_holder){0};
    sscanf(text, "pid %ld host %127s since %39s", &holder->pid, holder->host, holder->since);
}

static void read_holder(int fd, struct er_fs_holder *holder) {
    char text[256];
    ssize_t count = pread(fd, text, sizeof text - 1, 0);
    text[count > 0 ? count : 0] = '\0';
    parse_holder(text, holder);
}

static int say_who(int fd) {
    char host[128] = "?", since[40], text[256];
    gethostname(host, sizeof host - 1);
    time_t now = time(NULL);
    struct tm tm;
    strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    int length = snprintf(text, sizeof text, "pid %ld host %s since %s\n", (long)getpid(), host, since);
    if (ftruncate(fd, 0) < 0) {
        return errno;
    }
    ssize_t written = pwrite(fd, text, (size_t)length, 0);
    return written == length ? 0 : written < 0 ? errno : ENOSPC;
}

enum er_status er_fs_lock(const char *path, int *fd, struct er_fs_holder *holder, struct er_fs_failure *failure) {
    int opened = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    if (opened < 0) {
        return failed(failure, "open", errno);
    }
    if (flock(opened, LOCK_EX | LOCK_NB) < 0) {
        int code = errno;
        read_holder(opened, holder);
        close(opened);
        failed(failure, "lock", code);
        return code == EWOULDBLOCK ? ER_CONFLICT : ER_INTERNAL;
    }
    int code = say_who(opened);
    if (code) {
        close(opened);
        return failed(failure, "lock", code);
    }
    *fd = opened;
    return ER_OK;
}

// The file stays: removing it would let two processes lock two files of one name.
void er_fs_unlock(int fd) {
    (void)!ftruncate(fd, 0);
    close(fd);
}
