// Builders and parsers for the vault contract: one function for each message, nothing else.
//
// Owns: the byte layouts of `vault/messages.tolk` and `vault/storage.tolk` in JavaScript.
// Must not: hold keys, decide amounts, or talk to a network.

import { Address, Cell, Dictionary, beginCell, contractAddress } from '@ton/core';
import { sign } from '@ton/crypto';

/** First four bytes of everything that is signed for a vault ("CCV2", "CCR2", "CCC2"). */
export const Magic = { voucher: 0x43435632, release: 0x43435232, command: 0x43434332 };

/** First four bytes of a message body to a vault. */
export const Opcode = {
  command: 0x43430001,
  settleExternal: 0x43430002,
  sweep: 0x43430003,
  ownerCommand: 0x43430004,
  settleInternal: 0x43430005,
};

/** First four bytes of a command, which the hot key signs or the owner sends. */
export const CommandOpcode = {
  allocate: 0x43430101,
  rebalance: 0x43430102,
  requestRelease: 0x43430103,
  finalizeRelease: 0x43430104,
  release: 0x43430105,
  withdraw: 0x43430106,
  close: 0x43430107,
  rotateKey: 0x43430108,
};

/** Amount that switches the daily cap off. */
export const UNLIMITED = 2n ** 64n - 1n;

/** A big-endian number of a buffer: keys and account hashes are `uint256` in the contract. */
export const toUint256 = (buffer) => BigInt(`0x${buffer.toString('hex')}`);

/**
 * The cell whose hash a voucher's or a release's signature covers, 907 bits:
 * `magic:u32 vault:address provider:u256 epoch:u32 cumulative:u64 receipts_root:u256`.
 */
export function claimCell(magic, { vault, provider, epoch, cumulative, receiptsRoot }) {
  return beginCell()
    .storeUint(magic, 32)
    .storeAddress(vault)
    .storeUint(provider, 256)
    .storeUint(epoch, 32)
    .storeUint(cumulative, 64)
    .storeUint(receiptsRoot, 256)
    .endCell();
}

/** The payer's promise: "provider may have `cumulative` in total". */
export const voucherCell = (claim) => claimCell(Magic.voucher, claim);

/** The provider's consent: "with `cumulative` in total I am paid in full; release the rest". */
export const releaseCell = (claim) => claimCell(Magic.release, claim);

/** Ed25519 over the representation hash of a cell. */
export const signCell = (cell, secretKey) => sign(cell.hash(), secretKey);

// ---- state init

/** The immutable part of a vault's data; its hash is in the address. */
export function parametersCell(parameters) {
  return beginCell()
    .storeUint(parameters.clientKey, 256)
    .storeUint(parameters.feeBasisPoints, 16)
    .storeUint(parameters.releaseDelay, 32)
    .storeUint(parameters.dailyCap, 64)
    .storeAddress(parameters.owner)
    .storeUint(parameters.treasury, 256)
    .storeInt(parameters.networkId, 32)
    .storeUint(parameters.salt, 64)
    .endCell();
}

/** By what vouchers are settled: a hot key and the fee, as the vault and its allocations refer to it. */
export const termsCell = (key, feeBasisPoints) =>
  beginCell().storeUint(key, 256).storeUint(feeBasisPoints, 16).endCell();

/** Data of a vault that has seen no message. Any other initial data is another address. */
export function initialData(parameters) {
  return storageCell({
    reserved: 0n,
    accrued: 0n,
    allocations: null,
    parameters: parametersCell(parameters),
    terms: termsCell(parameters.clientKey, parameters.feeBasisPoints),
    seqno: 0,
    nextEpoch: 1,
    allocationCount: 0,
    day: 0,
    allocatedToday: 0n,
  });
}

/** A vault's data cell from its parts; `allocations` is the root of the dictionary or null. */
export function storageCell(storage) {
  return beginCell()
    .storeUint(storage.reserved, 64)
    .storeUint(storage.accrued, 64)
    .storeMaybeRef(storage.allocations)
    .storeRef(storage.parameters)
    .storeRef(storage.terms)
    .storeUint(storage.seqno, 32)
    .storeUint(storage.nextEpoch, 32)
    .storeUint(storage.allocationCount, 8)
    .storeUint(storage.day, 32)
    .storeUint(storage.allocatedToday, 64)
    .endCell();
}

/** State init of a new vault. */
export const vaultInit = (code, parameters) => ({ code, data: initialData(parameters) });

/** Address of the vault with these parameters, in the basechain. */
export const vaultAddress = (code, parameters) => contractAddress(0, vaultInit(code, parameters));

// ---- commands

const providerCommand = (opcode) => ({ provider }) =>
  beginCell().storeUint(opcode, 32).storeUint(provider, 256);

