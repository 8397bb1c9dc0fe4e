// Releases, withdrawals, the owner: how money comes back, and to whom.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Address } from '@ton/core';
import { Command, voucherCell } from '../wrappers/Vault.mjs';
import { Errors, Fixture, RELEASE_DELAY, keyOf, publicOf, toNano } from './fixture.mjs';

const provider = publicOf('provider');
const requestRelease = Command.requestRelease({ provider });
const finalizeRelease = Command.finalizeRelease({ provider });

const allocated = async (amount = '0.5', options) => {
  const vault = await Fixture.create(options);
  assert.equal((await vault.allocate('provider', amount)).exit, 0);
  return vault;
};

const refused = async (outcome, error) => {
  const { accepted, exit } = await outcome;
  assert.deepEqual([accepted, exit], [false, error]);
};

// ---- by the consumer alone

test('a release frees the rest after its delay, not a second before', async () => {
  const vault = await allocated();
  await refused(vault.command(finalizeRelease), Errors.TOO_EARLY);
  await vault.command(requestRelease);
  const { unlockAt } = await vault.allocation('provider');
  vault.chain.now = unlockAt - 1;
  await refused(vault.command(finalizeRelease), Errors.TOO_EARLY);
  await vault.settle('provider', '0.2');
  vault.chain.now = unlockAt;
  assert.equal((await vault.command(finalizeRelease)).exit, 0);
  const storage = await vault.storage();
  assert.equal(storage.reserved, 0n);
  assert.equal(storage.allocationCount, 0);
  assert.deepEqual(storage.allocations, []);
  await vault.assertCovered();
});

test('a second request does not move the deadline', async () => {
  const vault = await allocated();
  await vault.command(requestRelease);
  await refused(vault.command(requestRelease), Errors.ALREADY_RELEASING);
});

test('allocating again cancels a release, also with nothing and after its delay', async () => {
  const vault = await allocated();
  for (const [amount, wait] of [['0.1', 0], ['0', 0], ['0', RELEASE_DELAY]]) {
    await vault.command(requestRelease);
    vault.chain.now += wait;
    assert.equal((await vault.allocate('provider', amount)).exit, 0);
    assert.equal((await vault.allocation('provider')).unlockAt, 0);
    await refused(vault.command(finalizeRelease), Errors.TOO_EARLY);
  }
  assert.equal((await vault.settle('provider', '0.3')).exit, 0);
});

test('vouchers die with their allocation: a new one has an epoch never used before', async () => {
  const vault = await allocated();
  await vault.command(requestRelease);
  vault.chain.now += RELEASE_DELAY;
  await vault.command(finalizeRelease);
  await refused(vault.settle('provider', '0.1'), Errors.NO_ALLOCATION);
  await vault.allocate('provider', '0.5');
  assert.equal((await vault.allocation('provider')).epoch, 2);
  await refused(vault.settle('provider', '0.1'), Errors.WRONG_EPOCH);
  assert.equal((await vault.settle('provider', '0.1', { claim: { epoch: 2 } })).exit, 0);
});

test('releases of unknown providers are refused', async () => {
  const vault = await Fixture.create();
  await refused(vault.command(requestRelease), Errors.NO_ALLOCATION);
  await refused(vault.command(finalizeRelease), Errors.NO_ALLOCATION);
  await refused(vault.command(vault.release('provider', '0')), Errors.NO_ALLOCATION);
});

// ---- with the provider

test('the provider’s signature releases at once, with the final payment in full', async () => {
  const vault = await allocated();
  await vault.settle('provider', '0.1');
  const payeeBefore = await vault.balance(vault.payee.address);
  assert.equal((await vault.command(vault.release('provider', '0.3'))).exit, 0);
  // The payee's own wallet contract takes a little gas for receiving.
  assert.ok((await vault.balance(vault.payee.address)) - payeeBefore > toNano('0.1998'));
  assert.equal((await vault.storage()).reserved, 0n);
  await vault.assertCovered();
});

test('a release with nothing due sends nothing', async () => {
  const vault = await allocated();
  const outcome = await vault.command(vault.release('provider', '0'));
  assert.deepEqual([outcome.exit, outcome.sent.length], [0, 0]);
  assert.equal((await vault.storage()).allocationCount, 0);
});

test('a release holds though a later voucher was settled meanwhile, and pays no more', async () => {
  const vault = await allocated();
  const release = vault.release('provider', '0.1');
  await vault.settle('provider', '0.2');
  const outcome = await vault.command(release);
  assert.deepEqual([outcome.exit, outcome.sent.length], [0, 0]);
  assert.equal((await vault.storage()).reserved, 0n);
});

test('a release that promises more than there is does not cheat the provider', async () => {
  const vault = await allocated();
  await refused(vault.command(vault.release('provider', '0.6')), Errors.OVER_LIMIT);
});

test('forged and misdirected releases are refused', async () => {
  const vault = await allocated();
  const sibling = await Fixture.create({ parameters: { salt: 78n } });
  const release = (changes) => vault.command(vault.release('provider', '0.1', changes));
  await refused(release({ signer: keyOf('payer') }), Errors.BAD_SIGNATURE);
  await refused(release({ signer: keyOf('other') }), Errors.BAD_SIGNATURE);
  await refused(release({ claim: { epoch: 2 } }), Errors.WRONG_EPOCH);
  await refused(release({ claim: { vault: sibling.address } }), Errors.WRONG_VAULT);
  const claim = voucherCell(vault.claim('provider', '0.1'));
  const signature = Buffer.alloc(64);
  await refused(vault.command(Command.release({ claim, signature })), Errors.WRONG_MAGIC);
});

