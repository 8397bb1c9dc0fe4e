// Another hot key: what it ends at once, and what it must not touch.

import assert from 'node:assert/strict';
import test from 'node:test';
import { Command, UNLIMITED, ownerBody, parseStorage, vaultInit, vaultAddress } from '../wrappers/Vault.mjs';
import { Errors, Fixture, RELEASE_DELAY, code, deepKeys, keyOf, publicOf, toNano } from './fixture.mjs';

const refused = async (outcome, exit) => {
  const { accepted, exit: found } = await outcome;
  assert.deepEqual([accepted, found], [false, exit]);
};
const next = keyOf('next payer');
const rotate = Command.rotateKey({ key: publicOf('next payer') });

/** A vault with half a TON for `provider`, of which a tenth was settled; then the key was rotated. */
async function rotated(parameters = {}) {
  const vault = await Fixture.create({ deposit: '2', parameters });
  await vault.allocate('provider', '0.5');
  assert.equal((await vault.settle('provider', '0.1')).exit, 0);
  assert.equal((await vault.ownerCommand(rotate)).exit, 0);
  return vault;
}

test('vouchers that the old key signed are paid to the last nanoTON after a rotation', async () => {
  const vault = await rotated({ feeBasisPoints: 100 });
  const before = await vault.balance(vault.payee.address);
  assert.equal((await vault.settle('provider', '0.2')).exit, 0);
  const value = toNano('0.01');
  assert.equal((await vault.settleInternal('provider', '0.5', { value })).exit, 0);
  const { limit, paid } = await vault.allocation('provider');
  assert.equal(limit - paid, 0n);
  assert.equal((await vault.storage()).accrued, toNano('0.005'), 'the fee is the same');
  assert.ok((await vault.balance(vault.payee.address)) - before > toNano('0.3949'));
  await vault.assertCovered();
});

test('the new key signs no vouchers of an allocation that was made under the old one', async () => {
  const vault = await rotated();
  await refused(vault.settle('provider', '0.2', { signer: next }), Errors.BAD_SIGNATURE);
});

test('the old key commands nothing any more, and the new one does', async () => {
  const vault = await rotated();
  await refused(vault.allocate('other', '0.1'), Errors.BAD_SIGNATURE);
  assert.equal((await vault.allocate('other', '0.1', { key: next })).exit, 0);
  const claim = { epoch: 2 };
  await refused(vault.settle('other', '0.05', { claim }), Errors.BAD_SIGNATURE);
  assert.equal((await vault.settle('other', '0.05', { claim, signer: next })).exit, 0);
});

test('an allocation of the old key does not grow and its release is not cancelled, by anybody', async () => {
  const vault = await rotated();
  const request = { provider: publicOf('provider'), payout: vault.payout, amount: toNano('0.1') };
  await refused(vault.allocate('provider', '0.1', { key: next }), Errors.OTHER_KEY);
  assert.equal((await vault.ownerCommand(Command.allocate(request))).exit, Errors.OTHER_KEY);
  await vault.command(Command.requestRelease(request), { key: next });
  await refused(vault.allocate('provider', '0', { key: next }), Errors.OTHER_KEY);
  vault.chain.now += RELEASE_DELAY;
  assert.equal((await vault.command(Command.finalizeRelease(request), { key: next })).exit, 0);
  assert.equal((await vault.allocate('provider', '0.1', { key: next })).exit, 0);
  await refused(vault.settle('provider', '0.1', { claim: { epoch: 2 } }), Errors.BAD_SIGNATURE);
});

test('a provider’s release of an old allocation works as before', async () => {
  const vault = await rotated();
  assert.equal((await vault.command(vault.release('provider', '0.3'), { key: next })).exit, 0);
  assert.equal((await vault.storage()).reserved, 0n);
});

