// SPDX-License-Identifier: Apache-2.0
// eirun.core.term: what the live view needs to know of the terminal.
#include "bind.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { WIDTH_UNKNOWN = 80 };

// isatty(fd) -> boolean
static int l_isatty(lua_State *L) {
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

// width([fd]) -> columns; 80 where there is no terminal
static int l_width(lua_State *L) {
    struct winsize size = {0};
    int fd = (int)luaL_optinteger(L, 1, STDOUT_FILENO);
    int known = ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    lua_pushinteger(L, known ? size.ws_col : WIDTH_UNKNOWN);
    return 1;
}

// height([fd]) -> rows; nil where there is no terminal
static int l_height(lua_State *L) {
    struct winsize size = {0};
    int fd = (int)luaL_optinteger(L, 1, STDOUT_FILENO);
    if (ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_row == 0) {
        return 0;
    }
    lua_pushinteger(L, size.ws_row);
    return 1;
}

// A terminal or pipe that somebody made non-blocking is waited for: output is short, and losing it is worse.
static int write_all(int fd, const char *bytes, size_t length) {
    while (length) {
        ssize_t written = write(fd, bytes, length);
        if (written >= 0) {
            bytes += written;
            length -= (size_t)written;
        } else if (errno == EAGAIN) {
            poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static int push_failure(lua_State *L, int code, int fd) {
    return er_push_errno(L, code, "write to",
                         fd == STDOUT_FILENO ? "/dev/stdout" : lua_pushfstring(L, "/dev/fd/%d", fd));
}

// What went wrong first with the standard output. A reader that left early has what it wanted.
static int lost;

static int tell(int fd, const char *bytes, size_t length) {
    int code = write_all(fd, bytes, length);
    if (code && code != EPIPE && fd == STDOUT_FILENO && !lost) {
        lost = code;
    }
    return code;
}

static int written(lua_State *L, const char *bytes, size_t length) {
    int fd = (int)luaL_checkinteger(L, 1);
    int code = tell(fd, bytes, length);
    if (code) {
        return push_failure(L, code, fd);
    }
    lua_pushboolean(L, true);
    return 1;
}

// write(fd, text) -> true | nil, err
static int l_write(lua_State *L) {
    size_t length = 0;
    const char *bytes = luaL_checklstring(L, 2, &length);
    return written(L, bytes, length);
}

// reveal(fd, secret) -> true | nil, err; its own name, so that no secret is written by mistake
static int l_reveal(lua_State *L) {
    size_t length = 0;
    const char *bytes = er_check_bytes(L, 2, &length);
    return written(L, bytes, length);
}

// lost() -> nil | err
static int l_lost(lua_State *L) { return lost ? (push_failure(L, lost, STDOUT_FILENO), 1) : 0; }

int er_print(lua_State *L) {
    int count = lua_gettop(L);
    luaL_Buffer text;
    luaL_buffinit(L, &text);
    for (int i = 1; i <= count; i++) {
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&text);
        luaL_addchar(&text, i < count ? '\t' : '\n');
    }
    if (!count) {
        luaL_addchar(&text, '\n');
    }
    luaL_pushresult(&text);
    size_t length = 0;
    const char *bytes = lua_tolstring(L, -1, &length);
    tell(STDOUT_FILENO, bytes, length);
    return 0;
}

int luaopen_eirun_core_term(lua_State *L);
int luaopen_eirun_core_term(lua_State *L) {
    static const luaL_Reg functions[] = {{"isatty", l_isatty}, {"width", l_width},   {"height", l_height},
                                         {"write", l_write},   {"reveal", l_reveal}, {"lost", l_lost},
                                         {NULL, NULL}};
    luaL_newlib(L, functions);
    return 1;
}
