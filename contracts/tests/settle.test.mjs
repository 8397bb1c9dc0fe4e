// Settlements: what a voucher is worth, when, and to whom.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Command, UNLIMITED, parseAllocations, releaseCell, sweepBody } from '../wrappers/Vault.mjs';
import { Address } from '@ton/core';
import { Errors, Fixture, RELEASE_DELAY, keyOf, publicOf, toNano } from './fixture.mjs';

const allocated = async (amount = '0.5', options) => {
  const vault = await Fixture.create(options);
  assert.equal((await vault.allocate('provider', amount)).exit, 0);
  return vault;
};

const refused = async (outcome, error) => {
  const { accepted, exit } = await outcome;
  assert.deepEqual([accepted, exit], [false, error]);
};

test('an external settlement pays the provider and costs the vault nothing', async () => {
  const vault = await allocated();
  const [before, payeeBefore] = [await vault.balance(), await vault.balance(vault.payee.address)];
  assert.equal((await vault.settle('provider', '0.12')).exit, 0);
  const lost = before - (await vault.balance());
  const received = (await vault.balance(vault.payee.address)) - payeeBefore;
  assert.ok(lost <= toNano('0.12'), `the vault lost ${lost}`);
  // What the vault keeps of the estimate is small, and the whole cost is below 1 %.
  assert.ok(lost > toNano('0.1195'), `the provider was overcharged: ${lost}`);
  assert.ok(received > toNano('0.1188'), `the provider received ${received}`);
  const allocation = await vault.allocation('provider');
  assert.equal(allocation.paid, toNano('0.12'));
  assert.equal(allocation.receiptsRoot, 9n);
  assert.equal((await vault.storage()).reserved, toNano('0.38'));
  await vault.assertCovered();
});

test('an internal settlement pays the full amount and the caller pays the gas', async () => {
  const vault = await allocated();
  const [before, payeeBefore] = [await vault.balance(), await vault.balance(vault.payee.address)];
  assert.equal((await vault.settleInternal('provider', '0.12', { value: toNano('0.01') })).exit, 0);
  assert.equal(before - (await vault.balance()), toNano('0.12'));
  assert.ok((await vault.balance(vault.payee.address)) - payeeBefore > toNano('0.128'));
  await vault.assertCovered();
});

test('vouchers are cumulative', async () => {
  const vault = await allocated();
  await vault.settle('provider', '0.1');
  await vault.settle('provider', '0.25');
  assert.equal((await vault.allocation('provider')).paid, toNano('0.25'));
});

test('a voucher is worth nothing the second time, nor is an older one', async () => {
  const vault = await allocated();
  await vault.settle('provider', '0.1');
  await refused(vault.settle('provider', '0.1'), Errors.NOTHING_TO_SETTLE);
  await refused(vault.settle('provider', '0.05'), Errors.NOTHING_TO_SETTLE);
  const internal = await vault.settleInternal('provider', '0.1');
  assert.equal(internal.exit, Errors.NOTHING_TO_SETTLE);
});

test('a voucher above the limit pays the limit, and the rest after growth', async () => {
  const vault = await allocated('0.1');
  assert.equal((await vault.settle('provider', '0.15')).exit, 0);
  assert.equal((await vault.allocation('provider')).paid, toNano('0.1'));
  await refused(vault.settle('provider', '0.15'), Errors.NOTHING_TO_SETTLE);
  await vault.allocate('provider', '0.1');
  assert.equal((await vault.settle('provider', '0.15')).exit, 0);
  assert.equal((await vault.allocation('provider')).paid, toNano('0.15'));
  await vault.assertCovered();
});

test('the largest cumulative is worth the limit', async () => {
  const vault = await allocated('0.1');
  const claim = { cumulative: 2n ** 64n - 1n };
  assert.equal((await vault.settle('provider', '0', { claim })).exit, 0);
  assert.equal((await vault.allocation('provider')).paid, toNano('0.1'));
});

