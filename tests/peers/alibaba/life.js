// SPDX-License-Identifier: Apache-2.0
// A node pool's whole life through the official packages, what eirun made read back by them, and calls that must be refused.
'use strict';
const assert = require('node:assert');
const path = require('node:path');
const credentials = require('@alicloud/credentials');
const Log = require('@alicloud/log');
const { Box, CS, ECS, STS, between, main, refused, runtime, test, until } = require('./support');

const box = new Box();
const pool = {}; // what the tests of one life hand on

function request() {
  return new CS.CreateClusterNodePoolRequest({
    nodepoolInfo: new CS.CreateClusterNodePoolRequestNodepoolInfo({ name: '推理-spot', type: 'ess' }),
    autoScaling: new CS.CreateClusterNodePoolRequestAutoScaling({ enable: true, type: 'gpu', minInstances: 2, maxInstances: 10 }),
    scalingGroup: new CS.CreateClusterNodePoolRequestScalingGroup({
      instanceChargeType: 'PostPaid', instanceTypes: ['ecs.gn6i-c4g1.xlarge', 'ecs.gn7i-c8g1.2xlarge'],
      vswitchIds: ['vsw-bp1eirunh', 'vsw-bp1eiruni'], multiAzPolicy: 'COST_OPTIMIZED', spotStrategy: 'SpotAsPriceGo',
      onDemandBaseCapacity: 1, onDemandPercentageAboveBaseCapacity: 30, spotInstancePools: 2, spotInstanceRemedy: true,
      compensateWithOnDemand: true, systemDiskCategory: 'cloud_essd', systemDiskSize: 200,
      tags: [new CS.CreateClusterNodePoolRequestScalingGroupTags({ key: 'owner', value: "a b*~'(x)!" })],
    }),
    kubernetesConfig: new CS.CreateClusterNodePoolRequestKubernetesConfig({
      labels: [new CS.Tag({ key: 'inference', value: 'tensorflow' })],
      taints: [new CS.Taint({ key: 'gpu', value: 'yes', effect: 'NoSchedule' })],
    }),
  });
}

async function detail(id) { return (await box.cs().describeClusterNodePoolDetail(box.id, id)).body; }

async function active(id, nodes) {
  return until(`${nodes} nodes of an active pool`, async () => {
    const now = await detail(id);
    return now.status.state === 'active' && now.status.healthyNodes === nodes && now;
  });
}

async function counts(group) {
  const { ScalingInstances: list, TotalSpotCount: spot } = await box.ess('DescribeScalingInstances', { ScalingGroupId: group, PageSize: '100' });
  return { total: list.length, spot, ids: list.map((one) => one.InstanceId) };
}

test('the cluster is listed, described and paged', async () => {
  const { body } = await box.cs().describeClustersV1(new CS.DescribeClustersV1Request({ pageSize: 50, pageNumber: 1 }));
  assert.equal(body.clusters[0].clusterId, box.id);
  assert.equal(body.pageInfo.totalCount, 1);
  const one = (await box.cs().describeClusterDetail(box.id)).body;
  assert.equal(one.state, 'running');
  assert.match(JSON.parse(one.masterUrl).api_server_endpoint, /^https:/);
});

test('the keys are known to STS, and temporary ones can be had', async () => {
  const who = (await box.sts().getCallerIdentity()).body;
  assert.equal(who.accountId, box.facts.account);
  const role = `acs:ram::${box.facts.account}:role/AliyunCSDefaultRole`;
  const answer = (await box.sts().assumeRole(new STS.AssumeRoleRequest({ roleArn: role, roleSessionName: 'peer', durationSeconds: 900 }))).body;
  const { accessKeyId, accessKeySecret, securityToken } = answer.credentials;
  pool.temporary = { accessKeyId, accessKeySecret, securityToken };
  const inner = (await box.sts(pool.temporary).getCallerIdentity()).body;
  assert.equal(inner.identityType, 'AssumedRoleUser');
});

test('the scaler is configured, by the singular path with its slash', async () => {
  const answer = await box.cs().createAutoscalingConfig(box.id, new CS.CreateAutoscalingConfigRequest({ scalerType: 'cluster-autoscaler',
    scanInterval: '30', expander: 'priority', priorities: { 100: ['asg-a'], 10: ['asg-b'] }, scaleDownEnabled: true }));
  assert.equal(await box.task(answer.body.taskId), 'success');
});

