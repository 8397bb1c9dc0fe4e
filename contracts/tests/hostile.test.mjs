// What an attacker, a broken sender, or a change of the network can do: as little as promised.

import assert from 'node:assert/strict';
import test from 'node:test';
import { beginCell } from '@ton/core';
import {
  Command, CommandOpcode, Opcode, settleExternalBody, signCell,
  sweepBody, vaultInit, voucherCell,
} from '../wrappers/Vault.mjs';
import {
  Errors, Fixture, code, configWith, deepKeys, keyOf, publicOf, toNano,
} from './fixture.mjs';

const provider = publicOf('provider');

const allocated = async (amount = '0.5', options) => {
  const vault = await Fixture.create(options);
  assert.equal((await vault.allocate('provider', amount)).exit, 0);
  return vault;
};

/** A generator with a seed, so that a failure can be repeated. */
function* numbers(seed) {
  let state = seed;
  for (;;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state;
  }
}

test('a plain transfer tops up, with or without a comment', async () => {
  const vault = await Fixture.create();
  const comment = beginCell().storeUint(0, 32).storeStringTail('for the models').endCell();
  for (const body of [undefined, comment]) {
    const before = await vault.balance();
    assert.equal((await vault.internal(vault.stranger, body, toNano('0.5'))).exit, 0);
    assert.ok((await vault.balance()) - before > toNano('0.4999'));
  }
});

test('an unknown internal message bounces with its money', async () => {
  const vault = await Fixture.create();
  const before = await vault.balance();
  const body = beginCell().storeUint(0xdeadbeef, 32).endCell();
  const outcome = await vault.internal(vault.stranger, body, toNano('0.5'));
  assert.equal(outcome.exit, Errors.UNKNOWN_MESSAGE);
  assert.ok(outcome.sent[0].info.bounced);
  assert.equal(await vault.balance(), before);
});

test('random external bodies are never accepted', async () => {
  const vault = await allocated();
  const random = numbers(7);
  const before = await vault.dataHash();
  const heads = [...Object.values(Opcode), ...Object.values(CommandOpcode), 0, 0xffffffff];
  for (let round = 0; round < 200; round += 1) {
    let cell = beginCell();
    if (round % 4) cell.storeUint(heads[random.next().value % heads.length], 32);
    for (let left = random.next().value % 30; left > 0; left -= 1) cell.storeUint(random.next().value, 32);
    for (let refs = random.next().value % 4; refs > 0; refs -= 1) {
      cell.storeRef(beginCell().storeUint(random.next().value, 32).endCell());
    }
    assert.equal((await vault.external(cell.endCell())).accepted, false, `round ${round}`);
  }
  assert.equal(await vault.dataHash(), before);
});

test('an unknown command is refused by name', async () => {
  const vault = await Fixture.create();
  const outcome = await vault.command(beginCell().storeUint(0x43430199, 32));
  assert.deepEqual([outcome.accepted, outcome.exit], [false, Errors.UNKNOWN_COMMAND]);
});

test('padding that would raise the import fee is refused', async () => {
  const vault = await allocated();
  const padded = (body) => beginCell().storeSlice(body.asSlice()).storeUint(0, 1).endCell();
  const referring = (body) =>
    beginCell().storeSlice(body.asSlice()).storeRef(beginCell().storeUint(1, 8).endCell()).endCell();
  const settle = vault.settlement('provider', '0.1');
  const signed = await vault.signed(Command.withdraw({ amount: toNano('0.1') }));
  for (const body of [settle, signed, sweepBody()]) {
    for (const spoilt of [padded(body), referring(body)]) {
      assert.equal((await vault.external(spoilt)).accepted, false);
    }
  }
  assert.equal((await vault.external(settle)).exit, 0);
});

test('a padded voucher or consent is refused', async () => {
  const vault = await allocated();
  const cell = voucherCell(vault.claim('provider', '0.1'));
  const padded = beginCell().storeSlice(cell.asSlice()).storeUint(1, 1).endCell();
  const body = settleExternalBody(
    padded, signCell(padded, vault.payer.secretKey), signCell(padded, keyOf('provider').secretKey),
  );
  assert.equal((await vault.external(body)).accepted, false);
  // The consent is nobody's signed cell, so only the parser keeps it from carrying freight.
  const settle = vault.settlement('provider', '0.1').beginParse();
  const [root, voucher, consent] = [settle.loadBits(544), settle.loadRef(), settle.loadRef()];
  const freight = beginCell().storeSlice(consent.asSlice()).storeRef(beginCell().storeUint(1, 1000).endCell());
  const longer = beginCell().storeSlice(consent.asSlice()).storeUint(0, 1);
  for (const spoilt of [freight, longer]) {
    const padding = beginCell().storeBits(root).storeRef(voucher).storeRef(spoilt.endCell()).endCell();
    assert.equal((await vault.external(padding)).accepted, false);
  }
  assert.equal((await vault.settle('provider', '0.1')).exit, 0);
});

