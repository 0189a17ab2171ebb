// SPDX-License-Identifier: Apache-2.0
// Scripts over the bindings of server and files while memory runs out.
#include "torture.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[64];

// serving(handler, request) -> the answer to one request
#define SERVER                                                                                                         \
    "local fs, http, httpd = require 'eirun.core.fs', require 'eirun.core.http', require 'eirun.core.httpd' "          \
    "local task = require 'eirun.task' local socket = place .. '/s' "                                                  \
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
                           "local r = assert(req:body_to_file(place .. '/in', {digest = {'md5', 'crc64'}})) "
                           "assert(req:respond_file(200, nil, place .. '/in', 0, r.size)) end, "
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
                   "local dir = place .. '/d/e' assert(fs.mkdir(dir, {parents = true})) "
                   "assert(fs.write(dir .. '/f', ('y'):rep(300000))) assert(fs.append(dir .. '/f', 'z')) "
                   "local lock <close> = assert(fs.lock(dir .. '/lock')) local none, err = fs.lock(dir .. '/lock') "
                   "local list, sum = assert(fs.list(dir)), assert(fs.digest(dir .. '/f', {'md5', 'crc64'})) "
                   "local text = assert(fs.read(dir .. '/f')) assert(fs.realpath(dir)) assert(fs.stat(dir)) "
                   "assert(fs.remove(place .. '/d', {recursive = true})) "
                   "return #text == 300001 and sum.size == 300001 and #list == 2 and err.holder ~= nil"));
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    snprintf(folder, sizeof folder, "/tmp/eirun-test-XXXXXX");
    if (!mkdtemp(folder)) {
        return 1;
    }
    torture_place = folder;
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
