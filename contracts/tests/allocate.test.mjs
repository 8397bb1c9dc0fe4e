// Allocations: who may make them, how many, how much, for whom.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Command, UNLIMITED, payoutOf } from '../wrappers/Vault.mjs';
import { Errors, Fixture, RESERVE, START, keyOf, publicOf, toNano } from './fixture.mjs';

test('an allocation reserves its amount and starts at epoch 1', async () => {
  const vault = await Fixture.create();
  assert.equal((await vault.allocate('provider', '0.1')).exit, 0);
  assert.deepEqual(await vault.allocation('provider'), {
    payout: vault.payout, limit: toNano('0.1'), paid: 0n, epoch: 1, unlockAt: 0, receiptsRoot: 0n,
    key: publicOf('payer'),
  });
  const storage = await vault.storage();
  assert.equal(storage.reserved, toNano('0.1'));
  assert.equal(storage.seqno, 1);
  await vault.assertCovered();
});

test('a second amount grows the allocation within its epoch', async () => {
  const vault = await Fixture.create();
  await vault.allocate('provider', '0.1');
  await vault.allocate('provider', '0.2');
  const allocation = await vault.allocation('provider');
  assert.equal(allocation.limit, toNano('0.3'));
  assert.equal(allocation.epoch, 1);
  assert.equal((await vault.storage()).nextEpoch, 2);
});

test('more than the free money is refused before it is accepted', async () => {
  const vault = await Fixture.create();
  const refused = await vault.allocate('provider', '0.96');
  assert.deepEqual([refused.accepted, refused.exit], [false, Errors.INSUFFICIENT_FUNDS]);
  await vault.allocate('provider', '0.9');
  assert.equal((await vault.allocate('other', '0.05')).exit, Errors.INSUFFICIENT_FUNDS);
  assert.equal((await vault.storage()).seqno, 1);
});

test('an allocation never touches the reserve', async () => {
  const vault = await Fixture.create();
  const allocate = (amount) =>
    vault.command(Command.allocate({ provider: publicOf('provider'), payout: vault.payout, amount }));
  // What is accepted last lies within 10,000 nanoTON of the most that can be.
  let [good, bad] = [0n, toNano('1')];
  while (bad - good > 10_000n) {
    const middle = (good + bad) / 2n;
    if ((await allocate(middle - good)).accepted) good = middle;
    else bad = middle;
  }
  const { reserved } = await vault.storage();
  assert.ok((await vault.balance()) - reserved >= RESERVE);
});

test('two providers cannot be promised the same money', async () => {
  const vault = await Fixture.create();
  await vault.allocate('provider', '0.5');
  assert.equal((await vault.allocate('other', '0.5')).exit, Errors.INSUFFICIENT_FUNDS);
  await vault.assertCovered();
});

test('provider key 0 and the identity key are refused', async () => {
  const vault = await Fixture.create();
  assert.equal((await vault.allocate(0n, '0.1')).exit, Errors.BAD_PROVIDER);
  assert.equal((await vault.allocate(1n << 248n, '0.1')).exit, Errors.BAD_PROVIDER);
});

test('a payout to nobody or to the vault itself is refused', async () => {
  const vault = await Fixture.create();
  const to = (payout) => vault.allocate('provider', '0.1', { request: { payout } });
  assert.equal((await to(0n)).exit, Errors.BAD_PAYOUT);
  assert.equal((await to(payoutOf(vault.address))).exit, Errors.BAD_PAYOUT);
});

test('an allocation cannot be redirected by growing it', async () => {
  const vault = await Fixture.create();
  await vault.allocate('provider', '0.1');
  const payout = payoutOf(vault.stranger.address);
  const refused = await vault.allocate('provider', '0.1', { request: { payout } });
  assert.equal(refused.exit, Errors.PAYOUT_DIFFERS);
});

test('a new allocation of nothing is refused', async () => {
  const vault = await Fixture.create();
  assert.equal((await vault.allocate('provider', '0')).exit, Errors.ZERO_AMOUNT);
});