test('only the owner rotates: neither hot key, nor a stranger', async () => {
  const vault = await rotated();
  const { key } = await vault.storage();
  await refused(vault.command(Command.rotateKey({ key: 5n }), { key: next }), Errors.NOT_OWNER);
  await refused(vault.command(Command.rotateKey({ key: 5n })), Errors.BAD_SIGNATURE);
  const outcome = await vault.ownerCommand(Command.rotateKey({ key: 5n }), vault.stranger);
  assert.equal(outcome.exit, Errors.NOT_OWNER);
  assert.equal((await vault.storage()).key, key);
});

test('a key that any signature fits is refused', async () => {
  const vault = await Fixture.create();
  for (const key of [0n, 1n << 248n]) {
    assert.equal((await vault.ownerCommand(Command.rotateKey({ key }))).exit, Errors.BAD_KEY);
  }
});

test('a command that waited for a rotation there and back is void', async () => {
  const vault = await Fixture.create();
  const waiting = await vault.signed(Command.withdraw({ amount: toNano('0.1') }));
  await vault.ownerCommand(rotate);
  await vault.ownerCommand(Command.rotateKey({ key: publicOf('payer') }));
  await refused(vault.external(waiting), Errors.WRONG_SEQNO);
  assert.equal((await vault.allocate('provider', '0.1')).exit, 0);
  assert.equal((await vault.allocate('provider', '0.1')).exit, 0, 'the same key again, the same allocation');
});

test('a rotation needs no free money', async () => {
  const vault = await Fixture.create({ deposit: '0.1' });
  // All free money and most of the reserve are gone: rent of twenty years.
  vault.chain.now += 20 * 365 * 86400;
  assert.equal((await vault.ownerCommand(rotate)).exit, 0);
  assert.equal((await vault.storage()).key, publicOf('next payer'));
});

test('the address proves the first key, and the state shows the one in force', async () => {
  const vault = await rotated();
  const storage = await vault.storage();
  assert.equal(storage.parameters.beginParse().loadUintBig(256), publicOf('payer'));
  assert.equal(storage.key, publicOf('next payer'));
  assert.equal((await vault.allocation('provider')).key, publicOf('payer'));
  assert.ok(vaultAddress(code, vault.parameters).equals(vault.address));
  const fresh = parseStorage(vaultInit(code, vault.parameters).data);
  assert.equal(fresh.key, vault.parameters.clientKey);
  const { stackReader } = await vault.chain.runGetMethod(vault.address, 'get_public_key');
  assert.equal(stackReader.readBigNumber(), publicOf('next payer'));
  const one = await vault.chain.runGetMethod(vault.address, 'get_allocation', [
    { type: 'int', value: publicOf('provider') },
  ]);
  one.stackReader.skip(6);
  assert.equal(one.stackReader.readBigNumber(), publicOf('payer'));
});

test('64 rotations with an allocation each leave every provider paid', async () => {
  const vault = await Fixture.create({ deposit: '10', parameters: { dailyCap: UNLIMITED } });
  const keys = deepKeys(64);
  for (const [index, provider] of keys.entries()) {
    const key = publicOf(`payer ${index}`);
    assert.equal((await vault.ownerCommand(Command.rotateKey({ key }))).exit, 0);
    const request = { provider, payout: vault.payout, amount: toNano('0.1') };
    assert.equal((await vault.ownerCommand(Command.allocate(request))).exit, 0);
  }
  await vault.assertCovered();
  // The first key's provider lies 64 cells deep, and its key in a cell that no other shares.
  const claim = { epoch: 1, provider: keys[0] };
  assert.equal((await vault.settle('provider', '0.1', { claim, signer: keyOf('payer 0') })).exit, 0);
  const before = await vault.balance();
  const outcome = await vault.internal(vault.owner, ownerBody(rotate));
  assert.equal(outcome.exit, 0);
  assert.ok(outcome.gas < 10_000, `${outcome.gas} gas`);
  assert.ok((await vault.balance()) >= before, 'the owner pays for it');
  await vault.assertCovered();
});