test('a pool is made', async () => {
  const { body } = await box.cs().createClusterNodePool(box.id, request());
  pool.id = body.nodepoolId;
  assert.equal(await box.task(body.taskId), 'success');
  const made = await active(pool.id, 2);
  pool.group = made.scalingGroup.scalingGroupId;
  assert.equal(made.nodepoolInfo.name, '推理-spot');
  assert.deepEqual([made.scalingGroup.onDemandBaseCapacity, made.scalingGroup.onDemandPercentageAboveBaseCapacity,
    made.scalingGroup.spotInstancePools, made.scalingGroup.systemDiskSize], [1, 30, 2, 200]);
  assert.deepEqual({ ...made.kubernetesConfig.taints[0] }, { effect: 'NoSchedule', key: 'gpu', value: 'yes' });
});

test('its group, its instances and its nodes agree', async () => {
  const { ScalingGroups: [group] } = await box.ess('DescribeScalingGroups', { 'ScalingGroupIds.1': pool.group });
  assert.deepEqual([group.ActiveCapacity, group.SpotCapacity, group.ScalingGroupName], [2, 1, `acs-nodePool-${pool.id}`]);
  assert.deepEqual((({ total, spot }) => ({ total, spot }))(await counts(pool.group)), { total: 2, spot: 1 });
  const tag = new ECS.DescribeInstancesRequestTag({ key: 'ack.alibabacloud.com/nodepool-id', value: pool.id });
  const instances = (await box.ecs().describeInstances(new ECS.DescribeInstancesRequest({ regionId: box.region, tag: [tag], maxResults: 100 })))
    .body.instances.instance;
  assert.deepEqual(instances.map((one) => one.instanceChargeType), ['PostPaid', 'PostPaid']);
  assert.equal(instances.filter((one) => one.spotStrategy === 'SpotAsPriceGo').length, 1);
  const nodes = (await box.cs().describeClusterNodes(box.id, new CS.DescribeClusterNodesRequest({ nodepoolId: pool.id, pageSize: '100' }))).body;
  assert.equal(nodes.page.totalCount, 2);
  assert.equal(nodes.nodes[0].nodeStatus, 'Ready');
});

test('more instances keep the rule', async () => {
  const { body } = await box.cs().modifyClusterNodePool(box.id, pool.id, new CS.ModifyClusterNodePoolRequest({
    autoScaling: new CS.ModifyClusterNodePoolRequestAutoScaling({ enable: true, minInstances: 6, maxInstances: 10 }), updateNodes: false }));
  assert.equal(await box.task(body.taskId), 'success');
  await active(pool.id, 6);
  const { total, spot } = await counts(pool.group);
  assert.equal(total, 6);
  assert.ok(Math.abs(total - spot - (1 + 0.3 * 5)) <= 1, `${total - spot} on demand`);
});

test('a count is refused while a scaler owns it', async () => {
  const err = await refused(box.cs().scaleClusterNodePool(box.id, pool.id, new CS.ScaleClusterNodePoolRequest({ count: 1 })));
  assert.equal(err.code, 'InvalidDesiredSizeOrCount.NotNull');
});

test('eirun sees the same ratio', () => {
  const done = box.eirun('cloud', 'ratio', '推理-spot', `--sandbox=${box.dir}`, '--output', 'json');
  assert.equal(done.status, 0, done.stderr + done.stdout);
  const found = JSON.parse(done.stdout);
  assert.deepEqual([found.total, found.kept, found.disagree, found.id], [6, true, false, pool.id]);
  assert.deepEqual(found.counts.group, found.counts.nodes);
});

