// SPDX-License-Identifier: Apache-2.0
// ISA-L computes, with the widest carry-less multiply that the processor has (8 GB/s a core with 128 bits, 60 with 512,
// where liblzma has 5.5), and with a table where it has none. Combining is ours: no library has it.
#include "crypto.h"

#include <isa-l/crc64.h>

#define POLYNOMIAL 0xC96C5795D7870F42u // ECMA-182, reflected: bit 63 is x^0

uint64_t er_crc64(uint64_t crc, const void *bytes, size_t length) { return crc64_ecma_refl(crc, bytes, length); }

// a times b modulo the polynomial.
static uint64_t multiply(uint64_t a, uint64_t b) {
    uint64_t product = 0;
    for (uint64_t bit = (uint64_t)1 << 63; a; bit >>= 1) {
        if (a & bit) {
            product ^= b;
            a ^= bit;
        }
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

// Appending n zero bytes multiplies by x^(8n): squares of x^8, one for each bit of n.
uint64_t er_crc64_combine(uint64_t a, uint64_t b, uint64_t length_of_b) {
    uint64_t square = (uint64_t)1 << 55;
    for (uint64_t rest = length_of_b; rest; rest >>= 1) {
        if (rest & 1) {
            a = multiply(square, a);
        }
        square = multiply(square, square);
    }
    return a ^ b;
}
