// Records what the reference emulator does with generated histories, for model and embedded ledger to be held to.
//
// Owns: protocol/testdata/vault-traces.json. The histories are the generator's of
// node/ledger/tests/histories (`scripts/histories --record` exports them and calls this program with
// the file); without a file the messages that are committed already are executed again. Rent is
// switched off, because the model knows no rent; all else is the network's configuration.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Address, Cell, beginCell, loadMessage } from '@ton/core';
import { Blockchain } from '@ton/sandbox';
import { writeOrCheck } from '../committed.mjs';
import { configWith } from '../tests/fixture.mjs';

const committed = fileURLToPath(new URL('../../protocol/testdata/vault-traces.json', import.meta.url));

/** The network's configuration without rent. */
function withoutRent() {
  const entry = beginCell().storeUint(0xcc, 8).storeUint(0, 32);
  for (let price = 0; price < 4; price += 1) entry.storeUint(0, 64);
  const root = beginCell();
  // A map of one entry: hml_long label of 32 zero bits.
  root.storeUint(0b10, 2).storeUint(32, 6).storeUint(0, 32).storeBuilder(entry);
  const parameters = beginCell();
  configWith(18, () => root.endCell()).storeDirect(parameters);
  return parameters.endCell();
}

const config = withoutRent();

/** The exit code of the vault's transaction; -1 where the machine did not run. */
async function send(chain, vault, cell) {
  try {
    const { transactions } = await chain.sendMessage(loadMessage(cell.beginParse()));
    const own = transactions.find(({ address }) => address === BigInt(`0x${vault.hash.toString('hex')}`));
    const { computePhase } = own.description;
    return computePhase.type === 'skipped' ? -1 : computePhase.exitCode;
  } catch (error) {
    const exit = /Exit code: (-?\d+)/.exec(error.message);
    if (!exit && !/not accepted/i.test(error.message)) throw error;
    return exit ? Number(exit[1]) : -1;
  }
}

async function record({ seed, vault, steps }) {
  const address = Address.parse(vault);
  const chain = await Blockchain.create({ config });
  const recorded = [];
  for (const { now, message } of steps) {
    chain.now = now;
    const exit = await send(chain, address, Cell.fromBase64(message));
    const { account, balance } = await chain.getContract(address);
    const { data } = account.account.storage.state.state;
    recorded.push({
      now, message, exit, balance_nano: balance.toString(), data_hash: data.hash().toString('hex'),
    });
  }
  return { seed, vault, steps: recorded };
}

const file = process.argv.slice(2).find((argument) => !argument.startsWith('--'));
const source = JSON.parse(readFileSync(file ?? committed, 'utf8'));
const histories = [];
for (const history of source.histories ?? source) histories.push(await record(history));

const about = [
  'What the vault contract did in the reference C++ emulator, without rent, in generated histories:',
  'exit code, balance and hash of the data cell after each message. Recorded by',
  'contracts/vectors/traces.mjs from the generator of node/ledger/tests/histories; do not edit.',
];

/** A step a line, so that a change of one shows as one. */
const written = histories.map(({ steps, ...rest }) => {
  const head = JSON.stringify(rest).slice(0, -1);
  return `${head},"steps":[\n${steps.map((entry) => JSON.stringify(entry)).join(',\n')}\n]}`;
});
await writeOrCheck(
  committed, `{"about":${JSON.stringify(about)},\n"histories":[\n${written.join(',\n')}\n]}\n`,
);