test('a limit beyond 64 bits is refused before it is accepted', async () => {
  const vault = await Fixture.create();
  await vault.allocate('provider', '0.1');
  const amount = 2n ** 64n - 1n;
  vault.chain.now += 86400; // Another day, so that it is not the daily cap that refuses.
  const refused = await vault.allocate('provider', '0', { request: { amount } });
  assert.deepEqual([refused.accepted, refused.exit], [false, Errors.AMOUNT_OVERFLOW]);
});

test('the 65th allocation is refused, and growing one of 64 is not', async () => {
  const vault = await Fixture.create({ deposit: '10' });
  const request = (index) => ({
    provider: publicOf(`provider ${index}`), payout: vault.payout, amount: toNano('0.01'),
  });
  for (let first = 0; first < 64; first += 16) {
    const requests = Array.from({ length: 16 }, (_, index) => request(first + index));
    assert.equal((await vault.command(Command.rebalance({ requests }))).exit, 0);
  }
  const refused = await vault.command(Command.allocate(request(64)));
  assert.deepEqual([refused.accepted, refused.exit], [false, Errors.TOO_MANY_ALLOCATIONS]);
  assert.equal((await vault.command(Command.allocate(request(5)))).exit, 0);
  assert.equal((await vault.storage()).allocationCount, 64);
  await vault.assertCovered();
});

test('parameters out of bounds make a vault that cannot allocate', async () => {
  for (const parameters of [{ feeBasisPoints: 1001 }, { releaseDelay: 2592001 }]) {
    const vault = await Fixture.create({ parameters });
    assert.equal((await vault.allocate('provider', '0.1')).exit, Errors.BAD_PARAMETERS);
  }
  const vault = await Fixture.create({ parameters: { feeBasisPoints: 1000, releaseDelay: 2592000 } });
  assert.equal((await vault.allocate('provider', '0.1')).exit, 0);
});

test('the daily cap bounds the hot key until the next UTC day', async () => {
  const vault = await Fixture.create({ parameters: { dailyCap: toNano('0.3') } });
  await vault.allocate('provider', '0.2');
  const refused = await vault.allocate('other', '0.11');
  assert.deepEqual([refused.accepted, refused.exit], [false, Errors.DAILY_CAP]);
  assert.equal((await vault.allocate('other', '0.1')).exit, 0);
  vault.chain.now = (Math.floor(START / 86400) + 1) * 86400 - 1;
  assert.equal((await vault.allocate('other', '0.1')).exit, Errors.DAILY_CAP);
  vault.chain.now += 1;
  assert.equal((await vault.allocate('other', '0.1')).exit, 0);
  assert.equal((await vault.storage()).allocatedToday, toNano('0.1'));
});

test('the daily cap binds a batch too, and not the owner', async () => {
  const vault = await Fixture.create({ parameters: { dailyCap: toNano('0.1') } });
  const requests = ['provider', 'other'].map((name) => ({
    provider: publicOf(name), payout: vault.payout, amount: toNano('0.1'),
  }));
  assert.equal((await vault.command(Command.rebalance({ requests }))).exit, Errors.DAILY_CAP);
  assert.equal((await vault.ownerCommand(Command.rebalance({ requests }))).exit, 0);
  assert.equal((await vault.storage()).allocatedToday, 0n);
  await vault.assertCovered();
});

test('a daily cap of 0 leaves allocation to the owner', async () => {
  const vault = await Fixture.create({ parameters: { dailyCap: 0n } });
  assert.equal((await vault.allocate('provider', '0.1')).exit, Errors.DAILY_CAP);
  assert.notEqual(vault.parameters.dailyCap, UNLIMITED);
});

// ---- batches

const requestsFor = (vault, count, amount = '0.01') => Array.from({ length: count }, (_, index) => ({
  provider: publicOf(`provider ${index}`), payout: vault.payout, amount: toNano(amount),
}));

test('a batch makes all its allocations, each with its own epoch', async () => {
  const vault = await Fixture.create({ deposit: '3' });
  assert.equal((await vault.command(Command.rebalance({ requests: requestsFor(vault, 16) }))).exit, 0);
  const { allocations, nextEpoch } = await vault.storage();
  assert.equal(new Set(allocations.map(([, { epoch }]) => epoch)).size, 16);
  assert.equal(nextEpoch, 17);
  await vault.assertCovered();
});

