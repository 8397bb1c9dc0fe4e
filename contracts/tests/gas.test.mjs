// Gas of every operation, held to the committed table; `npm run gas` writes it anew, and
// `npm run gas -- --table` also the table in the README.
//
// A difference is not an error in itself, but it changes what users pay: look at it, then commit.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import test from 'node:test';
import { external, internal } from '@ton/core';
import {
  Command, ownerBody, payoutOf, sweepBody, vaultAddress, vaultInit,
} from '../wrappers/Vault.mjs';
import { request, wallet } from '../wrappers/Wallet.mjs';
import { Fixture, RELEASE_DELAY, code, deepKeys, keyOf, publicOf, toNano } from './fixture.mjs';

const requests = (vault, first, count) => Array.from({ length: count }, (_, index) => ({
  provider: publicOf(`provider ${first + index}`), payout: vault.payout, amount: toNano('0.01'),
}));

/** Runs every operation once; gas and the vault's own fee of each, by name. */
async function measure() {
  const measured = {};
  const record = async (name, outcome) => {
    const { exit, gas, fees } = await outcome;
    assert.equal(exit, 0, name);
    measured[name] = { gas, fee_nano: Number(fees) };
  };
  const key = { provider: publicOf('provider') };

  const vault = await Fixture.create({ deposit: '20', parameters: { feeBasisPoints: 1000 } });
  await record('deploy with a deposit', vault.outcome(vault.deployed));
  await record('top-up', vault.internal(vault.stranger, undefined));
  await record('allocate, first', vault.allocate('provider', '3'));
  await record('allocate, grow', vault.allocate('provider', '1'));
  await record('settle external, 1 allocation', vault.settle('provider', '1'));
  await record('settle internal, 1 allocation', vault.settleInternal('provider', '1.5'));
  await record('sweep', vault.external(sweepBody()));
  await record('request release', vault.command(Command.requestRelease(key)));
  vault.chain.now += RELEASE_DELAY;
  await record('finalize release', vault.command(Command.finalizeRelease(key)));
  await vault.allocate('provider', '1');
  await record('release with a final payment', vault.command(
    vault.release('provider', '0.5', { claim: { epoch: 2 } }),
  ));
  await record('withdraw', vault.command(Command.withdraw({ amount: toNano('1') })));
  await record('withdraw by the owner', vault.ownerCommand(Command.withdraw({ amount: toNano('1') })));
  await record('rebalance, 10 new', vault.command(Command.rebalance({ requests: requests(vault, 0, 10) })));
  await record('rebalance, 10 grown', vault.command(Command.rebalance({ requests: requests(vault, 0, 10) })));
  for (const first of [10, 26, 42]) {
    await vault.command(Command.rebalance({ requests: requests(vault, first, 16) }));
  }
  await vault.command(Command.rebalance({ requests: requests(vault, 58, 5) }));
  await record('allocate, 64th', vault.allocate('provider', '1'));
  await record('settle external, 64 allocations', vault.settle('provider', '0.5', {
    claim: { epoch: (await vault.allocation('provider')).epoch },
  }));
  await record('settle internal, 64 allocations', vault.settleInternal('provider', '1', {
    claim: { epoch: (await vault.allocation('provider')).epoch },
  }));

  const empty = await Fixture.create();
  await record('close', empty.command(Command.close()));
  await record('rotate key, by the owner', empty.ownerCommand(
    Command.rotateKey({ key: publicOf('next payer') }),
  ));

  const deep = await Fixture.create({ deposit: '20' });
  await deep.allocate('provider', '1');
  const keys = deepKeys(64).slice(1);
  for (let first = 0; first < keys.length; first += 16) {
    await deep.command(Command.rebalance({
      requests: keys.slice(first, first + 16).map((provider) => ({
        provider, payout: deep.payout, amount: toNano('0.01'),
      })),
    }));
  }
  await record('settle external, worst map', deep.settle('provider', '0.5'));
  return measured;
}

// ---- what a person loses in all

/** A wallet of version 5 with 30 TON that has sent something before. */
async function withWallet(chain, name) {
  const key = keyOf(name);
  const { address, init } = wallet(key);
  await (await chain.treasury('source')).send({ to: address, value: toNano('30'), bounce: false, init });
  let seqno = 0;
  const send = async (messages) => {
    const body = request(key, seqno, chain.now + 60, messages);
    seqno += 1;
    return chain.sendMessage(external({ to: address, body }));
  };
  await send([internal({ to: address, value: 1n, bounce: false })]);
  return { address, send };
}