test('the network fee is kept from a final payment too', async () => {
  const vault = await allocated('0.5', { parameters: { feeBasisPoints: 1000 } });
  await vault.command(vault.release('provider', '0.4'));
  assert.equal((await vault.storage()).accrued, toNano('0.04'));
  await vault.assertCovered();
});

// ---- withdrawals

test('free money goes to the owner, and only there', async () => {
  const vault = await allocated();
  const ownerBefore = await vault.balance(vault.owner.address);
  const outcome = await vault.command(Command.withdraw({ amount: toNano('0.3') }));
  assert.equal(outcome.exit, 0);
  assert.equal(outcome.sent.length, 1);
  assert.ok(outcome.sent[0].info.dest.equals(vault.owner.address));
  assert.ok((await vault.balance(vault.owner.address)) - ownerBefore > toNano('0.2995'));
  await vault.assertCovered();
});

test('allocated money and the reserve cannot be withdrawn', async () => {
  const vault = await allocated();
  await refused(vault.command(Command.withdraw({ amount: toNano('0.45') })), Errors.INSUFFICIENT_FUNDS);
  await refused(vault.command(Command.withdraw({ amount: 2n ** 64n - 1n })), Errors.INSUFFICIENT_FUNDS);
  await refused(vault.command(Command.withdraw({ amount: 0n })), Errors.ZERO_AMOUNT);
});

test('closing needs an empty vault, gives the reserve back, and forgets nothing', async () => {
  const vault = await allocated();
  await refused(vault.command(Command.close()), Errors.NOT_EMPTY);
  await vault.command(vault.release('provider', '0'));
  assert.equal((await vault.command(Command.close())).exit, 0);
  const left = await vault.balance();
  assert.ok(left >= toNano('0.005') && left < toNano('0.01'), `${left}`);
  // The account lives on, so an old voucher or command can never become valid again.
  assert.equal((await vault.storage()).nextEpoch, 2);
  assert.equal((await vault.storage()).seqno, 3);
  await refused(vault.command(Command.close()), Errors.INSUFFICIENT_FUNDS);
  await vault.stranger.send({ to: vault.address, value: toNano('1') });
  assert.equal((await vault.allocate('provider', '0.1')).exit, 0);
  assert.equal((await vault.allocation('provider')).epoch, 2);
});

test('closing leaves the accrued fee to the treasury', async () => {
  const vault = await allocated('0.5', { parameters: { feeBasisPoints: 1000 } });
  await vault.command(vault.release('provider', '0.5'));
  await vault.command(Command.close());
  assert.equal((await vault.storage()).accrued, toNano('0.05'));
  await vault.assertCovered();
});

test('a withdrawal that cannot be delivered is used up and loses nothing', async () => {
  // The action phase fails on a workchain that does not exist.
  const vault = await Fixture.create({
    parameters: { owner: new Address(5, Buffer.alloc(32, 1)) },
  });
  const body = await vault.signed(Command.withdraw({ amount: toNano('0.1') }));
  const outcome = await vault.external(body);
  assert.deepEqual([outcome.exit, outcome.sent.length], [0, 0]);
  assert.ok((await vault.balance()) > toNano('0.99'));
  await refused(vault.external(body), Errors.WRONG_SEQNO);
});

// ---- the owner

test('the owner commands without the hot key, should it be lost', async () => {
  const vault = await allocated();
  assert.equal((await vault.ownerCommand(requestRelease)).exit, 0);
  vault.chain.now += RELEASE_DELAY;
  assert.equal((await vault.ownerCommand(finalizeRelease)).exit, 0);
  assert.equal((await vault.ownerCommand(Command.withdraw({ amount: toNano('0.8') }))).exit, 0);
  assert.equal((await vault.ownerCommand(Command.close())).exit, 0);
  // The hot key's seqno is its own.
  assert.equal((await vault.storage()).seqno, 1);
});

test('an owner cannot take what a provider was promised', async () => {
  const vault = await allocated();
  const withdraw = await vault.ownerCommand(Command.withdraw({ amount: toNano('0.46') }));
  assert.equal(withdraw.exit, Errors.INSUFFICIENT_FUNDS);
  assert.equal((await vault.ownerCommand(finalizeRelease)).exit, Errors.TOO_EARLY);
  assert.equal((await vault.ownerCommand(Command.close())).exit, Errors.NOT_EMPTY);
  await vault.assertCovered();
});

test('nobody else commands by internal message', async () => {
  const vault = await allocated();
  for (const wallet of [vault.stranger, vault.payee, vault.treasury]) {
    const outcome = await vault.ownerCommand(requestRelease, wallet);
    assert.equal(outcome.exit, Errors.NOT_OWNER);
    // The money of a refused message goes back.
    assert.equal(outcome.sent.length, 1);
    assert.ok(outcome.sent[0].info.bounced);
  }
});
