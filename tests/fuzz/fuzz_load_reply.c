// SPDX-License-Identifier: Apache-2.0
// What a server may send to the load engine in HTTP/1.1: the input's first byte says where the answer is cut in two,
// the rest is the answer. Nothing may crash, leak or hang, and the request must have exactly one end.
#include "load_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void answer(int peer, const uint8_t *data, size_t size) {
    send_cut(peer, size ? data + 1 : data, size ? size - 1 : 0, size ? data[0] : 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    one_request(ER_LOAD_HTTP1, answer, data, size);
    return 0;
}