test('what eirun makes is read back as it was said', async () => {
  const done = box.eirun(`--sandbox=${box.dir}`, path.join(__dirname, 'made.lua'));
  assert.equal(done.status, 0, done.stderr + done.stdout);
  const { nodepools } = (await box.cs().describeClusterNodePools(box.id, new CS.DescribeClusterNodePoolsRequest({ nodepoolName: 'made-by-eirun' }))).body;
  assert.equal(nodepools.length, 1);
  const made = await detail(nodepools[0].nodepoolInfo.nodepoolId);
  const { scalingGroup: group, autoScaling: scaling, kubernetesConfig: kubernetes } = made;
  assert.deepEqual([scaling.enable, scaling.type, scaling.minInstances, scaling.maxInstances], [true, 'gpu', 0, 4]);
  assert.deepEqual([group.onDemandBaseCapacity, group.onDemandPercentageAboveBaseCapacity, group.spotInstancePools, group.spotStrategy,
    group.multiAzPolicy, group.compensateWithOnDemand, group.spotInstanceRemedy], [1, 30, 2, 'SpotAsPriceGo', 'COST_OPTIMIZED', true, true]);
  assert.deepEqual([group.systemDiskCategory, group.systemDiskSize, group.dataDisks[0].size, group.dataDisks[0].encrypted],
    ['cloud_essd', 200, 300, 'false']);
  assert.deepEqual(group.instanceTypes, ['ecs.gn6i-c4g1.xlarge', 'ecs.gn7i-c8g1.2xlarge']);
  assert.deepEqual(group.tags.map((one) => `${one.key}=${one.value}`).sort(), ['managed-by=eirun', 'team=search']);
  assert.deepEqual(kubernetes.labels.map((one) => `${one.key}=${one.value}`), ['inference=tensorflow']);
  assert.deepEqual({ ...kubernetes.taints[0] }, { effect: 'NoSchedule', key: 'gpu', value: 'yes' });
});

test('add-ons are listed and installed', async () => {
  const { addons } = (await box.cs().listAddons(new CS.ListAddonsRequest({ clusterId: box.id }))).body;
  const wanted = addons.find((one) => one.name === 'arms-prometheus');
  const answer = await box.cs().installClusterAddons(box.id, new CS.InstallClusterAddonsRequest({
    body: [new CS.InstallClusterAddonsRequestBody({ name: wanted.name, version: wanted.version, config: '{"retention":7}' })] }));
  assert.equal(await box.task(answer.body.taskId), 'success');
  const one = (await box.cs().getClusterAddonInstance(box.id, 'arms-prometheus')).body;
  assert.deepEqual([one.state, JSON.parse(one.config).retention], ['active', 7]);
});

test('a temporary kubeconfig says when it ends', async () => {
  const { body } = await box.cs().describeClusterUserKubeconfig(box.id, new CS.DescribeClusterUserKubeconfigRequest({
    temporaryDurationMinutes: 15, privateIpAddress: false }));
  assert.match(body.config, /client-certificate-data|token:/);
  assert.ok(Date.parse(body.expiration) > Date.now());
});

test('prices, advice and vSwitches can be asked', async () => {
  const ecs = box.ecs();
  const history = (await ecs.describeSpotPriceHistory(new ECS.DescribeSpotPriceHistoryRequest({ regionId: box.region,
    instanceType: 'ecs.gn6i-c4g1.xlarge', networkType: 'vpc' }))).body;
  assert.ok(history.spotPrices.spotPriceType[0].spotPrice < history.spotPrices.spotPriceType[0].originPrice);
  const advice = (await ecs.describeSpotAdvice(new ECS.DescribeSpotAdviceRequest({ regionId: box.region, instanceTypes: ['ecs.gn6i-c4g1.xlarge'] }))).body;
  assert.equal(advice.availableSpotZones.availableSpotZone.length, 3);
  const price = (await ecs.describePrice(new ECS.DescribePriceRequest({ regionId: box.region, resourceType: 'instance',
    instanceType: 'ecs.gn6i-c4g1.xlarge', priceUnit: 'Hour' }))).body;
  assert.equal(price.priceInfo.price.currency, 'CNY');
  const vpc = await box.rpc('VPC', '2016-04-28', 'DescribeVSwitchAttributes', { RegionId: box.region, VSwitchId: 'vsw-bp1eirunh' });
  assert.ok(vpc.AvailableIpAddressCount > 0);
});