test('an empty batch and one of 17 are refused before they are accepted', async () => {
  const vault = await Fixture.create({ deposit: '3' });
  for (const count of [0, 17]) {
    const outcome = await vault.command(Command.rebalance({ requests: requestsFor(vault, count) }));
    assert.deepEqual([outcome.accepted, outcome.exit], [false, Errors.BAD_BATCH]);
  }
});

test('a batch whose head lies changes nothing but the seqno', async () => {
  const vault = await Fixture.create({ deposit: '3' });
  const requests = requestsFor(vault, 3);
  const lies = [
    { requests, total: toNano('0.02') },
    { requests, total: toNano('0.04') },
    { requests, count: 2, total: toNano('0.02') },
    { requests, count: 4, total: toNano('0.03') },
  ];
  for (const [index, lie] of lies.entries()) {
    const outcome = await vault.command(Command.rebalance(lie));
    assert.deepEqual([outcome.accepted, outcome.exit], [true, Errors.BAD_BATCH], `lie ${index}`);
    const storage = await vault.storage();
    assert.equal(storage.seqno, index + 1);
    assert.equal(storage.reserved, 0n);
    assert.deepEqual(storage.allocations, []);
  }
});

test('one bad entry undoes the whole batch, and the batch cannot be sent again', async () => {
  const vault = await Fixture.create({ deposit: '3' });
  const requests = requestsFor(vault, 3);
  requests[2].provider = 0n;
  const body = await vault.signed(Command.rebalance({ requests }));
  assert.equal((await vault.external(body)).exit, Errors.BAD_PROVIDER);
  assert.deepEqual((await vault.storage()).allocations, []);
  const again = await vault.external(body);
  assert.deepEqual([again.accepted, again.exit], [false, Errors.WRONG_SEQNO]);
});

test('a batch naming one provider twice grows what it has just made', async () => {
  const vault = await Fixture.create({ deposit: '3' });
  const [request] = requestsFor(vault, 1);
  assert.equal((await vault.command(Command.rebalance({ requests: [request, request] }))).exit, 0);
  const storage = await vault.storage();
  assert.equal(storage.allocationCount, 1);
  assert.equal(storage.allocations[0][1].limit, toNano('0.02'));
  await vault.assertCovered();
});

// ---- authority

test('a command is executed once', async () => {
  const vault = await Fixture.create();
  const body = await vault.signed(Command.allocate({
    provider: publicOf('provider'), payout: vault.payout, amount: toNano('0.1'),
  }));
  assert.equal((await vault.external(body)).exit, 0);
  const replay = await vault.external(body);
  assert.deepEqual([replay.accepted, replay.exit], [false, Errors.WRONG_SEQNO]);
});

test('a command is valid through its last second and not one longer', async () => {
  const vault = await Fixture.create();
  const late = await vault.allocate('provider', '0.1', { validUntil: vault.chain.now - 1 });
  assert.deepEqual([late.accepted, late.exit], [false, Errors.EXPIRED]);
  assert.equal((await vault.allocate('provider', '0.1', { validUntil: vault.chain.now })).exit, 0);
});

test('commands of another key, for another vault, of another kind are refused', async () => {
  const vault = await Fixture.create();
  const sibling = await Fixture.create({ parameters: { salt: 78n } });
  const testnet = await Fixture.create({ parameters: { networkId: -3 } });
  const refused = async (changes, error) => {
    const outcome = await vault.allocate('provider', '0.1', changes);
    assert.deepEqual([outcome.accepted, outcome.exit], [false, error]);
  };
  await refused({ key: keyOf('thief') }, Errors.BAD_SIGNATURE);
  await refused({ key: keyOf('provider') }, Errors.BAD_SIGNATURE);
  await refused({ vault: sibling.address }, Errors.WRONG_VAULT);
  await refused({ vault: testnet.address }, Errors.WRONG_VAULT);
  await refused({ magic: 0x43435632 }, Errors.WRONG_MAGIC);
  await refused({ seqno: 1 }, Errors.WRONG_SEQNO);
});

test('vaults on two networks have two addresses', async () => {
  const main = await Fixture.create();
  const testnet = await Fixture.create({ parameters: { networkId: -3 } });
  assert.notEqual(main.address.toRawString(), testnet.address.toRawString());
});
