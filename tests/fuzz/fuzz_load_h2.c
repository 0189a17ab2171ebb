// SPDX-License-Identifier: Apache-2.0
// The same in HTTP/2: after the server's settings, which open the door, come the input's frames. Their lengths are made
// right, so that what is in them is looked at.
#include "load_world.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FRAME = 9 };

// Type, flags, stream and length of each frame are the input's first four bytes of it; the payload follows.
static size_t frame(uint8_t *into, const uint8_t *data, size_t size) {
    size_t length = data[3] < size - 4 ? data[3] : size - 4;
    uint8_t head[FRAME] = {0, 0, (uint8_t)length, data[0], data[1], 0, 0, 0, data[2]};
    memcpy(into, head, FRAME);
    memcpy(into + FRAME, data + 4, length);
    return length;
}

static void answer(int peer, const uint8_t *data, size_t size) {
    static const uint8_t settings[FRAME] = {0, 0, 0, 4};
    static uint8_t out[1 << 16];
    send_cut(peer, settings, sizeof settings, 0);
    size_t length = 0;
    unsigned place = size ? data[0] : 0;
    for (size_t at = 1; at + 4 <= size && length + FRAME + 256 < sizeof out;) {
        size_t payload = frame(out + length, data + at, size - at);
        length += FRAME + payload;
        at += 4 + payload;
    }
    send_cut(peer, out, length, place);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    one_request(ER_LOAD_H2_PLAIN, answer, data, size);
    return 0;
}
