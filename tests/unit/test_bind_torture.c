// SPDX-License-Identifier: Apache-2.0
// Scripts over the bindings of client and processes, run with every allocation from the n-th on failing, for each n
// until one succeeds: nothing may crash, hang or leak, and a script that fails fails by an error.
#include "http_peer.h"
#include "script.h"

#include <signal.h>

enum { MOST_ALLOCATIONS = 3000 };

static bool succeeded;

// fail_from(n): allocations fail from the n-th on; 0 ends it
static int l_fail_from(lua_State *L) {
    er_mem_fail_from((uint64_t)luaL_checkinteger(L, 1));
    return 0;
}

static int l_succeeded(lua_State *L) {
    succeeded = lua_toboolean(L, 1);
    return 0;
}

static void prepare(struct er_vm *vm) {
    lua_State *L = vm->L;
    lua_setwarnf(L, NULL, NULL); // Lua warns where it has no memory for a finaliser's call
    lua_register(L, "fail_from", l_fail_from);
    lua_register(L, "succeeded", l_succeeded);
    lua_pushstring(L, socket_path);
    lua_setglobal(L, "socket_path");
}

static bool survives(const char *text, unsigned n) {
    char number[16];
    snprintf(number, sizeof number, "%u", n);
    succeeded = false;
    script_run(&(struct script){.text = text, .prepare = prepare, .argument = number}, false);
    return succeeded;
}

static void torture(const char *script) {
    unsigned n = 1;
    while (n <= MOST_ALLOCATIONS && !survives(script, n)) {
        n++;
    }
    CHECK(n > 10);
    CHECK(n <= MOST_ALLOCATIONS);
}

// Each body returns true when it got what it asked for; what it requires is loaded before memory runs out.
#define SCRIPT(modules, body)                                                                                          \
    "return function(n) " modules " local function body() " body " end "                                               \
    "fail_from(tonumber(n)) local ok, result = pcall(body) fail_from(0) succeeded(ok and result) end"
#define HTTP "local http = require 'eirun.core.http' http.routes{{host = 'a.test', unix = socket_path}} "

static void client_and_request(void) {
    torture(SCRIPT(HTTP,
                   "local c <close> = assert(http.client{ca_pem = 'x', user_agent = 'y'}) "
                   "local r = assert(c:request{url = 'http://a.test/ok', method = 'POST', body = 'b', timeout = 9, "
                   "headers = {b = '1', a = '2'}}) return r.body == 'ok'"));
}

static void stream(void) {
    torture(SCRIPT(HTTP "local c = assert(http.client()) ",
                   "local s <close> = assert(c:open{url = 'http://a.test/chunked'}) "
                   "local text = '' repeat local chunk, err = s:read(9) assert(not err, err) "
                   "text = text .. (chunk or '') until not chunk return text == 'abcde'"));
}

static void routes(void) {
    torture(SCRIPT(HTTP, "http.routes{{host = 'a', unix = '/x'}, {host = 'b', address = '127.0.0.1:1', port = 2}, "
                         "closed = true} return true"));
}

static void child(void) {
    torture(SCRIPT("local process = require 'eirun.core.process' ",
                   "local r = assert(process.run{'cat', stdin = 'hello', env = {A = '1'}, timeout = 9}) "
                   "return r.stdout == 'hello'"));
}

static void load_run(void) {
    torture(
        SCRIPT("local load = require 'eirun.core.load' ",
               "local run <close> = assert(load.start{pieces = {{1000, 1000, 0.005}}, timeout = 9, slices = {{0, 1}}, "
               "contains = 'ok', "
               "targets = {{unix = socket_path, requests = {'GET /ok HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'}}}}) "
               "while not run:wait(1) do end "
               "local state, series = run:state(), run:series() "
               "return state.slices[2].ok == 5 and #series == 1 and #run:histogram(2) > 0"));
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    start_server();
    int code = check_run((struct check_test[]){
        {"client_and_request", client_and_request},
        {"stream", stream},
        {"routes", routes},
        {"child", child},
        {"load_run", load_run},
        {0},
    });
    unlink(socket_path);
    return code;
}
