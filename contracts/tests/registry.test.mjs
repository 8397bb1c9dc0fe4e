// The registry: who may say what, how early, and what a stranger can do to it.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { beginCell, toNano } from '@ton/core';
import { Body, Opcode, nameCell, parseMaintainers, parseModels } from '../wrappers/Registry.mjs';
import { toUint256 } from '../wrappers/Vault.mjs';
import { Errors as VaultErrors } from './fixture.mjs';
import { Errors, RegistryFixture, TIMELOCK } from './registry.fixture.mjs';

const done = async (outcome) => assert.equal((await outcome).exit, 0);
/** Refused with a reason, the money sent back, and nothing changed. */
async function refused(registry, outcome, exit) {
  const before = (await registry.data()).hash().toString('hex');
  const { exit: found, sent } = await outcome();
  assert.equal(found, exit);
  assert.ok(sent.length === 1 && sent[0].info.bounced, 'the money goes back');
  assert.equal((await registry.data()).hash().toString('hex'), before);
}
const model = { key: 0xabcdn, name: 'SmolLM2-135M-Instruct.Q4_1' };

async function withMaintainer() {
  const registry = await RegistryFixture.create();
  await done(registry.send('owner', Body.setMaintainer({ key: registry.account('maintainer'), name: 'Ada' })));
  return registry;
}

test('a new registry has no fee and knows nothing', async () => {
  const storage = await (await RegistryFixture.create()).storage();
  assert.deepEqual([storage.version, storage.fee.basisPoints, storage.pendingFee], [0, 0, null]);
  assert.deepEqual([storage.models, storage.maintainers], [[], []]);
});

// ---- fee

test('a fee is in force only after it was announced and the timelock has passed', async () => {
  const registry = await RegistryFixture.create();
  const fee = { basisPoints: 100, treasury: registry.account('treasury') };
  await done(registry.send('owner', Body.proposeFee(fee)));
  const { pendingFee, fee: current } = await registry.storage();
  assert.deepEqual(pendingFee, { ...fee, notBefore: registry.chain.now + TIMELOCK });
  assert.equal(current.basisPoints, 0);
  registry.chain.now += TIMELOCK - 1;
  await refused(registry, () => registry.send('owner', Body.applyFee()), Errors.TIMELOCK);
  registry.chain.now += 1;
  await done(registry.send('stranger', Body.applyFee()));
  const after = await registry.storage();
  assert.deepEqual([after.fee, after.pendingFee, after.version], [fee, null, 2]);
  await refused(registry, () => registry.send('owner', Body.applyFee()), Errors.NO_PENDING_FEE);
});

test('announcing again starts the timelock again, and a fee can be taken back', async () => {
  const registry = await RegistryFixture.create();
  const fee = { basisPoints: 100, treasury: 1n };
  await done(registry.send('owner', Body.proposeFee(fee)));
  registry.chain.now += TIMELOCK;
  await done(registry.send('owner', Body.proposeFee({ ...fee, basisPoints: 1000 })));
  await refused(registry, () => registry.send('stranger', Body.applyFee()), Errors.TIMELOCK);
  await done(registry.send('owner', Body.cancelFee()));
  registry.chain.now += TIMELOCK;
  await refused(registry, () => registry.send('stranger', Body.applyFee()), Errors.NO_PENDING_FEE);
  await refused(registry, () => registry.send('owner', Body.cancelFee()), Errors.NO_PENDING_FEE);
});

test('a fee that vaults would refuse, or that goes nowhere, cannot be announced', async () => {
  const registry = await RegistryFixture.create();
  const propose = (basisPoints, treasury) => () => registry.send('owner', Body.proposeFee({ basisPoints, treasury }));
  await refused(registry, propose(1001, 1n), Errors.FEE_TOO_HIGH);
  await refused(registry, propose(1, 0n), Errors.NO_TREASURY);
  await done(propose(1000, 1n)());
  await done(propose(0, 0n)());
});

// ---- catalogue

test('models are named, renamed and removed', async () => {
  const registry = await RegistryFixture.create();
  await done(registry.send('owner', Body.setModel(model)));
  await done(registry.send('owner', Body.setModel({ ...model, name: 'another name' })));
  await done(registry.send('owner', Body.setModel({ key: 1n, name: 'Größe' })));
  let storage = await registry.storage();
  assert.deepEqual(storage.models, [[1n, 'Größe'], [0xabcdn, 'another name']]);
  assert.equal(storage.modelCount, 2);
  await done(registry.send('owner', Body.removeModel(model)));
  await refused(registry, () => registry.send('owner', Body.removeModel(model)), Errors.NO_MODEL);
  storage = await registry.storage();
  assert.deepEqual([storage.modelCount, storage.version], [1, 4]);
});

