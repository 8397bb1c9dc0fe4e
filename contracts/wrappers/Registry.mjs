// Builders and parsers for the registry contract: one function for each message, nothing else.
//
// Owns: the byte layouts of `registry/messages.tolk` and `registry/storage.tolk` in JavaScript.
// Must not: hold keys, decide what to publish, or talk to a network.

import { Dictionary, beginCell, contractAddress } from '@ton/core';

/** First four bytes of a message body to a registry. */
export const Opcode = {
  proposeFee: 0x43520001,
  cancelFee: 0x43520002,
  setMinimumProtocol: 0x43520003,
  setModel: 0x43520004,
  removeModel: 0x43520005,
  setMaintainer: 0x43520006,
  removeMaintainer: 0x43520007,
  proposeOwner: 0x43520008,
  withdraw: 0x43520009,
  acceptOwner: 0x43520101,
  applyFee: 0x43520102,
  publish: 0x43520103,
  unpublish: 0x43520104,
};

/** A name as the registry keeps it: UTF-8 bytes in one cell. */
export const nameCell = (text) => beginCell().storeBuffer(Buffer.from(text, 'utf8')).endCell();

const operation = (opcode) => beginCell().storeUint(opcode, 32);
const named = (opcode) => ({ key, name }) =>
  operation(opcode).storeUint(key, 256).storeRef(nameCell(name)).endCell();
const keyed = (opcode) => ({ key }) => operation(opcode).storeUint(key, 256).endCell();
const bare = (opcode) => () => operation(opcode).endCell();

/** Message bodies; `key` is a hash or an account as a number. */
export const Body = {
  proposeFee: ({ basisPoints, treasury }) =>
    operation(Opcode.proposeFee).storeUint(basisPoints, 16).storeUint(treasury, 256).endCell(),
  cancelFee: bare(Opcode.cancelFee),
  setMinimumProtocol: ({ version }) =>
    operation(Opcode.setMinimumProtocol).storeUint(version, 32).endCell(),
  setModel: named(Opcode.setModel),
  removeModel: keyed(Opcode.removeModel),
  setMaintainer: named(Opcode.setMaintainer),
  removeMaintainer: keyed(Opcode.removeMaintainer),
  proposeOwner: ({ owner }) => operation(Opcode.proposeOwner).storeAddress(owner).endCell(),
  withdraw: ({ amount }) => operation(Opcode.withdraw).storeCoins(amount).endCell(),
  acceptOwner: bare(Opcode.acceptOwner),
  applyFee: bare(Opcode.applyFee),
  publish: named(Opcode.publish),
  unpublish: keyed(Opcode.unpublish),
};

// ---- state init

/** Data of a registry that has seen no message: no fee, and nothing in it. */
export function initialData({ owner, timelock, networkId, salt }) {
  const governance = beginCell()
    .storeAddress(owner)
    .storeAddress(null)
    .storeUint(timelock, 32)
    .storeInt(networkId, 32)
    .storeUint(salt, 64)
    .endCell();
  return beginCell()
    .storeUint(0, 32)
    .storeUint(0, 32)
    .storeUint(0, 16)
    .storeUint(0, 256)
    .storeBit(false)
    .storeRef(governance)
    .storeUint(0, 16)
    .storeBit(false)
    .storeUint(0, 8)
    .storeBit(false)
    .endCell();
}

/** State init of a new registry. */
export const registryInit = (code, parameters) => ({ code, data: initialData(parameters) });

/** Address of the registry with these parameters, in the basechain. */
export const registryAddress = (code, parameters) => contractAddress(0, registryInit(code, parameters));

// ---- reading

const text = (cell) => {
  const slice = cell.beginParse();
  return slice.loadBuffer(slice.remainingBits / 8).toString('utf8');
};

const readOnly = (parse) => ({
  serialize() {
    throw new Error('the contract alone writes its maps');
  },
  parse,
});

const modelValue = readOnly((slice) => text(slice.loadRef()));
const measurementValue = readOnly((slice) => ({
  name: text(slice.loadRef()), publishedAt: slice.loadUint(32),
}));
const maintainerValue = readOnly((slice) => ({
  name: text(slice.loadRef()), count: slice.loadUint(8), measurements: entries(slice.loadMaybeRef(), measurementValue),
}));

function entries(root, value) {
  if (!root) return [];
  return [...Dictionary.loadDirect(Dictionary.Keys.BigUint(256), value, root)]
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

export const parseModels = (root) => entries(root, modelValue);
export const parseMaintainers = (root) => entries(root, maintainerValue);

const parseFee = (slice) => ({ basisPoints: slice.loadUint(16), treasury: slice.loadUintBig(256) });

/** A registry's data cell as an object. */
export function parseStorage(cell) {
  const slice = cell.beginParse();
  const storage = {
    version: slice.loadUint(32),
    minimumProtocol: slice.loadUint(32),
    fee: parseFee(slice),
    pendingFee: slice.loadBit() ? { ...parseFee(slice), notBefore: slice.loadUint(32) } : null,
  };
  const governance = slice.loadRef().beginParse();
  Object.assign(storage, {
    owner: governance.loadAddress(),
    pendingOwner: governance.loadMaybeAddress(),
    timelock: governance.loadUint(32),
    networkId: governance.loadInt(32),
    salt: governance.loadUintBig(64),
    modelCount: slice.loadUint(16),
    models: parseModels(slice.loadMaybeRef()),
    maintainerCount: slice.loadUint(8),
    maintainers: parseMaintainers(slice.loadMaybeRef()),
  });
  governance.endParse();
  slice.endParse();
  return storage;
}
