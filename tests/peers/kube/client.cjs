// SPDX-License-Identifier: Apache-2.0
// The JavaScript client's usual day: create, list, watch, patch, apply, informer, delete.
const assert = require('assert')
const k8s = require('@kubernetes/client-node')

const config = new k8s.KubeConfig()
config.loadFromFile(process.argv[2])
const core = config.makeApiClient(k8s.CoreV1Api)
const objects = k8s.KubernetesObjectApi.makeApiClient(config)
const namespace = 'default'
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function until(what, probe) {
  for (let i = 0; i < 100; i++) {
    if (await probe()) return
    await sleep(100)
  }
  throw new Error(what + ' did not happen')
}

async function main() {
  const nodes = await core.listNode()
  assert.strictEqual(nodes.items.length, 2)
  const seen = []
  const informer = k8s.makeInformer(config, '/api/v1/namespaces/default/configmaps', () => core.listNamespacedConfigMap({ namespace }))
  for (const event of ['add', 'update', 'delete']) informer.on(event, (object) => seen.push(event + ' ' + object.metadata.name))
  await informer.start()
  await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'js' }, data: { a: '1' } } })
  await core.patchNamespacedConfigMap({ namespace, name: 'js', body: [{ op: 'replace', path: '/data/a', value: '2' }] })
  assert.strictEqual((await core.readNamespacedConfigMap({ namespace, name: 'js' })).data.a, '2')
  const applied = await objects.patch({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'js', namespace }, data: { b: '3' } },
    undefined, undefined, 'js-client', true, k8s.PatchStrategy.ServerSideApply)
  assert.deepStrictEqual({ ...applied.data }, { a: '2', b: '3' })
  await core.deleteNamespacedConfigMap({ namespace, name: 'js' })
  await until('the deletion in the informer', () => seen.includes('delete js'))
  assert.ok(seen.includes('add js') && seen.includes('update js'), seen.join())
  await informer.stop()
  await assert.rejects(core.readNamespacedConfigMap({ namespace, name: 'js' }), (error) => error.code === 404)
  console.log('done')
  process.exit(0)
}

main().catch((error) => {
  console.error(error)
  process.exit(1)
})
