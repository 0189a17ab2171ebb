#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records what a real API server answers to tests/data/kube/requests.jsonl, for tests/lua/test_kube_recorded.lua.

    record_answers.py https://127.0.0.1:6443 ADMIN_TOKEN < requests.jsonl > answers.jsonl

A fresh kube-apiserver 1.36 without controllers; the namespace "cmp" is made by the requests. What differs from run to
run (uids, times, versions, addresses) is replaced by words.
"""
import json
import re
import ssl
import sys
import urllib.error
import urllib.request

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
ADDRESS = re.compile(r"\b(172|10)\.\d+\.\d+\.\d+\b")
WORDS = {"resourceVersion": "RV", "nodePort": "PORT"}


def writer(entry):
    return [entry.get(name, "") for name in ("operation", "manager", "subresource", "apiVersion")]


def normal(value, key=None):
    if key in WORDS and value is not None:
        return WORDS[key]
    if isinstance(value, dict):
        return {k: normal(v, k) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        entries = [normal(v) for v in value]
        # The server sorts by whole seconds first: what falls into one differs from run to run.
        return sorted(entries, key=writer) if key == "managedFields" else entries
    if isinstance(value, str):
        return ADDRESS.sub("IP", TIME.sub("TIME", UID.sub("UID", value)))
    return value


def call(server, token, row):
    data = row["text"].encode() if "text" in row else json.dumps(row["body"]).encode() if "body" in row else None
    headers = {"Authorization": "Bearer " + token, "Accept": "application/json", "User-Agent": "cmp/1"}
    if "type" in row:
        headers["Content-Type"] = row["type"]
    request = urllib.request.Request(server + row["path"], data=data, method=row["method"], headers=headers)
    try:
        reply = urllib.request.urlopen(request, context=ssl._create_unverified_context(), timeout=20)
    except urllib.error.HTTPError as error:
        reply = error
    body = reply.read().decode()
    try:
        value = normal(json.loads(body))
    except ValueError:
        value = body
    answer = {"status": reply.status, "body": value}
    warnings = reply.headers.get_all("Warning")
    if warnings:
        answer["warning"] = "\n".join(warnings)
    return answer


def record(server, token, requests):
    for line in requests:
        yield json.dumps(call(server, token, json.loads(line)), separators=(",", ":"), sort_keys=True)


if __name__ == "__main__":
    for answer in record(sys.argv[1], sys.argv[2], sys.stdin):
        print(answer)
