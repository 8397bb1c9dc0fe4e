// Writes the network configuration that the tests and the embedded ledger run under.
//
// Origin: the slim configuration bundled with @ton/sandbox (MIT; mainnet block 52956904 of October
// 2025), with the prices that mainnet has had since 29 April 2026 (utime 1777500000), as two
// independent public audits of the chain reported them on 2 June 2026:
//   p8  global version 14
//   p18 storage: bit 0, cell 135 (masterchain 1000 and 500000)
//   p21 gas: flat 100 gas for 6667 nano, then 4369067/65536 = 66.67 nano a unit
//   p25 messages: lump 66667, bit 4369067, cell 436906667 (in 1/65536 nano)
// A node on a real network reads the live configuration instead.

import { fileURLToPath } from 'node:url';
import { Cell, Dictionary, beginCell } from '@ton/core';
import sandboxConfig from '@ton/sandbox/dist/config/slimConfig.js';
import { writeOrCheck } from '../committed.mjs';

const PRICES_SINCE = 1777500000;
const GLOBAL_VERSION = 14;

const parameters = Dictionary.loadDirect(
  Dictionary.Keys.Int(32), Dictionary.Values.Cell(), Cell.fromBase64(sandboxConfig.slimConfig),
);

/** Replaces a parameter by what `write` makes of its old content. */
function rewrite(index, write) {
  const old = parameters.get(index).beginParse();
  parameters.set(index, write(old, beginCell()).endCell());
}

rewrite(8, (old, cell) => {
  cell.storeUint(old.loadUint(8), 8).storeUint(GLOBAL_VERSION, 32);
  old.skip(32);
  return cell.storeSlice(old);
});

const storagePrices = {
  serialize: (slice, cell) => cell.storeSlice(slice),
  // An entry is `#cc utime_since:u32 bit:u64 cell:u64 mc_bit:u64 mc_cell:u64`.
  parse: (slice) => beginCell().storeBits(slice.loadBits(8 + 32 + 4 * 64)).endCell().asSlice(),
};
rewrite(18, (old, cell) => {
  const prices = Dictionary.loadDirect(Dictionary.Keys.Uint(32), storagePrices, old.asCell());
  const current = beginCell()
    .storeUint(0xcc, 8)
    // The executor insists that this equals the key.
    .storeUint(PRICES_SINCE, 32)
    .storeUint(0, 64).storeUint(135, 64).storeUint(1000, 64).storeUint(500000, 64);
  prices.set(PRICES_SINCE, current.asSlice());
  prices.storeDirect(cell);
  return cell;
});

rewrite(21, (old, cell) => {
  cell.storeUint(old.loadUint(8), 8).storeUint(old.loadUintBig(64), 64);
  old.skip(64);
  cell.storeUint(6667, 64).storeUint(old.loadUint(8), 8).storeUint(4369067, 64);
  old.skip(64);
  return cell.storeSlice(old);
});

rewrite(25, (old, cell) => {
  cell.storeUint(old.loadUint(8), 8);
  old.skip(3 * 64);
  return cell
    .storeUint(66667, 64).storeUint(4369067, 64).storeUint(436906667, 64).storeSlice(old);
});

const cell = beginCell();
parameters.storeDirect(cell);
await writeOrCheck(
  fileURLToPath(new URL('mainnet-2026.boc', import.meta.url)),
  cell.endCell().toBoc({ idx: false, crc32: true }),
);
