// SPDX-License-Identifier: Apache-2.0
// ali-oss as a peer: a list of operations comes as JSON on standard input, the results go as JSON to standard output.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.env.PEER_MODULES + "/");
const OSS = require("ali-oss");
const PART = 1 << 20;
const env = process.env;
const client = new OSS({ endpoint: env.OSS_ENDPOINT, region: "oss-" + env.OSS_REGION, bucket: env.OSS_BUCKET, accessKeyId: env.OSS_KEY_ID,
  accessKeySecret: env.OSS_KEY_SECRET, authorizationV4: env.OSS_SIGNATURE !== "v1", secure: false });

let checkpoint;

const actions = {
  put: (o) => client.put(o.Key, o.File),
  multipart: (o) => client.multipartUpload(o.Key, o.File, { partSize: PART, parallel: 3, checkpoint }),
  async stopped(o) {
    const progress = (share, point) => {
      checkpoint = point;
      if (point && point.doneParts.length >= o.Parts) client.cancel();
    };
    try {
      await client.multipartUpload(o.Key, o.File, { partSize: PART, parallel: 1, progress });
    } catch (err) {
      if (err.name !== "cancel") throw err;
      return;
    }
    throw new Error("the upload was to stop");
  },
  async begin(o) {
    const { uploadId } = await client.initMultipartUpload(o.Key);
    for (let number = 1; number <= o.Parts; number++) {
      await client.uploadPart(o.Key, uploadId, number, o.File, (number - 1) * PART, number * PART);
    }
    return uploadId;
  },
  get: (o) => client.get(o.Key, o.File),
  async list(o) {
    const found = [];
    let token;
    do {
      const query = { prefix: o.Prefix, "max-keys": 3 };
      if (token) query["continuation-token"] = token;
      const page = await client.listV2(query);
      for (const each of page.objects || []) found.push({ key: each.name, size: each.size, etag: each.etag.replaceAll('"', "") });
      token = page.nextContinuationToken;
    } while (token);
    return found;
  },
  async delete(o) {
    await client.delete(o.Keys[0]);
    if (o.Keys.length > 1) await client.deleteMulti(o.Keys.slice(1), { quiet: true });
  },
};

const silent = new Set(["put", "multipart", "get"]);
const results = [];
for (const o of JSON.parse(readFileSync(0, "utf8"))) {
  const result = await actions[o.Op](o);
  results.push(silent.has(o.Op) ? null : (result ?? null));
}
console.log(JSON.stringify(results));
