// SPDX-License-Identifier: Apache-2.0
// Scripts over the bindings of client and processes while memory runs out.
#include "http_peer.h"
#include "torture.h"

#include <signal.h>

#define HTTP "local http = require 'eirun.core.http' http.routes{{host = 'a.test', unix = place}} "

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
               "targets = {{unix = place, requests = {'GET /ok HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n'}}}}) "
               "while not run:wait(1) do end "
               "local state, series = run:state(), run:series() "
               "return state.slices[2].ok == 5 and #series == 1 and #run:histogram(2) > 0"));
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    start_server();
    torture_place = socket_path;
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