/** By name, what is gone afterwards that nobody has: of the wallet, or of what the vault holds. */
async function measureAllIn() {
  const all = {};
  const vault = await Fixture.create({ deposit: '20' });
  const { chain } = vault;
  const balance = (address) => vault.balance(address);
  const owner = await withWallet(chain, 'owner of a wallet');
  const provider = await withWallet(chain, 'provider of a wallet');
  const payout = payoutOf(provider.address);
  const parameters = { ...vault.parameters, owner: owner.address, salt: 78n };
  const address = vaultAddress(code, parameters);
  const value = toNano('15');

  let before = await balance(owner.address);
  await owner.send([internal({ to: address, value, bounce: false, init: vaultInit(code, parameters) })]);
  all['open with a deposit'] = before - (await balance(owner.address)) - (await balance(address));
  vault.address = address;
  vault.parameters = parameters;

  /** Of a command, which the vault pays; what reached `to` is not lost. */
  const command = async (name, body, to = owner.address, run = () => vault.command(body)) => {
    const [held, had] = [await balance(address), await balance(to)];
    const { exit } = await run();
    assert.equal(exit, 0, name);
    all[name] = held - (await balance(address)) - ((await balance(to)) - had);
  };
  const key = { provider: publicOf('provider') };
  await command('allocate', Command.allocate({ ...key, payout, amount: toNano('2') }));
  await command('allocate to 10 at once', Command.rebalance({ requests: requests({ payout }, 0, 10) }));
  const settle = (cumulative) => () => vault.settle('provider', cumulative);
  await command('settle, carried by anyone', null, provider.address, settle('0.12'));
  before = [await balance(provider.address), await balance(address)];
  await provider.send([internal({
    to: address, value: toNano('0.01'), bounce: true,
    body: vault.settlement('provider', '0.24', { internal: true }),
  })]);
  const paid = before[1] - (await balance(address));
  assert.equal(paid, toNano('0.12'));
  all['settle by the provider’s own wallet'] = paid - ((await balance(provider.address)) - before[0]);
  await command('request a release', Command.requestRelease(key));
  chain.now += RELEASE_DELAY;
  await command('take back after the delay', Command.finalizeRelease(key));
  const again = await vault.allocate('provider', '1', { request: { payout } });
  assert.equal(again.exit, 0);
  const epoch = (await vault.allocation('provider')).epoch;
  const release = vault.release('provider', '0.5', { claim: { epoch } });
  await command('release, signed by the provider', release, provider.address);
  await command('withdraw', Command.withdraw({ amount: toNano('1') }));
  before = [await balance(owner.address), await balance(address)];
  await owner.send([internal({
    to: address, value: toNano('0.01'), bounce: true,
    body: ownerBody(Command.rotateKey({ key: publicOf('next payer') })),
  })]);
  assert.equal((await vault.storage()).key, publicOf('next payer'));
  all['another hot key, by the owner'] =
    before[0] - (await balance(owner.address)) - ((await balance(address)) - before[1]);
  before = await balance(owner.address);
  const held = await balance(address);
  await owner.send([internal({ to: address, value: toNano('1'), bounce: false })]);
  all['top up'] = before - (await balance(owner.address)) - ((await balance(address)) - held);
  return Object.fromEntries(Object.entries(all).map(([name, nano]) => [name, Number(nano)]));
}

async function committed(file, measured) {
  const path = new URL(`../gas/${file}`, import.meta.url);
  if (process.env.UPDATE_GAS) await writeFile(path, `${JSON.stringify(measured, null, 2)}\n`);
  assert.deepEqual(measured, JSON.parse(await readFile(path, 'utf8')));
}

test('gas and fees are as committed', async () => committed('vault.json', await measure()));

test('what a person loses in all is as committed, and within what was promised', async () => {
  const measured = await measureAllIn();
  await committed('all-in.json', measured);
  const settled = measured['settle, carried by anyone'];
  assert.ok(settled <= toNano('0.0015'), `${settled}`);
  // Through a wallet it costs the wallet's own gas as well; nobody has to.
  const walled = measured['settle by the provider’s own wallet'];
  assert.ok(walled <= toNano('0.0016'), `${walled}`);
  const opened = measured['open with a deposit'] + measured['allocate to 10 at once'];
  assert.ok(opened <= toNano('0.01'), `${opened}`);
});