test('forged, misdirected and mistimed vouchers are refused before they are accepted', async () => {
  const vault = await allocated();
  const sibling = await Fixture.create({ parameters: { salt: 78n } });
  const testnet = await Fixture.create({ parameters: { networkId: -3 } });
  const masterchain = new Address(-1, vault.address.hash);
  const settle = (changes) => vault.settle('provider', '0.1', changes);
  await refused(settle({ signer: keyOf('thief') }), Errors.BAD_SIGNATURE);
  await refused(settle({ signer: keyOf('provider') }), Errors.BAD_SIGNATURE);
  await refused(settle({ claim: { vault: sibling.address } }), Errors.WRONG_VAULT);
  await refused(settle({ claim: { vault: testnet.address } }), Errors.WRONG_VAULT);
  await refused(settle({ claim: { vault: masterchain } }), Errors.WRONG_VAULT);
  await refused(settle({ cell: releaseCell }), Errors.WRONG_MAGIC);
  await refused(settle({ claim: { epoch: 0 } }), Errors.WRONG_EPOCH);
  await refused(settle({ claim: { epoch: 2 } }), Errors.WRONG_EPOCH);
  await refused(settle({ claim: { provider: publicOf('other') } }), Errors.NO_ALLOCATION);
});

test('the consumer cannot settle voucher by voucher and burn the income as fees', async () => {
  const vault = await allocated();
  await refused(vault.settle('provider', '0.1', { consent: keyOf('payer') }), Errors.NO_CONSENT);
  // As an internal message it may: then it pays the fees itself.
  assert.equal((await vault.settleInternal('provider', '0.1')).exit, 0);
});

test('an external settlement that would not pay its fees is refused', async () => {
  const vault = await allocated();
  await refused(vault.settle('provider', '0.004'), Errors.TOO_SMALL);
  assert.equal((await vault.settleInternal('provider', '0.004')).exit, 0);
  assert.equal((await vault.settle('provider', '0.0089')).exit, 0);
});

test('one provider cannot settle what another was promised', async () => {
  const vault = await allocated('0.3');
  await vault.allocate('other', '0.3');
  await vault.settle('provider', '0.3');
  await refused(vault.settle('provider', '0.6'), Errors.NOTHING_TO_SETTLE);
  assert.equal((await vault.settle('other', '0.3', { claim: { epoch: 2 } })).exit, 0);
  assert.equal((await vault.storage()).reserved, 0n);
  await vault.assertCovered();
});

test('after a release request a voucher settles until the second before the end', async () => {
  const vault = await allocated();
  await vault.command(Command.requestRelease({ provider: publicOf('provider') }));
  const { unlockAt } = await vault.allocation('provider');
  assert.equal(unlockAt, vault.chain.now + RELEASE_DELAY);
  vault.chain.now = unlockAt - 1;
  assert.equal((await vault.settle('provider', '0.1')).exit, 0);
  vault.chain.now = unlockAt;
  await refused(vault.settle('provider', '0.2'), Errors.RELEASED);
  assert.equal((await vault.settleInternal('provider', '0.2')).exit, Errors.RELEASED);
});

test('a caller that attaches too little changes nothing', async () => {
  const vault = await allocated();
  const before = await vault.dataHash();
  const outcome = await vault.settleInternal('provider', '0.1', { value: toNano('0.0004') });
  assert.notEqual(outcome.exit, 0);
  assert.equal(await vault.dataHash(), before);
});

test('an internal settlement brings the forward fee, so that its provider does not pay it', async () => {
  const vault = await allocated();
  // Gas for 60,000 at the price of the configuration, and one transfer.
  const needed = 6667n + (59_900n * 4369067n + 65535n) / 65536n + 66_667n;
  const short = await vault.settleInternal('provider', '0.1', { value: needed - 1n });
  assert.equal(short.exit, Errors.TOO_SMALL);
  const before = await vault.balance(vault.payee.address);
  assert.equal((await vault.settleInternal('provider', '0.1', { value: needed })).exit, 0);
  assert.ok((await vault.balance(vault.payee.address)) - before >= toNano('0.1'));
});

// ---- network fee

test('the network fee is kept back, and the promise is counted in full', async () => {
  const vault = await allocated('0.5', { parameters: { feeBasisPoints: 250 } });
  const payeeBefore = await vault.balance(vault.payee.address);
  await vault.settleInternal('provider', '0.4', { value: toNano('0.01') });
  const storage = await vault.storage();
  assert.equal(storage.accrued, toNano('0.01'));
  assert.equal(storage.reserved, toNano('0.1'));
  assert.equal((await vault.allocation('provider')).paid, toNano('0.4'));
  const received = (await vault.balance(vault.payee.address)) - payeeBefore;
  assert.ok(received > toNano('0.398') && received < toNano('0.4'), `${received}`);
  await vault.assertCovered();
});

