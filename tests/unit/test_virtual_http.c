// SPDX-License-Identifier: Apache-2.0
// Client, server and child processes under the virtual clock: time passes only when nothing else can happen.
#include "script.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const int64_t DATE = 2051222400LL * 1000000000; // 2035-01-01

#define HEAD                                                                                                           \
    "local http, httpd = require 'eirun.core.http', require 'eirun.core.httpd' "                                       \
    "local task, crypto = require 'eirun.task', require 'eirun.core.crypto' "                                          \
    "local facts = require 'eirun.core.os' "                                                                           \
    "local function serving(options, handler, fn) "                                                                    \
    "  local server <close> = assert(httpd.listen(options)) "                                                          \
    "  if options.unix then http.routes{{host = '*', unix = options.unix}, closed = true} end "                        \
    "  task.race{function() httpd.serve(server, handler) end, function() fn(server) end} "                             \
    "end "                                                                                                             \
    "local function expect(got, wanted) "                                                                              \
    "  if got ~= wanted then error(string.format('%s is not %s', got, wanted), 2) end "                                \
    "end "                                                                                                             \
    "local socket = '/tmp/eirun-virtual-' .. require('eirun.core.process').pid() "                                     \
    "return function(machine_date) local from, real = task.now(), facts.monotonic() "
#define TAIL " end"

static void check_script(const char *text) {
    char date[32];
    snprintf(date, sizeof date, "%lld", (long long)time(NULL));
    CHECK(script_run(&(struct script){.text = text, .virtual_now = DATE, .argument = date}, true));
}

static void long_answers_take_no_real_time(void) {
    check_script(HEAD
                 "serving({unix = socket}, function(req) task.sleep(50) req:respond(200, {}, 'late') end, function() "
                 "  local c <close> = http.client() "
                 "  expect(assert(c:request{url = 'http://a.test/'}).body, 'late') "
                 "  expect(task.now() - from, 50.0) "
                 "end) assert(facts.monotonic() - real < 5)" TAIL);
}

static void deadlines_pass_to_the_nanosecond(void) {
    check_script(HEAD "serving({unix = socket}, function(req) task.sleep(1000) end, function() "
                      "  local c <close> = http.client() "
                      "  local _, err = c:request{url = 'http://a.test/', timeout = 30} "
                      "  expect(err.kind, 'timeout') expect(task.now() - from, 30.0) "
                      "  _, err = c:request{url = 'http://a.test/'} " // the default stall limit
                      "  expect(err.kind, 'timeout') expect(task.now() - from, 90.0) "
                      "end)" TAIL);
}

static void many_requests_at_once_take_no_time(void) {
    check_script(HEAD "serving({unix = socket}, function(req) req:respond(200, {}, req.path) end, function() "
                      "  local c <close> = http.client() "
                      "  local list = {} for i = 1, 300 do list[i] = i end "
                      "  task.race{function() task.sleep(0.001) error('the clock moved') end, function() "
                      "    task.map(list, function(i) assert(c:request{url = 'http://a.test/' .. i}) end) "
                      "  end} expect(task.now(), from) "
                      "end)" TAIL);
}

#define TLS                                                                                                            \
    "local function tls(at) "                                                                                          \
    "  local ca = assert(crypto.ca_create{name = 'ca', not_before = at - 100, not_after = at + 1000}) "                \
    "  local cert = assert(crypto.cert_issue{ca = ca, names = {'a.test'}, cn = 'a.test', not_before = at - 100, "      \
    "    not_after = at + 1000}) "                                                                                     \
    "  return ca.cert_pem, {unix = socket, tls = {cert_pem = cert.cert_pem, key_pem = cert.key_pem}} "                 \
    "end "                                                                                                             \
    "local function answer(req) req:respond(200, {}, 'ok') end "

