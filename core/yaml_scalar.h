// SPDX-License-Identifier: Apache-2.0
// What a plain scalar means to kubectl (sigs.k8s.io/yaml over go.yaml.in/yaml/v2, which follows YAML 1.1).
#ifndef EIRUN_YAML_SCALAR_H
#define EIRUN_YAML_SCALAR_H

#include "er.h"

enum er_yaml_kind { ER_YAML_STRING, ER_YAML_NULL, ER_YAML_BOOLEAN, ER_YAML_INTEGER, ER_YAML_FLOAT };
struct er_yaml_scalar {
    enum er_yaml_kind kind;
    bool boolean;
    int64_t integer;
    double number; // may be infinite or NaN: the scalar says so itself
};
// ER_INVALID for an integer that 64 bits do not hold (kubectl makes a float of it, and loses digits).
enum er_status er_yaml_resolve(const char *text, size_t length, struct er_yaml_scalar *scalar);
// Whether some YAML reader takes the plain text for anything but the string: kubectl, or another version of YAML.
bool er_yaml_is_ambiguous(const char *text, size_t length);

#endif
