// Writes the test vectors that hold the Rust message builders and state parser to the contract.
//
// Owns: protocol/testdata/vault.json: addresses and messages made by @ton/core, and data cells that
// the contract itself wrote in the reference emulator.

import { fileURLToPath } from 'node:url';
import { Address, beginCell, storeStateInit, toNano } from '@ton/core';
import { writeOrCheck } from '../committed.mjs';
import {
  Command, UNLIMITED, commandBody, commandCell, ownerBody, releaseCell, settleExternalBody,
  settleInternalBody, signCell, sweepBody, toUint256, vaultAddress, vaultInit, voucherCell,
} from '../wrappers/Vault.mjs';
import { Fixture, code } from '../tests/fixture.mjs';
import { bocOf, describeKey, hex256, keyOf, sha256 } from './keys.mjs';

const payer = keyOf('payer');
const provider = keyOf('provider');
const other = keyOf('other');
const account = (name) => new Address(0, sha256(`cocoon test account: ${name}`));
const id = (key) => toUint256(key.publicKey);
const payoutHash = (name) => toUint256(account(name).hash);

// ---- addresses

const base = {
  clientKey: id(payer),
  feeBasisPoints: 0,
  releaseDelay: 21600,
  dailyCap: UNLIMITED,
  owner: account('owner'),
  treasury: payoutHash('treasury'),
  networkId: -239,
  salt: 0n,
};

const describeParameters = (parameters) => ({
  client_key: hex256(parameters.clientKey),
  fee_basis_points: parameters.feeBasisPoints,
  release_delay_seconds: parameters.releaseDelay,
  daily_cap_nano: parameters.dailyCap.toString(),
  owner: parameters.owner.toRawString(),
  treasury: `0:${hex256(parameters.treasury)}`,
  network_id: parameters.networkId,
  salt: parameters.salt.toString(),
});

function deployment(name, changes) {
  const parameters = { ...base, ...changes };
  const init = vaultInit(code, parameters);
  return {
    name,
    parameters: describeParameters(parameters),
    data: bocOf(init.data),
    state_init_hash: beginCell().store(storeStateInit(init)).endCell().hash().toString('hex'),
    address: vaultAddress(code, parameters).toRawString(),
  };
}

const deployments = [
  deployment('plain', {}),
  deployment('testnet', { networkId: -3 }),
  deployment('devnet', { networkId: -7337, releaseDelay: 60 }),
  deployment('with a fee', { feeBasisPoints: 250 }),
  deployment('with a daily cap', { dailyCap: toNano('5') }),
  deployment('second vault of one client', { salt: 1n }),
  deployment('largest salt', { salt: 2n ** 64n - 1n }),
  deployment('owner in the masterchain', { owner: new Address(-1, sha256('owner')) }),
  deployment('longest delay and highest fee', { releaseDelay: 2592000, feeBasisPoints: 1000 }),
];

// ---- messages

const vault = vaultAddress(code, base);
const claimOf = (key, epoch, cumulative, receiptsRoot = 0n) => ({
  vault, provider: id(key), epoch, cumulative: toNano(cumulative), receiptsRoot,
});
const requestOf = (key, payout, amount) => ({
  provider: id(key), payout: payoutHash(payout), amount: toNano(amount),
});
const describeRequest = ({ provider: key, payout, amount }) => ({
  provider: hex256(key), payout: `0:${hex256(payout)}`, amount_nano: amount.toString(),
});
const describeClaim = ({ provider: key, epoch, cumulative, receiptsRoot }) => ({
  provider: hex256(key),
  epoch,
  cumulative_nano: cumulative.toString(),
  receipts_root: hex256(receiptsRoot),
});

const first = requestOf(provider, 'payout of the provider', '0.1');
const second = requestOf(other, 'payout of the other', '0.25');
const manyRequests = Array.from({ length: 16 }, (_, index) =>
  requestOf(keyOf(`provider ${index}`), `payout ${index}`, '0.01'));
const release = claimOf(provider, 1, '0.075');
const releaseSignature = signCell(releaseCell(release), provider.secretKey);

const commands = [
  ['allocate', Command.allocate(first), describeRequest(first)],
  ['allocate', Command.allocate({ ...first, amount: 2n ** 64n - 1n }), {
    ...describeRequest(first), amount_nano: UNLIMITED.toString(),
  }],
  ['rebalance', Command.rebalance({ requests: [first] }), { requests: [first].map(describeRequest) }],
  ['rebalance', Command.rebalance({ requests: [first, second] }), {
    requests: [first, second].map(describeRequest),
  }],
  ['rebalance', Command.rebalance({ requests: manyRequests }), {
    requests: manyRequests.map(describeRequest),
  }],
  ['request_release', Command.requestRelease({ provider: id(provider) }), { provider: hex256(id(provider)) }],
  ['finalize_release', Command.finalizeRelease({ provider: id(other) }), { provider: hex256(id(other)) }],
  ['release', Command.release({ claim: releaseCell(release), signature: releaseSignature }), {
    ...describeClaim(release), signature: releaseSignature.toString('hex'),
  }],
  ['withdraw', Command.withdraw({ amount: toNano('0.5') }), { amount_nano: toNano('0.5').toString() }],
  ['close', Command.close(), {}],
  ['rotate_key', Command.rotateKey({ key: id(keyOf('next payer')) }), { key: hex256(id(keyOf('next payer'))) }],
];