test('names are 1 to 64 whole bytes in one cell, and hashes are not zero', async () => {
  const registry = await withMaintainer();
  const operation = (opcode, name, key = 5n) => beginCell().storeUint(opcode, 32).storeUint(key, 256).storeRef(name).endCell();
  const bad = [
    nameCell(''), nameCell('x'.repeat(65)), beginCell().storeUint(1, 7).endCell(),
    beginCell().storeUint(1, 8).storeRef(beginCell().endCell()).endCell(),
  ];
  for (const name of bad) {
    await refused(registry, () => registry.send('owner', operation(Opcode.setModel, name)), Errors.BAD_NAME);
    await refused(registry, () => registry.send('owner', operation(Opcode.setMaintainer, name)), Errors.BAD_NAME);
    await refused(registry, () => registry.send('maintainer', operation(Opcode.publish, name)), Errors.BAD_NAME);
  }
  for (const [from, opcode] of [['owner', Opcode.setModel], ['owner', Opcode.setMaintainer], ['maintainer', Opcode.publish]]) {
    await refused(registry, () => registry.send(from, operation(opcode, nameCell('a'), 0n)), Errors.BAD_HASH);
  }
  await done(registry.send('owner', operation(Opcode.setModel, nameCell('x'.repeat(64)))));
});

test('the catalogue is bounded: 256 models, and gas stays small', async () => {
  const registry = await RegistryFixture.create();
  let most = 0;
  for (let index = 1n; index <= 256n; index += 1n) {
    const key = toUint256(createHash('sha256').update(`model ${index}`).digest());
    const { exit, gas } = await registry.send('owner', Body.setModel({ key, name: 'model' }));
    assert.equal(exit, 0);
    most = Math.max(most, gas);
  }
  await refused(registry, () => registry.send('owner', Body.setModel({ key: 3n, name: 'one more' })), Errors.FULL);
  await done(registry.send('owner', Body.removeModel({ key: toUint256(createHash('sha256').update('model 1').digest()) })));
  await done(registry.send('owner', Body.setModel({ key: 3n, name: 'one more' })));
  assert.ok(most < 30_000, `${most} gas`);
});

test('the minimum protocol version is the owner’s advice', async () => {
  const registry = await RegistryFixture.create();
  await done(registry.send('owner', Body.setMinimumProtocol({ version: 7 })));
  assert.equal((await registry.storage()).minimumProtocol, 7);
});

// ---- measurements

test('a named maintainer publishes its own set, and takes back', async () => {
  const registry = await withMaintainer();
  await done(registry.send('maintainer', Body.publish({ key: 9n, name: 'cocoon-guest 1.0' })));
  await done(registry.send('maintainer', Body.publish({ key: 10n, name: 'cocoon-guest 1.1' })));
  await done(registry.send('maintainer', Body.publish({ key: 10n, name: 'cocoon-guest 1.1, rebuilt' })));
  const [[account, entry]] = (await registry.storage()).maintainers;
  assert.equal(account, registry.account('maintainer'));
  assert.deepEqual([entry.name, entry.count], ['Ada', 2]);
  assert.deepEqual(entry.measurements.map(([key, { name }]) => [key, name]), [
    [9n, 'cocoon-guest 1.0'], [10n, 'cocoon-guest 1.1, rebuilt'],
  ]);
  assert.equal(entry.measurements[0][1].publishedAt, registry.chain.now);
  await done(registry.send('maintainer', Body.unpublish({ key: 9n })));
  await refused(registry, () => registry.send('maintainer', Body.unpublish({ key: 9n })), Errors.NO_MEASUREMENT);
  // Another name keeps the set; removal ends it.
  await done(registry.send('owner', Body.setMaintainer({ key: account, name: 'Ada L.' })));
  assert.equal((await registry.storage()).maintainers[0][1].count, 1);
  await done(registry.send('owner', Body.removeMaintainer({ key: account })));
  await refused(registry, () => registry.send('owner', Body.removeMaintainer({ key: account })), Errors.NO_MAINTAINER);
  await refused(registry, () => registry.send('maintainer', Body.publish({ key: 9n, name: 'x' })), Errors.ONLY_MAINTAINER);
  assert.equal((await registry.storage()).maintainerCount, 0);
});

