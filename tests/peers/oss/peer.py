# SPDX-License-Identifier: Apache-2.0
"""The official Python SDK v2 as a peer: operations come as JSON on standard input, results go as JSON to standard output."""
import json
import os
import sys

import alibabacloud_oss_v2 as oss

PART = 1 << 20
BUCKET = os.environ["OSS_BUCKET"]


class Failing:
    """A network that is lost after so many parts."""

    def __init__(self, inner, left):
        self.inner, self.left = inner, left

    def send(self, request, **kwargs):
        if "partNumber=" in request.url:
            self.left -= 1
            if self.left < 0:
                raise RuntimeError("stopped on purpose")
        return self.inner.send(request, **kwargs)

    def __getattr__(self, name):
        return getattr(self.inner, name)


def connect(stop_at=0):
    config = oss.config.load_default()
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(os.environ["OSS_KEY_ID"], os.environ["OSS_KEY_SECRET"])
    config.region, config.endpoint = os.environ["OSS_REGION"], os.environ["OSS_ENDPOINT"]
    if stop_at:
        from alibabacloud_oss_v2.transport import RequestsHttpClient
        config.http_client, config.retry_max_attempts = Failing(RequestsHttpClient(), stop_at), 1
    return oss.Client(config)


def upload(o, stop_at=0):
    uploader = oss.Uploader(connect(stop_at), part_size=PART, parallel_num=1 if stop_at else 3, enable_checkpoint=True,
                            checkpoint_dir=o["Dir"])
    uploader.upload_file(oss.PutObjectRequest(bucket=BUCKET, key=o["Key"]), o["File"])


def put(client, o):
    client.put_object_from_file(oss.PutObjectRequest(bucket=BUCKET, key=o["Key"]), o["File"])


def stopped(_client, o):
    try:
        upload(o, o["Parts"])
    except Exception:
        return
    raise RuntimeError("the upload was to fail")


def begin(client, o):
    upload_id = client.initiate_multipart_upload(oss.InitiateMultipartUploadRequest(bucket=BUCKET, key=o["Key"])).upload_id
    with open(o["File"], "rb") as file:
        for number in range(1, o["Parts"] + 1):
            client.upload_part(oss.UploadPartRequest(bucket=BUCKET, key=o["Key"], upload_id=upload_id, part_number=number,
                                                     body=file.read(PART)))
    return upload_id


def get(client, o):
    oss.Downloader(client, part_size=PART).download_file(oss.GetObjectRequest(bucket=BUCKET, key=o["Key"]), o["File"])


def list_objects(client, o):
    found = []
    for page in client.list_objects_v2_paginator().iter_page(oss.ListObjectsV2Request(bucket=BUCKET, prefix=o["Prefix"], max_keys=3)):
        found += [{"key": each.key, "size": each.size, "etag": each.etag.strip('"')} for each in page.contents or []]
    return found


def delete(client, o):
    client.delete_object(oss.DeleteObjectRequest(bucket=BUCKET, key=o["Keys"][0]))
    rest = [oss.DeleteObject(key=key) for key in o["Keys"][1:]]
    if rest:
        client.delete_multiple_objects(oss.DeleteMultipleObjectsRequest(bucket=BUCKET, objects=rest))


ACTIONS = {"put": put, "multipart": lambda _client, o: upload(o), "stopped": stopped, "begin": begin, "get": get, "list": list_objects,
           "delete": delete}


def main():
    client = connect()
    print(json.dumps([ACTIONS[o["Op"]](client, o) for o in json.load(sys.stdin)]))


main()