test('a reclaimed instance is locked five minutes ahead and then gone', async () => {
  const { ids } = await counts(pool.group);
  const spot = (await box.ecs().describeInstances(new ECS.DescribeInstancesRequest({ regionId: box.region, instanceIds: JSON.stringify(ids) })))
    .body.instances.instance.find((one) => one.spotStrategy !== 'NoSpot');
  box.fault('reclaim', `id=${spot.instanceId}`);
  const locked = (await box.ecs().describeInstances(new ECS.DescribeInstancesRequest({ regionId: box.region, lockReason: 'Recycling' })))
    .body.instances.instance;
  assert.deepEqual(locked.map((one) => one.instanceId), [spot.instanceId]);
  const url = `http://${box.endpoint('METADATA')}/latest/meta-data/instance/spot/termination-time`;
  const at = await (await fetch(url, { headers: { 'x-sandbox-instance': spot.instanceId } })).text();
  assert.match(at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
});

test('the log service answers its own package', async () => {
  const log = new Log({ ...box.keys, endpoint: `${box.region}.log.aliyuncs.com:${box.facts.ports.SLS.plain}`, use_https: false });
  const project = `k8s-log-${box.id}`;
  const now = Date.now();
  const rows = await log.getLogs(project, 'nginx-ingress', new Date(now - 60000), new Date(now + 3600000), { query: '*' });
  assert.ok(Array.isArray(rows));
  const err = await refused(log.getLogs(project, 'nginx-ingress', new Date(now - 60000), new Date(now), { query: '* | SELECT median(a) FROM x JOIN y' }));
  assert.equal(err.code, 'ParameterInvalid');
  const stranger = new Log({ ...box.keys, accessKeySecret: 'wrong', endpoint: log.endpoint, use_https: false });
  assert.equal((await refused(stranger.getLogs(project, 'nginx-ingress', new Date(now - 1000), new Date(now)))).code, 'SignatureNotMatch');
});

test('the credentials package gets a role through STS over TLS', async () => {
  const client = new credentials.default(new credentials.Config({ type: 'ram_role_arn', ...box.keys, roleSessionName: 'peer',
    roleArn: `acs:ram::${box.facts.account}:role/AliyunCSDefaultRole`, stsEndpoint: box.endpoint('STS', 'tls') }));
  const got = await client.getCredential();
  assert.match(got.accessKeyId, /^STS\./);
  const who = (await box.sts({ accessKeyId: undefined, accessKeySecret: undefined, credential: client }).getCallerIdentity()).body;
  assert.equal(who.identityType, 'AssumedRoleUser');
});

// What must be refused, with the real codes ---------------------------------------------------------------------------------

test('a wrong secret does not match, and the server says what it signed', async () => {
  const err = await refused(box.cs({ accessKeySecret: 'wrong' }).describeClusterDetail(box.id));
  assert.equal(err.code, 'SignatureDoesNotMatch');
  assert.match(err.message, /ACS3-HMAC-SHA256/);
});

test('a key that nobody has', async () => {
  assert.equal((await refused(box.cs({ accessKeyId: 'LTAI5tNOBODY' }).describeClusterDetail(box.id))).code, 'InvalidAccessKeyId.NotFound');
  assert.equal((await refused(box.sts({ accessKeyId: 'LTAI5tNOBODY' }).getCallerIdentity())).code, 'InvalidAccessKeyId.NotFound');
});

test('a temporary key wants its own token', async () => {
  assert.equal((await refused(box.cs({ ...pool.temporary, securityToken: 'CAISanother' }).describeClusterDetail(box.id))).code,
    'InvalidSecurityToken.MismatchWithAccessKey');
  assert.equal((await refused(box.cs({ ...pool.temporary, securityToken: undefined }).describeClusterDetail(box.id))).code, 'MissingSecurityToken');
});

test('a body that was altered on its way', async () => {
  const alter = (sent, send) => send({ ...sent, body: Buffer.from(sent.body.toString().replace('"max_instances":10', '"max_instances":90')) });
  const err = await between(box.endpoint('CS'), alter, (endpoint) => refused(box.cs({ endpoint }).createClusterNodePool(box.id, request())));
  assert.equal(err.code, 'SignatureDoesNotMatch');
});

test('a query that was altered on its way', async () => {
  const alter = (sent, send) => send({ ...sent, path: sent.path.replace('force=false', 'force=true') });
  const err = await between(box.endpoint('CS'), alter, (endpoint) => refused(box.cs({ endpoint }).deleteClusterNodepool(box.id, pool.id,
    new CS.DeleteClusterNodepoolRequest({ force: false }))));
  assert.equal(err.code, 'SignatureDoesNotMatch');
});

test('a request that comes twice', async () => {
  const twice = async (sent, send) => {
    await send(sent);
    return send(sent);
  };
  const err = await between(box.endpoint('CS'), twice, (endpoint) => refused(box.cs({ endpoint }).describeClusterDetail(box.id)));
  assert.equal(err.code, 'SignatureNonceUsed');
});

test('a clock that is off', async () => {
  const headers = { 'x-acs-date': new Date(Date.now() - 20 * 60000).toISOString().replace(/\.\d+Z/, 'Z') };
  const err = await refused(box.cs().describeClusterDetailWithOptions(box.id, headers, runtime()));
  assert.equal(err.code, 'InvalidTimeStamp.Expired');
  box.fault('clock_skew', 'seconds=7200');
  assert.equal((await refused(box.sts().getCallerIdentity())).code, 'InvalidTimeStamp.Expired');
  box.fault('clock_skew', 'seconds=0');
  assert.equal((await box.sts().getCallerIdentity()).body.accountId, box.facts.account);
});

test('a user who may only look', async () => {
  const ram = (action, query) => box.rpc('RAM', '2015-05-01', action, query);
  await ram('CreateUser', { UserName: 'looker' });
  await ram('CreatePolicy', { PolicyName: 'look', PolicyDocument: JSON.stringify({ Version: '1',
    Statement: [{ Effect: 'Allow', Action: ['cs:Describe*', 'ecs:Describe*'], Resource: '*' }] }) });
  await ram('AttachPolicyToUser', { UserName: 'looker', PolicyName: 'look', PolicyType: 'Custom' });
  const { AccessKey: key } = await ram('CreateAccessKey', { UserName: 'looker' });
  const own = { accessKeyId: key.AccessKeyId, accessKeySecret: key.AccessKeySecret };
  assert.equal((await box.cs(own).describeClusterDetail(box.id)).body.clusterId, box.id);
  const err = await refused(box.cs(own).createClusterNodePool(box.id, request()));
  assert.deepEqual([err.code, err.status], ['StatusForbidden', 403]);
  assert.match(err.message, /cs:CreateClusterNodePool/);
});

test('throttling and HTML from a gateway reach the client as they are', async () => {
  box.fault('throttle', 'service=CS', 'action=DescribeClusterDetail', 'retry_after=1500');
  const err = await refused(box.cs().describeClusterDetail(box.id));
  assert.match(err.code, /^Throttling/);
  box.fault('html', 'service=CS', 'action=DescribeClusterDetail', 'status=503');
  assert.ok((await refused(box.cs().describeClusterDetail(box.id))).err);
  assert.equal((await box.cs().describeClusterDetail(box.id)).body.clusterId, box.id);
});

// The end of the pool ---------------------------------------------------------------------------------------------------------

test('the scaler lets go, nodes are removed, and the pool is deleted', async () => {
  const off = await box.cs().modifyClusterNodePool(box.id, pool.id, new CS.ModifyClusterNodePoolRequest({
    autoScaling: new CS.ModifyClusterNodePoolRequestAutoScaling({ enable: false, minInstances: 0, maxInstances: 0 }) }));
  assert.equal(await box.task(off.body.taskId), 'success');
  const { ids } = await counts(pool.group);
  const removed = await box.cs().removeNodePoolNodes(box.id, pool.id, new CS.RemoveNodePoolNodesRequest({ instanceIds: ids.slice(0, 1),
    drainNode: true, releaseNode: true, concurrency: true }));
  assert.equal(await box.task(removed.body.taskId), 'success');
  const gone = await box.cs().deleteClusterNodepool(box.id, pool.id, new CS.DeleteClusterNodepoolRequest({ force: true }));
  assert.equal(await box.task(gone.body.taskId), 'success');
  assert.equal((await refused(detail(pool.id))).code, 'ErrorNodePoolNotFound');
  const tag = new ECS.DescribeInstancesRequestTag({ key: 'ack.alibabacloud.com/nodepool-id', value: pool.id });
  const left = (await box.ecs().describeInstances(new ECS.DescribeInstancesRequest({ regionId: box.region, tag: [tag] }))).body.instances.instance;
  assert.deepEqual(left, []);
});

main(box);