test('nobody speaks for a maintainer, the owner included', async () => {
  const registry = await withMaintainer();
  for (const from of ['owner', 'stranger']) {
    await refused(registry, () => registry.send(from, Body.publish({ key: 9n, name: 'x' })), Errors.ONLY_MAINTAINER);
    await refused(registry, () => registry.send(from, Body.unpublish({ key: 9n })), Errors.ONLY_MAINTAINER);
  }
});

test('maintainers and their sets are bounded', async () => {
  const registry = await withMaintainer();
  for (let key = 1n; key <= 15n; key += 1n) await done(registry.send('owner', Body.setMaintainer({ key, name: 'm' })));
  await refused(registry, () => registry.send('owner', Body.setMaintainer({ key: 99n, name: 'm' })), Errors.FULL);
  for (let key = 1n; key <= 32n; key += 1n) await done(registry.send('maintainer', Body.publish({ key, name: 'm' })));
  await refused(registry, () => registry.send('maintainer', Body.publish({ key: 99n, name: 'm' })), Errors.FULL);
  await done(registry.send('maintainer', Body.publish({ key: 1n, name: 'renamed' })));
});

// ---- owner

test('ownership passes in two steps, and only to the account that accepts', async () => {
  const registry = await RegistryFixture.create();
  await refused(registry, () => registry.send('heir', Body.acceptOwner()), Errors.ONLY_PENDING_OWNER);
  await done(registry.send('owner', Body.proposeOwner({ owner: registry.heir.address })));
  await refused(registry, () => registry.send('stranger', Body.acceptOwner()), Errors.ONLY_PENDING_OWNER);
  await refused(registry, () => registry.send('owner', Body.acceptOwner()), Errors.ONLY_PENDING_OWNER);
  await refused(registry, () => registry.send('heir', Body.setModel(model)), Errors.ONLY_OWNER);
  await done(registry.send('owner', Body.setModel(model)));
  await done(registry.send('heir', Body.acceptOwner()));
  await refused(registry, () => registry.send('owner', Body.setModel(model)), Errors.ONLY_OWNER);
  await done(registry.send('heir', Body.setModel(model)));
  const { owner, pendingOwner, timelock } = await registry.storage();
  assert.ok(owner.equals(registry.heir.address));
  assert.deepEqual([pendingOwner, timelock], [null, TIMELOCK]);
});

test('a proposal of an owner can be taken back', async () => {
  const registry = await RegistryFixture.create();
  await done(registry.send('owner', Body.proposeOwner({ owner: registry.heir.address })));
  await done(registry.send('owner', Body.proposeOwner({ owner: registry.owner.address })));
  assert.equal((await registry.storage()).pendingOwner, null);
  await refused(registry, () => registry.send('heir', Body.acceptOwner()), Errors.ONLY_PENDING_OWNER);
});

test('whatever is not for others is for the owner alone', async () => {
  const registry = await withMaintainer();
  const forOthers = ['acceptOwner', 'applyFee', 'publish', 'unpublish'];
  const some = { basisPoints: 1, treasury: 1n, version: 1, key: 1n, name: 'n', owner: registry.stranger.address, amount: 1n };
  for (const name of Object.keys(Body).filter((each) => !forOthers.includes(each))) {
    for (const from of ['stranger', 'maintainer', 'heir']) {
      await refused(registry, () => registry.send(from, Body[name](some)), Errors.ONLY_OWNER);
    }
  }
});

test('the owner takes what is not needed for rent, and not the reserve', async () => {
  const registry = await RegistryFixture.create();
  const withdraw = (amount) => () => registry.send('owner', Body.withdraw({ amount: toNano(amount) }));
  await refused(registry, withdraw('0.81'), Errors.KEPT_FOR_RENT);
  await done(withdraw('0.79')());
  assert.ok((await registry.balance()) >= toNano('0.2'));
  await refused(registry, withdraw('0.1'), Errors.KEPT_FOR_RENT);
});

// ---- hostile messages

test('what is not understood goes back, and padding is not understood', async () => {
  const registry = await RegistryFixture.create();
  const unknown = beginCell().storeUint(0x4352ffff, 32).endCell();
  await refused(registry, () => registry.send('owner', unknown), Errors.UNKNOWN_OPERATION);
  const padded = beginCell().storeSlice(Body.cancelFee().asSlice()).storeBit(0).endCell();
  await refused(registry, () => registry.send('owner', padded), 9);
  const comment = beginCell().storeUint(0, 32).storeStringTail('thank you').endCell();
  await done(registry.send('stranger', comment));
  assert.equal((await registry.storage()).version, 0);
});

