// SPDX-License-Identifier: Apache-2.0
// JSON passed over without being built: each function moves `at` behind what it names and says whether it was JSON (RFC
// 8259, UTF-8).
#ifndef EIRUN_KUBE_SCAN_H
#define EIRUN_KUBE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ER_SCAN_MAX_DEPTH 2048 // as the decoder's

struct er_scan {
    const unsigned char *at, *end;
    int depth;
};

void er_scan_space(struct er_scan *scan);
// A string with its quotes; `plain` says that no backslash is in it.
bool er_scan_string(struct er_scan *scan, bool *plain);
// Any value; `at` stands on its first byte.
bool er_scan_value(struct er_scan *scan);
// The byte, with the blanks before and behind it.
bool er_scan_byte(struct er_scan *scan, char byte);

#endif
