// SPDX-License-Identifier: Apache-2.0
// Requests made from a seed, signed and sent by the official client to a recorder on loopback; one JSON object a line says what was
// asked for and what came over the wire.
//   node cases.js COUNT SEED
'use strict';
const http = require('http');
const core = require('@alicloud/openapi-core');

const { $OpenApiUtil, OpenApiUtil } = core;
const Client = core.default;

// mulberry32
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

const letters = [..."abcXYZ019-_.~ !'()*+/%?&=#;:@$,\"<>\\^`{|}[]", '\n', '\t', 'é', '中', '推理', '😀', '\u0000', '\u007f'];
const random = generator(Number(process.argv[3]));
const below = (n) => Math.floor(random() * n);
const pick = (list) => list[below(list.length)];
const text = (most) => Array.from({ length: below(most + 1) }, () => pick(letters)).join('');
const name = () => pick(['RegionId', 'Tag', 'InstanceIds', 'nodepool_id', 'pageSize', 'Filter', 'a', 'B', 'name_with_underscore']) + below(3);

function scalar() {
  return pick([() => text(12), () => '', () => below(1000), () => random() < 0.5, () => text(40), () => JSON.stringify([text(3), text(3)])])();
}

function value(depth) {
  const kind = depth > 0 ? below(6) : 0;
  if (kind === 4) return Array.from({ length: 1 + below(3) }, () => value(depth - 1));
  if (kind === 5) return Object.fromEntries(Array.from({ length: 1 + below(3) }, () => [name(), value(depth - 1)]));
  return scalar();
}

function map(depth, most) {
  return Object.fromEntries(Array.from({ length: below(most + 1) }, () => [name(), value(depth)]));
}

// What a case asks for, in words that both sides understand.
function make(id) {
  const style = pick(['RPC', 'ROA']);
  const made = { id, style, action: pick(['DescribeInstances', 'CreateClusterNodePool', 'X']), version: '2014-05-26',
    token: random() < 0.3, query: style === 'RPC' ? map(2, 6) : map(0, 6) };
  if (style === 'ROA') {
    made.method = pick(['GET', 'POST', 'PUT', 'DELETE']);
    made.segments = Array.from({ length: 1 + below(3) }, () => text(8) || 'x').filter((s) => s !== '.' && s !== '..');
  } else {
    made.method = 'POST';
  }
  if (made.method === 'POST' || made.method === 'PUT') {
    const kind = below(3);
    if (kind === 0) made.json = map(3, 5);
    if (kind === 1) made.form = map(2, 5);
  }
  return made;
}

// A segment as the generated clients encode it.
const encoded = (segment) => encodeURIComponent(segment).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());

function recorder() {
  let wake;
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      response.setHeader('content-type', 'application/json');
      response.end('{}');
      wake({ method: request.method, target: request.url, headers: request.rawHeaders, body: Buffer.concat(parts).toString('base64') });
    });
  });
  return { server, next: () => new Promise((resolve) => { wake = resolve; }) };
}

async function send(made, port, recorded) {
  const config = new $OpenApiUtil.Config({ accessKeyId: 'LTAI5tEXAMPLEKEYID000001', accessKeySecret: 'ExampleSecretForVectorsOnly0001',
    endpoint: `127.0.0.1:${port}`, protocol: 'HTTP', regionId: 'cn-hangzhou' });
  if (made.token) Object.assign(config, { securityToken: 'CAIS+token/example==', type: 'sts' });
  const client = new Client(config);
  const request = new $OpenApiUtil.OpenApiRequest({});
  if (Object.keys(made.query).length) request.query = OpenApiUtil.query(made.query);
  if (made.json) request.body = made.json;
  if (made.form) request.body = OpenApiUtil.query(made.form);
  const params = new $OpenApiUtil.Params({ action: made.action, version: made.version, protocol: 'HTTP', method: made.method, authType: 'AK',
    style: made.style, pathname: made.style === 'RPC' ? '/' : '/' + made.segments.map(encoded).join('/'),
    reqBodyType: made.form ? 'formData' : 'json', bodyType: 'json' });
  const wire = recorded.next();
  await client.callApi(params, request, { });
  return wire;
}

async function main() {
  const recorded = recorder();
  await new Promise((resolve) => recorded.server.listen(0, '127.0.0.1', resolve));
  for (let id = 1; id <= Number(process.argv[2]); id++) {
    const made = make(id);
    const wire = await send(made, recorded.server.address().port, recorded);
    process.stdout.write(JSON.stringify({ ...made, wire }) + '\n');
  }
  recorded.server.close();
  recorded.server.closeAllConnections();
}

main().catch((error) => { console.error(error); process.exit(1); });