const orders = commands.map(([kind, command, fields], index) => {
  const [seqno, validUntil] = [index * 1000, 1795000060 + index];
  const cell = commandCell({ vault, seqno, validUntil, command });
  const signature = signCell(cell, payer.secretKey);
  return {
    command: { kind, ...fields },
    seqno,
    valid_until: validUntil,
    signed_hash: cell.hash().toString('hex'),
    external_body: bocOf(commandBody(cell, signature)),
    owner_body: bocOf(ownerBody(command)),
  };
});

const settlements = [
  claimOf(provider, 1, '0.12', toUint256(sha256('receipts'))),
  claimOf(other, 7, '18', 0n),
].map((claim, index) => {
  const cell = voucherCell(claim);
  const signature = signCell(cell, payer.secretKey);
  const consent = signCell(cell, (index ? other : provider).secretKey);
  return {
    voucher: describeClaim(claim),
    signature: signature.toString('hex'),
    consent: consent.toString('hex'),
    external_body: bocOf(settleExternalBody(cell, signature, consent)),
    internal_body: bocOf(settleInternalBody(cell, signature)),
  };
});

// ---- states, as the contract writes them

const states = [];

async function recordState(name, fixture) {
  const storage = await fixture.storage();
  const get = await fixture.chain.runGetMethod(fixture.address, 'get_vault');
  states.push({
    name,
    address: fixture.address.toRawString(),
    balance_nano: (await fixture.balance()).toString(),
    data: bocOf(await fixture.data()),
    parameters: describeParameters(fixture.parameters),
    key: hex256(storage.key),
    seqno: storage.seqno,
    next_epoch: storage.nextEpoch,
    reserved_nano: storage.reserved.toString(),
    accrued_nano: storage.accrued.toString(),
    free_nano: get.stackReader.skip(4).readBigNumber().toString(),
    day: storage.day,
    allocated_today_nano: storage.allocatedToday.toString(),
    allocations: storage.allocations.map(([key, allocation]) => ({
      provider: hex256(key),
      payout: `0:${hex256(allocation.payout)}`,
      limit_nano: allocation.limit.toString(),
      paid_nano: allocation.paid.toString(),
      epoch: allocation.epoch,
      unlock_at: allocation.unlockAt,
      receipts_root: hex256(allocation.receiptsRoot),
      key: hex256(allocation.key),
    })),
  });
}

const succeed = async (outcome) => {
  const { exit, action } = await outcome;
  if (exit !== 0 || action !== 0) throw new Error(`exit code ${exit}, action result ${action}`);
};

const fixture = await Fixture.create({ deposit: '10', parameters: { feeBasisPoints: 250 } });
await recordState('new', fixture);
await succeed(fixture.allocate('provider', '1'));
await recordState('one allocation', fixture);
await succeed(fixture.settle('provider', '0.4'));
await recordState('one allocation, partly paid', fixture);
await succeed(fixture.allocate('other', '0.5'));
await succeed(fixture.command(Command.requestRelease({ provider: id(provider) })));
await recordState('two allocations, one being released', fixture);
await succeed(fixture.command(fixture.release('other', '0.2', { claim: { epoch: 2 } })));
await recordState('after a release', fixture);
for (let batch = 0; batch < 63; batch += 16) {
  const count = Math.min(16, 63 - batch);
  await succeed(fixture.command(Command.rebalance({
    requests: Array.from({ length: count }, (_, index) => ({
      provider: id(keyOf(`provider ${batch + index}`)), payout: fixture.payout, amount: toNano('0.01'),
    })),
  })));
}
await recordState('64 allocations', fixture);
const next = { key: keyOf('next payer') };
await succeed(fixture.ownerCommand(Command.rotateKey({ key: id(next.key) })));
await recordState('64 allocations of an earlier hot key', fixture);
await succeed(fixture.ownerCommand(fixture.release('provider', '0.4')));
await succeed(fixture.allocate('other', '0.3', next));
await recordState('one allocation of the new hot key among many of the old', fixture);

await writeOrCheck(
  fileURLToPath(new URL('../../protocol/testdata/vault.json', import.meta.url)),
  `${JSON.stringify({
    about: [
      'Addresses, messages and states of the vault contract, for its clients.',
      'Made by contracts/vectors/vault.mjs with @ton/core and the emulator; do not edit.',
      'Cells are bags of cells in hexadecimal; amounts are nanoTON; orders are signed by payer.',
    ],
    code_hash: code.hash().toString('hex'),
    keys: { payer: describeKey(payer), provider: describeKey(provider), other: describeKey(other) },
    deployments,
    messages: {
      vault: vault.toRawString(), orders, settlements, sweep_body: bocOf(sweepBody()),
    },
    states,
  }, null, 2)}\n`,
);
