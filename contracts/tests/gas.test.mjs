// Gas of every operation, held to the committed table; `npm run gas` writes it anew.
//
// A difference is not an error in itself, but it changes what users pay: look at it, then commit.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import test from 'node:test';
import { Command, sweepBody } from '../wrappers/Vault.mjs';
import { Fixture, RELEASE_DELAY, deepKeys, publicOf, toNano } from './fixture.mjs';

const table = new URL('../gas/vault.json', import.meta.url);

/** Runs every operation once; gas and the vault's own fee of each, by name. */
async function measure() {
  const measured = {};
  const record = async (name, outcome) => {
    const { exit, gas, fees } = await outcome;
    assert.equal(exit, 0, name);
    measured[name] = { gas, fee_nano: Number(fees) };
  };
  const requests = (vault, first, count) => Array.from({ length: count }, (_, index) => ({
    provider: publicOf(`provider ${first + index}`), payout: vault.payout, amount: toNano('0.01'),
  }));
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

test('gas and fees are as committed', async () => {
  const measured = await measure();
  if (process.env.UPDATE_GAS) await writeFile(table, `${JSON.stringify(measured, null, 2)}\n`);
  assert.deepEqual(measured, JSON.parse(await readFile(table, 'utf8')));
});
