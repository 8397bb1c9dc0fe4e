// Writes what the contract did in generated histories, for the reference model to be held to.
//
// Owns: protocol/testdata/vault-histories.json. Rent is switched off, because the model knows no
// rent; everything else is the network's configuration. Fees are reported as the model takes them:
// what the contract wanted to be there, what it withheld from a payment, what the transaction cost.

import { fileURLToPath } from 'node:url';
import { Address, beginCell, toNano } from '@ton/core';
import { writeOrCheck } from '../committed.mjs';
import { Command, sweepBody } from '../wrappers/Vault.mjs';
import { Fixture, configWith, publicOf } from '../tests/fixture.mjs';
import { hex256 } from './keys.mjs';

const HISTORIES = 10;
const STEPS = 30;
const NAMES = ['provider', 'other', 'third'];

/** Gas of the bounds in `vault/fees.tolk`, and the prices of `config/mainnet-2026.boc`. */
const GAS_ONE = 60_000n;
const GAS_BATCH = 12_000n;
const GAS_EACH = 50_000n;
const scaled = (price) => (price + 65_535n) / 65_536n;
const gasFee = (gas) => 6667n + scaled((gas - 100n) * 4369067n);
const transfer = 66_667n;
const importFee = 66_667n + scaled(1963n * 4369067n + 3n * 436906667n);

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

function* numbers(seed) {
  let state = seed;
  for (;;) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield state >>> 8;
  }
}

const raw = (hash) => `0:${hex256(hash)}`;

async function snapshot(vault) {
  const storage = await vault.storage();
  return {
    balance_nano: (await vault.balance()).toString(),
    seqno: storage.seqno,
    next_epoch: storage.nextEpoch,
    reserved_nano: storage.reserved.toString(),
    accrued_nano: storage.accrued.toString(),
    allocations: storage.allocations.map(([provider, allocation]) => ({
      provider: hex256(provider),
      payout: raw(allocation.payout),
      limit_nano: allocation.limit.toString(),
      paid_nano: allocation.paid.toString(),
      epoch: allocation.epoch,
      unlock_at: allocation.unlockAt,
      receipts_root: hex256(allocation.receiptsRoot),
    })),
  };
}

/** What could happen next: how the model is told, and how the contract is. */
async function chooseAction(vault, pick) {
  const name = NAMES[pick(3)];
  const provider = publicOf(name);
  const amount = toNano((pick(45) / 100).toFixed(2));
  const epoch = ((await vault.allocation(name))?.epoch ?? 1) + (pick(12) === 0 ? 1 : 0);
  const claim = { provider, epoch, cumulative: amount, receiptsRoot: BigInt(pick(1000)) };
  const changes = { claim, signer: undefined };
  const request = {
    provider, payout: pick(15) ? vault.payout : BigInt(pick(2)), amount,
  };
  const describe = {
    request: ({ provider: key, payout, amount: nano }) => ({
      provider: hex256(key), payout: raw(payout), amount_nano: nano.toString(),
    }),
    claim: {
      provider: hex256(provider), epoch, cumulative_nano: amount.toString(),
      receipts_root: hex256(claim.receiptsRoot),
    },
  };
  const batch = Array.from({ length: 1 + pick(3) }, (_, index) => ({
    ...request, provider: publicOf(NAMES[(pick(3) + index) % 3]), amount: amount / 4n,
  }));
  const releaseClaim = { ...claim, receiptsRoot: 0n };
  const release = vault.release(name, '0', { claim: releaseClaim });
  const commands = [
    [{ kind: 'allocate', ...describe.request(request) }, Command.allocate(request)],
    [{ kind: 'rebalance', requests: batch.map(describe.request) }, Command.rebalance({ requests: batch })],
    [{ kind: 'request_release', provider: hex256(provider) }, Command.requestRelease({ provider })],
    [{ kind: 'finalize_release', provider: hex256(provider) }, Command.finalizeRelease({ provider })],
    [{ kind: 'release', ...describe.claim }, release],
    [{ kind: 'withdraw', amount_nano: amount.toString() }, Command.withdraw({ amount })],
    [{ kind: 'close' }, Command.close()],
  ];
  const weights = [0, 0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 6];
  const [described, command] = commands[weights[pick(weights.length)]];
  const bound = described.kind === 'rebalance'
    ? gasFee(GAS_BATCH + GAS_EACH * BigInt(batch.length)) : gasFee(GAS_ONE);
  const worst = gasFee(GAS_ONE) + 2n * importFee;
  switch (pick(10)) {
    case 0: case 1: case 2: case 3: {
      const late = pick(20) === 0;
      const { seqno } = await vault.storage();
      const wrong = pick(20) === 0 ? 1 : 0;
      const validUntil = vault.chain.now + (late ? -1 : 60);
      return {
        message: {
          kind: 'order', seqno: seqno + wrong, valid_until: validUntil, command: described,
        },
        bound,
        run: () => vault.command(command, { seqno: seqno + wrong, validUntil }),
      };
    }
    case 4: {
      const from = pick(6) ? vault.owner : vault.stranger;
      return {
        message: { kind: 'owner_command', from: from.address.toRawString(), command: described },
        bound,
        internal: true,
        run: () => vault.ownerCommand(command, from),
      };
    }
    case 5: case 6: case 7:
      return {
        message: { kind: 'settle_external', ...describe.claim },
        bound: worst,
        run: () => vault.settle(name, '0', changes),
      };
    case 8:
      return {
        message: { kind: 'settle_internal', ...describe.claim },
        bound: gasFee(GAS_ONE),
        internal: true,
        // The caller's change travels with the payout, so it cannot be told from it; see `transfer`.
        run: () => vault.settleInternal(name, '0', { ...changes, value: toNano('0.02') }),
      };
    default:
      return { message: { kind: 'sweep' }, bound: worst, run: () => vault.external(sweepBody()) };
  }
}

