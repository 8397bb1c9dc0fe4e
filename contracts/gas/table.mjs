// Writes the table of costs into the project's README, between its markers; `--check` compares.
//
// Owns: the table's words. The figures are those of the committed measurements beside this file.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { writeOrCheck } from '../committed.mjs';

const readme = fileURLToPath(new URL('../../README.md', import.meta.url));
const figures = (name) => JSON.parse(readFileSync(new URL(`${name}.json`, import.meta.url), 'utf8'));
const [vault, registry, allIn] = ['vault', 'registry', 'all-in'].map(figures);

const ton = (nano) => (Number(nano) / 1e9).toFixed(6);

/** What a person loses in all, beside the measurement of the operation alone. */
const inAll = {
  'deploy with a deposit': 'open with a deposit',
  'top-up': 'top up',
  'allocate, first': 'allocate',
  'settle external, 1 allocation': 'settle, carried by anyone',
  'settle internal, 1 allocation': 'settle by the provider’s own wallet',
  'request release': 'request a release',
  'finalize release': 'take back after the delay',
  'release with a final payment': 'release, signed by the provider',
  withdraw: 'withdraw',
  'rebalance, 10 new': 'allocate to 10 at once',
  'rotate key, by the owner': 'another hot key, by the owner',
};

const unused = Object.values(inAll).filter((name) => !(name in allIn));
if (unused.length || Object.keys(allIn).length !== Object.keys(inAll).length) {
  throw new Error(`the table and gas/all-in.json name different things: ${unused}`);
}

const rows = [
  ...Object.entries(vault).map(([name, entry]) => [`vault: ${name}`, entry, allIn[inAll[name]]]),
  ...Object.entries(registry).map(([name, entry]) => [`registry: ${name}`, entry]),
].map(([name, { gas, fee_nano: fee }, all]) =>
  `| ${name} | ${gas.toLocaleString('en-US')} | ${ton(fee)} | ${all === undefined ? '' : ton(all)} |`);

const table = [
  '| operation | gas | contract’s fee, TON | all-in, TON |',
  '|---|---|---|---|',
  ...rows,
].join('\n');
const opened = allIn['open with a deposit'] + allIn['allocate to 10 at once'];
const text = `${table}

Opening a vault and allocating to ten providers costs ${ton(opened)} TON, a settlement ${ton(allIn['settle, carried by anyone'])} TON. Made by
\`npm run gas -- --table\` in \`contracts/\`, in the reference emulator under the main network's prices of June 2026. All-in is what is gone that
nobody has afterwards: of a message through a wallet of version 5, the wallet's gas and all forwarding too; of a signed command or a settlement
that anyone carries, what the vault or the payment loses; measured with 11 allocations, but for the first.`;

const [begin, end] = ['<!-- gas:begin -->', '<!-- gas:end -->'];
const before = readFileSync(readme, 'utf8');
const [from, to] = [before.indexOf(begin), before.indexOf(end)];
if (from < 0 || to < from) throw new Error(`README.md has no ${begin} and ${end}`);
await writeOrCheck(readme, `${before.slice(0, from + begin.length)}\n${text}\n${before.slice(to)}`);