test('a foreign state init attached to a settlement is refused by the network', async () => {
  const vault = await allocated();
  const junk = beginCell().storeUint(0, 1000).endCell();
  const outcome = await vault.external(vault.settlement('provider', '0.1'), { code: junk, data: junk });
  assert.equal(outcome.accepted, false);
});

test('the vault’s own state init, attached by a stranger, cannot cost what is promised', async () => {
  const vault = await allocated('0.5', { deposit: '0.56' });
  const init = vaultInit(code, vault.parameters);
  let [settled, loss] = [0n, 0n];
  for (let step = 1; step <= 50; step += 1) {
    const before = await vault.balance();
    const cumulative = (step / 100).toFixed(2);
    const outcome = await vault.external(vault.settlement('provider', cumulative), init);
    if (!outcome.accepted) {
      assert.equal(outcome.exit, Errors.UNDERFUNDED);
      break;
    }
    settled += toNano('0.01');
    loss += before - (await vault.balance()) - toNano('0.01');
    await vault.assertCovered();
  }
  assert.ok(loss > 0n && loss <= (settled / toNano('0.01')) * toNano('0.002'), `${loss}`);
  await vault.assertCovered();
});

test('a settlement is refused, not half paid, while the vault is short of what it owes', async () => {
  const vault = await allocated('0.5', { deposit: '0.56' });
  // Rent of sixty years: nobody could take the money out in a quicker way.
  vault.chain.now += 60 * 365 * 86400;
  const { reserved } = await vault.storage();
  const before = await vault.dataHash();
  const outcome = await vault.settle('provider', '0.1');
  assert.deepEqual([outcome.accepted, outcome.exit], [false, Errors.UNDERFUNDED]);
  assert.equal(await vault.dataHash(), before);
  assert.ok((await vault.balance()) > reserved, 'rent is due, but not collected yet');
  // Anyone can mend it.
  await vault.stranger.send({ to: vault.address, value: toNano('1') });
  assert.equal((await vault.settle('provider', '0.1')).exit, 0);
  await vault.assertCovered();
});

test('the reserve pays ten years of rent of a vault with one allocation, and four with 64', async () => {
  for (const [count, years] of [[1, 10], [64, 4]]) {
    const vault = await Fixture.create({ deposit: '2' });
    for (let first = 0; first < count; first += 16) {
      const requests = Array.from({ length: Math.min(16, count - first) }, (_, index) => ({
        provider: publicOf(`provider ${first + index}`), payout: vault.payout, amount: toNano('0.01'),
      }));
      assert.equal((await vault.command(Command.rebalance({ requests }))).exit, 0);
    }
    const before = await vault.balance();
    vault.chain.now += years * 365 * 86400;
    await vault.stranger.send({ to: vault.address, value: 1n, bounce: false });
    const rent = before - (await vault.balance());
    assert.ok(rent > 0n && rent < toNano('0.05'), `${years} years of ${count}: ${rent}`);
  }
});

test('the hot key cannot burn what is promised on gas', async () => {
  const vault = await Fixture.create({ deposit: '1' });
  await vault.allocate('provider', '0.94');
  let commands = 0;
  for (; commands < 200; commands += 1) {
    const first = await vault.command(Command.requestRelease({ provider }));
    if (!first.accepted) {
      assert.equal(first.exit, Errors.INSUFFICIENT_FUNDS);
      break;
    }
    if (!(await vault.allocate('provider', '0')).accepted) break;
  }
  assert.ok(commands < 200, 'commands never end');
  const { reserved } = await vault.storage();
  assert.ok((await vault.balance()) - reserved >= toNano('0.02'));
  assert.equal((await vault.settle('provider', '0.94')).exit, 0);
  await vault.assertCovered();
});

// ---- the worst map

/** 64 allocations of which the victim's lies 64 cells deep. */
async function deep() {
  const vault = await Fixture.create({ deposit: '50' });
  const [victim, ...others] = deepKeys(64);
  assert.equal((await vault.allocate('provider', '1')).exit, 0);
  for (let first = 0; first < others.length; first += 16) {
    const requests = others.slice(first, first + 16).map((key) => ({
      provider: key, payout: vault.payout, amount: toNano('0.01'),
    }));
    const outcome = await vault.command(Command.rebalance({ requests }));
    assert.equal(outcome.exit, 0);
    assert.ok(outcome.gas <= 12_000 + 50_000 * requests.length, `batch: ${outcome.gas} gas`);
  }
  await vault.assertCovered();
  return { vault, victim };
}

test('a consumer cannot lock a provider out with a map of its own making', async () => {
  const { vault } = await deep();
  const before = await vault.balance();
  const outcome = await vault.settle('provider', '0.5');
  assert.equal(outcome.exit, 0);
  assert.ok(outcome.gas <= 60_000, `${outcome.gas} gas`);
  assert.ok(before - (await vault.balance()) <= toNano('0.5'), 'the provider paid for it');
  assert.equal((await vault.settleInternal('provider', '0.6')).exit, 0);
  await vault.assertCovered();
});