static void certificates_are_judged_by_the_runs_clock(void) {
    check_script(HEAD TLS "local ca, options = tls(from) serving(options, answer, function() "
                          "  local c <close> = assert(http.client{ca_pem = ca}) "
                          "  expect(assert(c:request{url = 'https://a.test/'}).body, 'ok') "
                          "  expect(task.now(), from) "
                          "  task.sleep(2000) "
                          "  local fresh <close> = assert(http.client{ca_pem = ca}) "
                          "  local _, err = fresh:request{url = 'https://a.test/'} "
                          "  assert(err.message:find('certificate has expired'), err.message) "
                          "end)" TAIL);
}

static void certificate_of_the_machines_time_is_refused(void) {
    check_script(HEAD TLS "local ca, options = tls(tonumber(machine_date)) serving(options, answer, function() "
                          "  local c <close> = assert(http.client{ca_pem = ca}) "
                          "  local _, err = c:request{url = 'https://a.test/'} "
                          "  assert(err.message:find('certificate has expired'), err.message) "
                          "end)" TAIL);
}

static void children_hold_the_clock(void) {
    check_script(HEAD "local process, order = require 'eirun.core.process', {} "
                      "task.together(function(all) "
                      "  all(function() task.sleep(1000) order[#order + 1] = 'sleep' end) "
                      "  all(function() assert(process.run{'sleep', '0.2'}) order[#order + 1] = 'child' end) "
                      "end) expect(table.concat(order, ' '), 'child sleep') expect(task.now() - from, 1000.0)" TAIL);
}

static void tcp_within_the_program_takes_no_real_time(void) {
    check_script(HEAD
                 "serving({host = '127.0.0.1', port = 0}, function(req) task.sleep(50) req:respond(200, {}, 'late') "
                 "end, function(server) "
                 "  local c <close> = http.client() "
                 "  local url = 'http://127.0.0.1:' .. server.port .. '/' "
                 "  expect(assert(c:request{url = url}).body, 'late') "
                 "  expect(task.now() - from, 50.0) "
                 "  local _, err = c:request{url = url, timeout = 20} "
                 "  expect(err.kind, 'timeout') expect(task.now() - from, 70.0) "
                 "end) assert(facts.monotonic() - real < 5)" TAIL);
}

// A socket that listens and says nothing: to the program this peer is another one.
static int listen_in_silence(char *url, size_t size) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 8) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    snprintf(url, size, "http://127.0.0.1:%d/", ntohs(address.sin_port));
    return fd;
}

static void peer_or_child_that_hangs_is_given_up_in_real_time(void) {
    char url[64];
    int fd = listen_in_silence(url, sizeof url);
    struct script script = {.text = HEAD
                            "local _, err = require('eirun.core.process').run{'sleep', '60', timeout = 0.2} "
                            "expect(err.kind, 'timeout') "
                            "local c <close> = http.client() "
                            "_, err = c:request{url = machine_date, timeout = 0.2} "
                            "expect(err.kind, 'timeout') expect(task.now(), from) "
                            "local passed = facts.monotonic() - real assert(passed > 0.3 and passed < 9, passed)" TAIL,
                            .virtual_now = DATE,
                            .argument = url};
    CHECK(script_run(&script, true));
    close(fd);
}

int main(void) {
    signal(SIGPIPE, SIG_IGN);
    return check_run((struct check_test[]){
        {"long_answers_take_no_real_time", long_answers_take_no_real_time},
        {"deadlines_pass_to_the_nanosecond", deadlines_pass_to_the_nanosecond},
        {"many_requests_at_once_take_no_time", many_requests_at_once_take_no_time},
        {"certificates_are_judged_by_the_runs_clock", certificates_are_judged_by_the_runs_clock},
        {"certificate_of_the_machines_time_is_refused", certificate_of_the_machines_time_is_refused},
        {"children_hold_the_clock", children_hold_the_clock},
        {"tcp_within_the_program_takes_no_real_time", tcp_within_the_program_takes_no_real_time},
        {"peer_or_child_that_hangs_is_given_up_in_real_time", peer_or_child_that_hangs_is_given_up_in_real_time},
        {0},
    });
}