test('external messages are not taken', async () => {
  const registry = await RegistryFixture.create();
  const { external } = await import('@ton/core');
  for (const body of [Body.applyFee(), Body.cancelFee(), beginCell().endCell()]) {
    await assert.rejects(registry.chain.sendMessage(external({ to: registry.address, body })));
  }
});

test('error codes are unique across the contracts', () => {
  const codes = [...Object.values(Errors), ...Object.values(VaultErrors)];
  assert.equal(new Set(codes).size, codes.length);
  assert.ok(codes.length > 40);
});

// ---- get-methods

test('the get-methods show what the data cell holds', async () => {
  const registry = await withMaintainer();
  await done(registry.send('owner', Body.setModel(model)));
  await done(registry.send('maintainer', Body.publish({ key: 9n, name: 'guest' })));
  await done(registry.send('owner', Body.proposeFee({ basisPoints: 50, treasury: 7n })));
  const storage = await registry.storage();
  const { stackReader } = await registry.get('get_registry');
  const numbers = Array.from({ length: 11 }, () => stackReader.readBigNumber());
  assert.deepEqual(numbers.map(Number), [
    storage.version, 0, 0, 0, 50, 7, storage.pendingFee.notBefore, TIMELOCK, -239, 1, 1,
  ]);
  assert.ok(stackReader.readAddress().equals(registry.owner.address));
  assert.equal(stackReader.readAddressOpt(), null);
  const name = await registry.get('get_model', [{ type: 'int', value: model.key }]);
  assert.ok(name.stackReader.readCell().equals(nameCell(model.name)));
  const models = await registry.get('get_models');
  assert.deepEqual(parseModels(models.stackReader.readCell()), storage.models);
  const maintainers = await registry.get('get_maintainers');
  assert.deepEqual(parseMaintainers(maintainers.stackReader.readCell()), storage.maintainers);
  const one = await registry.get('get_maintainer', [{ type: 'int', value: registry.account('maintainer') }]);
  assert.ok(one.stackReader.readCell().equals(nameCell('Ada')));
  assert.equal(one.stackReader.readNumber(), 1);
  await assert.rejects(registry.get('get_model', [{ type: 'int', value: 4n }]), ({ exitCode }) => exitCode === Errors.NO_MODEL);
});

test('gas of every operation is as committed', async () => {
  const { writeFile } = await import('node:fs/promises');
  const table = new URL('../gas/registry.json', import.meta.url);
  const registry = await RegistryFixture.create();
  const measured = {};
  const record = (name, { exit, gas, fees }) => {
    assert.equal(exit, 0, name);
    measured[name] = { gas, fee_nano: Number(fees) };
  };
  const account = registry.account('maintainer');
  record('deploy', registry.outcome(registry.deployed));
  record('propose fee', await registry.send('owner', Body.proposeFee({ basisPoints: 100, treasury: 7n })));
  registry.chain.now += TIMELOCK;
  record('apply fee', await registry.send('stranger', Body.applyFee()));
  record('set minimum protocol', await registry.send('owner', Body.setMinimumProtocol({ version: 2 })));
  record('set model, first', await registry.send('owner', Body.setModel(model)));
  record('set model, second', await registry.send('owner', Body.setModel({ key: 1n, name: 'x' })));
  record('remove model', await registry.send('owner', Body.removeModel(model)));
  record('name a maintainer', await registry.send('owner', Body.setMaintainer({ key: account, name: 'Ada' })));
  record('publish a measurement', await registry.send('maintainer', Body.publish({ key: 9n, name: 'guest' })));
  record('take a measurement back', await registry.send('maintainer', Body.unpublish({ key: 9n })));
  record('propose owner', await registry.send('owner', Body.proposeOwner({ owner: registry.heir.address })));
  record('accept ownership', await registry.send('heir', Body.acceptOwner()));
  record('withdraw', await registry.send('heir', Body.withdraw({ amount: toNano('0.1') })));
  if (process.env.UPDATE_GAS) await writeFile(table, `${JSON.stringify(measured, null, 2)}\n`);
  assert.deepEqual(measured, JSON.parse(readFileSync(table, 'utf8')));
});