/** Performs one step and reports it. */
async function step(vault, pick) {
  const action = await chooseAction(vault, pick);
  const before = await snapshot(vault);
  const outcome = await action.run();
  const after = await snapshot(vault);
  const moved = (field) => BigInt(before[field]) - BigInt(after[field]);
  const sent = (outcome.sent ?? []).filter(({ info }) => info.type === 'internal' && !info.bounced);
  const { kind } = action.message;
  let paid = null;
  if (sent.length) {
    const separately = kind === 'settle_internal' || action.message.command?.kind === 'release';
    const value = sent[0].info.value.coins + (separately ? 0n : transfer);
    paid = { to: sent[0].info.dest.toRawString(), amount: value };
    // Of an internal settlement the model knows what left the vault, not the caller's change.
    if (kind === 'settle_internal') paid.amount = moved('balance_nano');
  }
  let used = moved('balance_nano') - (paid?.amount ?? 0n);
  const topUp = used < 0n ? -used : 0n; // What an owner's message leaves behind.
  if (used < 0n) used = 0n;
  if (action.message.command?.kind === 'release' && paid && !action.internal) used -= transfer;
  // The contract sees its balance after the import fee was taken; the model does not, so the fee
  // joins what must be there.
  let { bound } = action;
  if (kind === 'order' && outcome.accepted) bound += used - outcome.own.description.computePhase.gasFees;
  let withheld = 0n;
  if (paid && kind === 'settle_external') {
    withheld = moved('reserved_nano') + moved('accrued_nano') - paid.amount;
  }
  if (paid && kind === 'sweep') withheld = moved('accrued_nano') - paid.amount;
  return {
    now: vault.chain.now,
    message: action.message,
    fees: {
      bound_nano: bound.toString(), withheld_nano: withheld.toString(),
      used_nano: used.toString(), transfer_nano: transfer.toString(),
      brought_nano: (kind === 'settle_internal' ? toNano('0.02') : 0n).toString(),
    },
    accepted: outcome.accepted && !(action.internal && outcome.exit !== 0),
    exit_code: outcome.exit,
    paid: paid && { to: paid.to, amount_nano: paid.amount.toString() },
    left_behind_nano: topUp.toString(),
    after,
  };
}

async function history(seed) {
  const random = numbers(seed);
  const pick = (bound) => random.next().value % bound;
  const parameters = {
    feeBasisPoints: [0, 250, 1000][seed % 3],
    dailyCap: seed % 2 ? toNano('0.9') : 2n ** 64n - 1n,
    salt: BigInt(seed),
  };
  const vault = await Fixture.create({
    deposit: '3', parameters, withConfig: withoutRent(),
  });
  const start = await snapshot(vault);
  const steps = [];
  for (let index = 0; index < STEPS; index += 1) {
    steps.push(await step(vault, pick));
    await vault.assertCovered();
    vault.chain.now += pick(4) * 9000;
  }
  return {
    seed,
    vault: vault.address.toRawString(),
    parameters: {
      client_key: hex256(vault.parameters.clientKey),
      fee_basis_points: parameters.feeBasisPoints,
      release_delay_seconds: vault.parameters.releaseDelay,
      daily_cap_nano: parameters.dailyCap.toString(),
      owner: vault.owner.address.toRawString(),
      treasury: new Address(0, Buffer.from(hex256(vault.parameters.treasury), 'hex')).toRawString(),
    },
    start,
    steps,
  };
}

const histories = [];
for (let seed = 1; seed <= HISTORIES; seed += 1) histories.push(await history(seed));

const exits = {};
for (const { steps } of histories) {
  for (const { message, exit_code: exit } of steps) {
    const name = `${message.command?.kind ?? message.kind} ${exit}`;
    exits[name] = (exits[name] ?? 0) + 1;
  }
}
if (process.argv.includes('--summary')) console.log(exits);

const about = [
  'What the vault contract did in generated histories, step by step, for its model.',
  'Made by contracts/vectors/histories.mjs in the reference emulator, without rent; do not edit.',
  'Signatures: payer signs orders and vouchers, each provider its releases and consents; the',
  'secret of NAME is SHA-256("cocoon test key: NAME"). exit_code null: the machine did not run.',
];

/** A step a line, so that a change of one shows as one. */
const written = histories.map(({ steps, ...rest }) => {
  const head = JSON.stringify(rest).slice(0, -1);
  return `${head},"steps":[\n${steps.map((entry) => JSON.stringify(entry)).join(',\n')}\n]}`;
});
await writeOrCheck(
  fileURLToPath(new URL('../../protocol/testdata/vault-histories.json', import.meta.url)),
  `{"about":${JSON.stringify(about)},\n"names":${JSON.stringify(NAMES)},\n"histories":[\n${written.join(',\n')}\n]}\n`,
);
