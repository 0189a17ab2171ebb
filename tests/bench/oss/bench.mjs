// SPDX-License-Identifier: Apache-2.0
// The official Node client, measured: as main.go.
import { createRequire } from "node:module";
import fs from "node:fs";

const OSS = createRequire(process.env.PEER_MODULES + "/")("ali-oss");
const [, , what, workers, path] = process.argv;
const client = new OSS({
  endpoint: process.env.OSS_ENDPOINT.replace("127.0.0.1", "localhost"), region: "oss-cn-hangzhou", sldEnable: true, authorizationV4: true,
  accessKeyId: process.env.OSS_KEY_ID, accessKeySecret: process.env.OSS_KEY_SECRET, bucket: process.env.OSS_BUCKET, timeout: 600000,
});
// nginx answers 201 and 204 where OSS says 200.
const request = client.request.bind(client);
client.request = (params) => request({ ...params, successStatuses: undefined });

async function tree() {
  const names = fs.readdirSync(path);
  let at = 0;
  const work = async () => {
    while (at < names.length) {
      const name = names[at++];
      await client.put("js/" + name, `${path}/${name}`);
    }
  };
  await Promise.all(Array.from({ length: Number(workers) }, work));
}

const started = process.hrtime.bigint();
if (what === "tree") await tree();
if (what === "one") await client.put("js.bin", path);
if (what === "parts") await client.multipartUpload("js.bin", path, { parallel: Number(workers), partSize: 8 << 20 });
console.log(Number(process.hrtime.bigint() - started) / 1e9);
process.exit(0);
