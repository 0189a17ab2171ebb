// SPDX-License-Identifier: Apache-2.0
// A serving sandbox, clients of it, and counting.
'use strict';
const assert = require('node:assert');
const { spawn, spawnSync } = require('node:child_process');
const dns = require('node:dns');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const os = require('node:os');
const path = require('node:path');
const CS = require('@alicloud/cs20151215');
const ECS = require('@alicloud/ecs20140526');
const STS = require('@alicloud/sts20150401');
const core = require('@alicloud/openapi-core');
const { $OpenApiUtil } = core;

const root = path.resolve(__dirname, '../../..');
const eirun = process.env.EIRUN || path.join(root, 'build/release/eirun');
const tests = [];

// Names of the log service mean the loopback: nothing here may leave this machine.
const lookup = dns.lookup;
dns.lookup = (name, options, done) => {
  if (typeof options === 'function') [options, done] = [{}, options];
  if (!name.endsWith('.aliyuncs.com')) return lookup(name, options, done);
  return options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4);
};

// The sandbox's time runs faster than ours, and signatures carry the time: from here on this program lives in it.
function adopt({ now, factor }) {
  const Real = Date;
  const began = performance.now();
  const time = () => Math.floor(now * 1000 + (performance.now() - began) * factor);
  globalThis.Date = class extends Real {
    constructor(...given) {
      if (given.length) super(...given); else super(time());
    }

    static now() { return time(); }
  };
}

// The sandbox's authority, for packages that take none.
function trust(ca) {
  const request = https.request;
  https.request = (options, ...rest) => request({ ...options, ca: options.ca || ca }, ...rest);
}

function test(name, fn) { tests.push({ name, fn }); }

function sleep(seconds) { return new Promise((resolve) => setTimeout(resolve, seconds * 1000)); }

async function until(what, check, seconds = 60) {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const value = await check();
    if (value) return value;
    if (performance.now() > end) throw new Error(`waited ${seconds} s in vain for ${what}`);
    await sleep(0.25);
  }
}

// The error of a call that must fail: its code, whatever the package calls it.
async function refused(promise) {
  try {
    await promise;
  } catch (err) {
    return { code: err.code || (err.data && (err.data.Code || err.data.code)), status: err.statusCode || (err.data && err.data.statusCode),
      message: err.message, err };
  }
  throw new assert.AssertionError({ message: 'the call was not refused' });
}

class Box {
  async start() {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'eirun-peer-'));
    this.child = spawn(eirun, ['sandbox', 'serve', this.dir, '--clock', '20x'], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve, reject) => {
      this.child.stdout.once('data', resolve);
      this.child.once('exit', (code) => reject(new Error(`eirun sandbox serve ended with ${code}`)));
    });
    this.facts = JSON.parse(fs.readFileSync(path.join(this.dir, 'serve.json')));
    trust(fs.readFileSync(this.facts.ca_file));
    const clock = await fetch(`http://${this.endpoint('control')}/clock`, { headers: { 'x-sandbox-token': this.facts.control_token } });
    adopt(await clock.json());
    this.id = this.facts.cluster_id;
    this.region = this.facts.region;
    this.keys = { accessKeyId: this.facts.access_key_id, accessKeySecret: this.facts.access_key_secret };
  }

  endpoint(product, scheme = 'plain') { return `127.0.0.1:${this.facts.ports[product][scheme]}`; }

  config(product, change = {}) {
    return new $OpenApiUtil.Config({ ...this.keys, regionId: this.region, endpoint: this.endpoint(product), protocol: 'HTTP', ...change });
  }

  cs(change) { return new CS.default(this.config('CS', change)); }
  ecs(change) { return new ECS.default(this.config('ECS', change)); }
  sts(change) { return new STS.default(this.config('STS', change)); }

  // ESS and RAM have no package of their own on npm: the generic client.
  async rpc(product, version, action, query = {}, change) {
    const client = new core.default(this.config(product, change));
    const params = new $OpenApiUtil.Params({ action, version, protocol: 'HTTP', pathname: '/', method: 'POST', authType: 'AK', style: 'RPC',
      reqBodyType: 'formData', bodyType: 'json' });
    const answer = await client.callApi(params, new $OpenApiUtil.OpenApiRequest({ query }), runtime());
    return answer.body;
  }

  ess(action, query) { return this.rpc('ESS', '2022-02-22', action, { RegionId: this.region, ...query }); }

  fault(...words) {
    const done = spawnSync(eirun, ['sandbox', 'fault', this.dir, ...words], { encoding: 'utf8', timeout: 20000 });
    assert.equal(done.status, 0, done.stderr);
  }

  eirun(...words) { return spawnSync(eirun, words, { encoding: 'utf8', timeout: 90000, cwd: root }); }

  async task(id) {
    const info = await until(`task ${id}`, async () => {
      const { body } = await this.cs().describeTaskInfo(id);
      return body.state !== 'running' && body;
    });
    return info.state;
  }

  stop() {
    if (this.child) this.child.kill('SIGTERM');
    if (this.dir) fs.rmSync(this.dir, { recursive: true, force: true });
  }
}

function runtime() {
  const { RuntimeOptions } = require('@darabonba/typescript');
  return new RuntimeOptions({ readTimeout: 20000, connectTimeout: 5000 });
}

// Between a client and the sandbox: `change(request)` may alter what was signed or send it twice.
async function between(address, change, use) {
  const [host, port] = address.split(':');
  const send = (request) => new Promise((resolve, reject) => {
    const out = http.request({ host, port, method: request.method, path: request.path, headers: request.headers }, (reply) => {
      const parts = [];
      reply.on('data', (part) => parts.push(part));
      reply.on('end', () => resolve({ status: reply.statusCode, headers: reply.headers, body: Buffer.concat(parts) }));
    });
    out.on('error', reject);
    out.end(request.body);
  });
  const server = http.createServer((req, res) => {
    const parts = [];
    req.on('data', (part) => parts.push(part));
    req.on('end', async () => {
      const headers = { ...req.headers };
      delete headers['transfer-encoding'];
      const reply = await change({ method: req.method, path: req.url, headers, body: Buffer.concat(parts) }, send);
      res.writeHead(reply.status, reply.headers);
      res.end(reply.body);
    });
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    return await use(`127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function main(box) {
  let passed = 0;
  let failed = 0;
  try {
    await box.start();
    for (const { name, fn } of tests) {
      if (process.argv[2] && !name.includes(process.argv[2])) continue;
      try {
        await fn();
        passed += 1;
      } catch (err) {
        failed += 1;
        console.log(`failed: ${name}\n${err.stack}`);
      }
    }
  } catch (err) {
    failed += 1;
    console.log(`failed: ${err.stack}`);
  } finally {
    box.stop();
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}

module.exports = { Box, CS, ECS, STS, between, main, refused, runtime, sleep, test, until };
