# SPDX-License-Identifier: Apache-2.0
"""The emulator's tables are what their scripts make of the pinned modules' own files."""
import os
import subprocess
import sys

import build
from common import ROOT, check

KUBE = os.path.join(ROOT, "lua/sandbox/kube")


def module(name):
    """The folder of a module in Go's module cache, as the pinned go.mod names it."""
    result = subprocess.run(["go", "list", "-m", "-f", "{{with .Replace}}{{.Dir}}{{else}}{{.Dir}}{{end}}", name],
                            cwd=os.path.join(build.HERE, "controlplane/k8s"), capture_output=True, text=True, env={**os.environ, "GOFLAGS": "-mod=mod"})
    folder = result.stdout.strip()
    if not os.path.isdir(folder):  # built long ago, the sources cleaned away since
        subprocess.run(["go", "mod", "download", name], cwd=os.path.join(build.HERE, "controlplane/k8s"), check=True)
    return folder


def made(script, *words, text=None):
    return subprocess.run([sys.executable, os.path.join(KUBE, script), *words], input=text, capture_output=True, text=True, check=True).stdout


def read(name):
    with open(os.path.join(KUBE, name)) as file:
        return file.read()


def fields_list_keys_and_patch_strategies_come_from_the_openapi_file(_, __):
    swagger = os.path.join(module("k8s.io/kubernetes"), "api/openapi-spec/swagger.json")
    check(made("gen_schema.py", swagger) == read("schema_data.lua"), "schema_data.lua is not what gen_schema.py makes")


def field_numbers_come_from_the_protobuf_files(_, __):
    folders = module("k8s.io/api"), module("k8s.io/apimachinery")
    check(made("gen_proto.py", *folders, text=read("schema_data.lua")) == read("proto_data.lua"), "proto_data.lua is not what gen_proto.py makes")


TESTS = [fields_list_keys_and_patch_strategies_come_from_the_openapi_file, field_numbers_come_from_the_protobuf_files]


def finish():
    pass