test('in the worst map the bounds on gas hold for the owner’s commands', async () => {
  const { vault, victim } = await deep();
  const request = { provider: victim, payout: vault.payout, amount: toNano('0.01') };
  const run = async (name, command, bound) => {
    const outcome = await vault.ownerCommand(command);
    assert.equal(outcome.exit, 0, name);
    assert.ok(outcome.gas <= bound, `${name}: ${outcome.gas} gas`);
  };
  // Gas before the command of an owner is less than the 10,000 credit of a signed one.
  await run('grow', Command.allocate(request), 50_000);
  await run('request', Command.requestRelease({ provider: victim }), 50_000);
  await vault.internal(vault.owner, undefined, toNano('1'));
  const requests = Array.from({ length: 16 }, () => request);
  const body = Command.rebalance({ requests });
  await run('batch', body, 12_000 + 16 * 50_000);
  await run('release', vault.release('provider', '0.5'), 50_000);
  await run('allocate', Command.allocate(request), 50_000);
});

// ---- prices

test('prices are read from the network, not written down', async () => {
  const expensive = configWith(21, (cell) => {
    const slice = cell.beginParse();
    const prefix = slice.loadUint(8);
    const flatLimit = slice.loadUintBig(64);
    const flatPrice = slice.loadUintBig(64);
    const tag = slice.loadUint(8);
    const price = slice.loadUintBig(64);
    return beginCell().storeUint(prefix, 8).storeUint(flatLimit, 64).storeUint(flatPrice * 20n, 64)
      .storeUint(tag, 8).storeUint(price * 20n, 64).storeSlice(slice).endCell();
  });
  const parameters = beginCell();
  expensive.storeDirect(parameters);
  const vault = await allocated('1', { deposit: '3', withConfig: parameters.endCell() });
  const before = await vault.balance();
  // 20 times the price of gas: what paid for itself does not any more.
  assert.equal((await vault.settle('provider', '0.05')).exit, Errors.TOO_SMALL);
  assert.equal((await vault.settle('provider', '0.12')).exit, 0);
  assert.ok(before - (await vault.balance()) <= toNano('0.12'), 'the provider pays');
  await vault.assertCovered();
});

test('a forward fee above the payment is refused before it is accepted', async () => {
  const expensive = configWith(25, (cell) => {
    const slice = cell.beginParse();
    const tag = slice.loadUint(8);
    slice.skip(64);
    return beginCell().storeUint(tag, 8).storeUint(toNano('0.2'), 64).storeSlice(slice).endCell();
  });
  const parameters = beginCell();
  expensive.storeDirect(parameters);
  const vault = await allocated('1', { deposit: '5', withConfig: parameters.endCell() });
  const outcome = await vault.settle('provider', '0.3');
  assert.deepEqual([outcome.accepted, outcome.exit], [false, Errors.TOO_SMALL]);
});

// ---- histories

test('in 16 random histories the vault always covers what it owes', async () => {
  const names = ['provider', 'other', 'third'];
  let happened = 0;
  for (let seed = 1; seed <= 16; seed += 1) {
    const random = numbers(seed);
    const pick = (bound) => (random.next().value >>> 8) % bound;
    const vault = await Fixture.create({ parameters: { feeBasisPoints: (seed % 3) * 500 } });
    for (let step = 0; step < 25; step += 1) {
      const name = names[pick(3)];
      const key = { provider: publicOf(name) };
      const amount = (pick(40) / 100).toFixed(2);
      const epoch = (await vault.allocation(name))?.epoch ?? 1;
      const claim = { claim: { epoch } };
      const actions = [
        () => vault.allocate(name, amount),
        () => vault.settle(name, amount, claim),
        () => vault.settleInternal(name, amount, { ...claim, value: toNano('0.02') }),
        () => vault.command(Command.requestRelease(key)),
        () => vault.command(Command.finalizeRelease(key)),
        () => vault.command(vault.release(name, amount, claim)),
        () => vault.command(Command.withdraw({ amount: toNano(amount) })),
        () => vault.ownerCommand(Command.requestRelease(key)),
        () => vault.internal(vault.stranger, undefined, toNano('0.2')),
        () => vault.external(sweepBody()),
      ];
      const outcome = await actions[pick(actions.length)]();
      // An accepted external message succeeds: nothing throws after ACCEPT.
      if (outcome.accepted && outcome.own.inMessage.info.type === 'external-in') {
        assert.deepEqual([outcome.exit, outcome.action], [0, 0], `seed ${seed}, step ${step}`);
        happened += 1;
      }
      vault.chain.now += pick(4) * 9000;
      await vault.assertCovered();
    }
  }
  assert.ok(happened > 60, `only ${happened} external messages were accepted`);
});
