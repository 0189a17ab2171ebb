// SPDX-License-Identifier: Apache-2.0
// Scripts over the bindings of server and files, run with every allocation from the n-th on failing, for each n until
// one succeeds: nothing may crash, hang or leak, and a script that fails fails by an error.
#include "script.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_ALLOCATIONS = 6000 };

static bool succeeded;
static char folder[64];

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
    lua_pushstring(L, folder);
    lua_setglobal(L, "folder");
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
    CHECK(n > 5);
    CHECK(n <= MOST_ALLOCATIONS);
}

// Each body returns true when it got what it asked for; what it requires is loaded before memory runs out.
#define SCRIPT(modules, body)                                                                                          \
    "return function(n) " modules " local function body() " body " end "                                               \
    "fail_from(tonumber(n)) local ok, result = pcall(body) fail_from(0) succeeded(ok and result) end"

// serving(handler, request) -> the answer to one request
#define SERVER                                                                                                         \
    "local fs, http, httpd = require 'eirun.core.fs', require 'eirun.core.http', require 'eirun.core.httpd' "          \
    "local task = require 'eirun.task' local socket = folder .. '/s' "                                                 \
    "http.routes{{host = 'a.test', unix = socket}} "                                                                   \
    "local function serving(handler, options) local answer "                                                           \
    "local server <close> = assert(httpd.listen{unix = socket, tls = options.tls}) options.tls = nil "                 \
    "local function ask() local c <close> = assert(http.client{ca_pem = options.ca_pem}) options.ca_pem = nil "        \
    "options.timeout = 9 answer = assert(c:request(options)) end "                                                     \
    "task.race{function() httpd.serve(server, handler, {on_error = function() end}) end, ask} return answer end "

static void body_and_reply(void) {
    torture(SCRIPT(SERVER,
                   "local a = serving(function(req) "
                   "assert(req:respond(200, {B = req.headers:get 'x', A = req:query().q}, assert(req:body()))) end, "
                   "{url = 'http://a.test/?q=%41', method = 'POST', body = 'text', headers = {x = 'y'}}) "
                   "return a.body == 'text' and a.headers:get 'a' == 'A' and a.headers:get 'b' == 'y'"));
}

static void chunks(void) {
    torture(SCRIPT(
        SERVER, "local a = serving(function(req) assert(req:start(200)) assert(req:write 'ab') "
                "assert(req:write 'cd') assert(req:finish()) end, {url = 'http://a.test/'}) return a.body == 'abcd'"));
}

static void files(void) {
    torture(SCRIPT(SERVER, "local text = ('x'):rep(300000) local a = serving(function(req) "
                           "local r = assert(req:body_to_file(folder .. '/in', {digest = {'md5', 'crc64'}})) "
                           "assert(req:respond_file(200, nil, folder .. '/in', 0, r.size)) end, "
                           "{url = 'http://a.test/', method = 'PUT', body = text}) return a.body == text"));
}

static void tls(void) {
    torture(SCRIPT(
        SERVER
        "local crypto = require 'eirun.core.crypto' "
        "local ca = crypto.ca_create{name = 'x', not_before = 0, not_after = 4e9} "
        "local cert = crypto.cert_issue{ca = ca, names = {'a.test'}, cn = 'a', not_before = 0, not_after = 4e9} ",
        "local a = serving(function(req) assert(req:respond(200, nil, req.sni)) end, "
        "{url = 'https://a.test/', tls = cert, ca_pem = ca.cert_pem}) return a.body == 'a.test'"));
}

static void file_functions(void) {
    torture(SCRIPT(SERVER,
                   "local dir = folder .. '/d/e' assert(fs.mkdir(dir, {parents = true})) "
                   "assert(fs.write(dir .. '/f', ('y'):rep(300000))) assert(fs.append(dir .. '/f', 'z')) "
                   "local lock <close> = assert(fs.lock(dir .. '/lock')) local none, err = fs.lock(dir .. '/lock') "
                   "local list, sum = assert(fs.list(dir)), assert(fs.digest(dir .. '/f', {'md5', 'crc64'})) "
                   "local text = assert(fs.read(dir .. '/f')) assert(fs.realpath(dir)) assert(fs.stat(dir)) "
                   "assert(fs.remove(folder .. '/d', {recursive = true})) "
                   "return #text == 300001 and sum.size == 300001 and #list == 2 and err.holder ~= nil"));
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    snprintf(folder, sizeof folder, "/tmp/eirun-test-XXXXXX");
    if (!mkdtemp(folder)) {
        return 1;
    }
    int code = check_run((struct check_test[]){
        {"body_and_reply", body_and_reply},
        {"chunks", chunks},
        {"files", files},
        {"tls", tls},
        {"file_functions", file_functions},
        {0},
    });
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) == 0 ? code : 1;
}