test('the accrued fee is nobody’s free money', async () => {
  const vault = await allocated('0.5', { parameters: { feeBasisPoints: 1000 } });
  await vault.settleInternal('provider', '0.5', { value: toNano('0.01') });
  const { free } = await view(vault);
  assert.equal(free, (await vault.balance()) - toNano('0.05') - toNano('0.05'));
  const refusedAmount = free + 1n;
  await refused(vault.command(Command.withdraw({ amount: refusedAmount })), Errors.INSUFFICIENT_FUNDS);
});

test('anyone sweeps the fee to the treasury, once it is worth a message', async () => {
  const vault = await Fixture.create({ deposit: '3', parameters: { feeBasisPoints: 1000 } });
  await vault.allocate('provider', '2');
  await vault.settle('provider', '0.99');
  await refused(vault.external(sweepBody()), Errors.TOO_SMALL);
  await vault.settle('provider', '1.5');
  const [before, treasuryBefore] = [
    await vault.balance(), await vault.balance(vault.treasury.address),
  ];
  assert.equal((await vault.external(sweepBody())).exit, 0);
  assert.equal((await vault.storage()).accrued, 0n);
  assert.ok(before - (await vault.balance()) <= toNano('0.15'));
  assert.ok((await vault.balance(vault.treasury.address)) - treasuryBefore > toNano('0.149'));
  await refused(vault.external(sweepBody()), Errors.TOO_SMALL);
  await vault.assertCovered();
});

// ---- get-methods

async function view(vault) {
  const { stackReader } = await vault.chain.runGetMethod(vault.address, 'get_vault');
  const names = [
    'seqno', 'nextEpoch', 'reserved', 'accrued', 'free', 'allocationCount', 'day', 'allocatedToday',
    'key', 'allocatableToday', 'isCovered',
  ];
  return Object.fromEntries(names.map((name) => [name, stackReader.readBigNumber()]));
}

test('the get-methods show what the data cell holds', async () => {
  const vault = await allocated();
  await vault.settle('provider', '0.1');
  const storage = await vault.storage();
  const seen = await view(vault);
  for (const name of ['seqno', 'nextEpoch', 'reserved', 'accrued', 'allocationCount', 'day', 'allocatedToday']) {
    assert.equal(seen[name], BigInt(storage[name]), name);
  }
  assert.equal(seen.free, (await vault.balance()) - storage.reserved - toNano('0.05'));
  assert.equal(seen.key, publicOf('payer'));
  assert.equal(seen.allocatableToday, UNLIMITED - storage.allocatedToday);
  assert.equal(seen.isCovered, -1n);

  const one = await vault.chain.runGetMethod(vault.address, 'get_allocation', [
    { type: 'int', value: publicOf('provider') },
  ]);
  const allocation = await vault.allocation('provider');
  for (const name of ['payout', 'limit', 'paid', 'epoch', 'unlockAt', 'receiptsRoot', 'key']) {
    assert.equal(one.stackReader.readBigNumber(), BigInt(allocation[name]), name);
  }

  const all = await vault.chain.runGetMethod(vault.address, 'get_allocations');
  assert.deepEqual(parseAllocations(all.stackReader.readCell()), storage.allocations);

  const { stackReader } = await vault.chain.runGetMethod(vault.address, 'get_parameters');
  assert.equal(stackReader.readBigNumber(), publicOf('payer'));
  assert.equal(stackReader.readNumber(), 0);
  assert.equal(stackReader.readNumber(), RELEASE_DELAY);
  assert.equal(stackReader.readBigNumber(), UNLIMITED);
  assert.ok(stackReader.readAddress().equals(vault.owner.address));
  assert.equal(stackReader.readBigNumber(), vault.parameters.treasury);
  assert.equal(stackReader.readNumber(), -239);
  assert.equal(stackReader.readBigNumber(), 77n);
});

test('asking for an allocation that is not there says so', async () => {
  const vault = await Fixture.create();
  await assert.rejects(
    vault.chain.runGetMethod(vault.address, 'get_allocation', [{ type: 'int', value: 5n }]),
    ({ exitCode }) => exitCode === Errors.NO_ALLOCATION,
  );
  const none = await vault.chain.runGetMethod(vault.address, 'get_allocations');
  assert.equal(none.stackReader.readCellOpt(), null);
});