const request = ({ provider, payout, amount }) =>
  beginCell().storeUint(provider, 256).storeUint(payout, 256).storeUint(amount, 64);

/** Each returns the builder of a command; the caller puts it into a signed or an owner's message. */
export const Command = {
  allocate: (allocation) =>
    beginCell().storeUint(CommandOpcode.allocate, 32).storeBuilder(request(allocation)),

  rebalance({ requests, count = requests.length, total }) {
    let list = null;
    for (const entry of [...requests].reverse()) {
      const builder = request(entry);
      if (list) builder.storeRef(list);
      list = builder.endCell();
    }
    const sum = total ?? requests.reduce((acc, { amount }) => acc + BigInt(amount), 0n);
    return beginCell()
      .storeUint(CommandOpcode.rebalance, 32)
      .storeUint(count, 8)
      .storeUint(sum, 64)
      .storeRef(list ?? Cell.EMPTY);
  },

  requestRelease: providerCommand(CommandOpcode.requestRelease),
  finalizeRelease: providerCommand(CommandOpcode.finalizeRelease),

  /** `claim` is a release cell, `signature` the provider's over its hash. */
  release: ({ claim, signature }) =>
    beginCell().storeUint(CommandOpcode.release, 32).storeBuffer(signature, 64).storeRef(claim),

  withdraw: ({ amount }) =>
    beginCell().storeUint(CommandOpcode.withdraw, 32).storeUint(amount, 64),

  close: () => beginCell().storeUint(CommandOpcode.close, 32),

  /** `key` is the new hot key's public half as a number; only an owner's message may say it. */
  rotateKey: ({ key }) => beginCell().storeUint(CommandOpcode.rotateKey, 32).storeUint(key, 256),
};

/** The cell that the hot key signs: `magic vault seqno valid_until command…`. */
export function commandCell({ vault, seqno, validUntil, command, magic = Magic.command }) {
  return beginCell()
    .storeUint(magic, 32)
    .storeAddress(vault)
    .storeUint(seqno, 32)
    .storeUint(validUntil, 32)
    .storeBuilder(command)
    .endCell();
}

// ---- message bodies

const signedBody = (opcode, cell, signature) =>
  beginCell().storeUint(opcode, 32).storeBuffer(signature, 64).storeRef(cell);

/** External message body: a command of the hot key. */
export const commandBody = (cell, signature) => 
  signedBody(Opcode.command, cell, signature).endCell();

/** External message body: redeem a voucher; `consent` is the provider's signature of its hash. */
export const settleExternalBody = (voucher, signature, consent) =>
  signedBody(Opcode.settleExternal, voucher, signature)
    .storeRef(beginCell().storeBuffer(consent, 64).endCell())
    .endCell();

/** Internal message body: redeem a voucher. */
export const settleInternalBody = (voucher, signature) =>
  signedBody(Opcode.settleInternal, voucher, signature).endCell();

/** External message body: send the accrued fee to the treasury. */
export const sweepBody = () => beginCell().storeUint(Opcode.sweep, 32).endCell();

/** Internal message body from the owner's wallet: any command, without a signature. */
export const ownerBody = (command) =>
  beginCell().storeUint(Opcode.ownerCommand, 32).storeBuilder(command).endCell();

// ---- reading

const allocationValue = {
  serialize() {
    throw new Error('the contract alone writes allocations');
  },
  parse: (slice) => ({
    payout: slice.loadUintBig(256),
    limit: slice.loadUintBig(64),
    paid: slice.loadUintBig(64),
    epoch: slice.loadUint(32),
    unlockAt: slice.loadUint(32),
    receiptsRoot: slice.loadUintBig(256),
    key: slice.loadRef().beginParse().loadUintBig(256),
  }),
};

/** The allocations of a dictionary's root cell as `[provider, allocation]` pairs, by key. */
export function parseAllocations(root) {
  if (!root) return [];
  return [...Dictionary.loadDirect(Dictionary.Keys.BigUint(256), allocationValue, root)]
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** A vault's data cell as an object. */
export function parseStorage(cell) {
  const slice = cell.beginParse();
  const storage = {
    reserved: slice.loadUintBig(64),
    accrued: slice.loadUintBig(64),
    allocations: parseAllocations(slice.loadMaybeRef()),
    parameters: slice.loadRef(),
    key: slice.loadRef().beginParse().loadUintBig(256),
    seqno: slice.loadUint(32),
    nextEpoch: slice.loadUint(32),
    allocationCount: slice.loadUint(8),
    day: slice.loadUint(32),
    allocatedToday: slice.loadUintBig(64),
  };
  slice.endParse();
  return storage;
}

/** Account hash of a basechain address as the contract stores payouts. */
export const payoutOf = (address) => toUint256(Address.parse(address.toString()).hash);
