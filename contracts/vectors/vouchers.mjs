// Writes the test vectors that hold the Rust code to the contract's bits; `--check` compares instead.
//
// Owns: protocol/testdata/vouchers.json. Everything in it is made by @ton/core and @ton/crypto from
// the fixed seeds below: no code of ours other than the field order in `wrappers/Vault.mjs`.

import { createHash } from 'node:crypto';
import { fileURLToPath } from 'node:url';
import { Address } from '@ton/core';
import { writeOrCheck } from '../committed.mjs';
import { Magic, claimCell, signCell, toUint256 } from '../wrappers/Vault.mjs';
import { bocOf, describeKey, hex256, keyOf, sha256 } from './keys.mjs';

/** Descriptor bytes and data of a cell without references; its SHA-256 is the cell's hash. */
function representation(cell) {
  const bits = cell.bits.length;
  const data = Buffer.alloc(Math.ceil(bits / 8));
  for (let i = 0; i < bits; i += 1) if (cell.bits.at(i)) data[i >> 3] |= 0x80 >> (i & 7);
  if (bits % 8) data[bits >> 3] |= 0x80 >> (bits & 7);
  return Buffer.concat([Buffer.from([0, Math.floor(bits / 8) + Math.ceil(bits / 8)]), data]);
}

const payer = keyOf('payer');
const provider = keyOf('provider');
const other = keyOf('other');
const vault = new Address(0, sha256('cocoon test vault: first'));
const second = new Address(0, sha256('cocoon test vault: second'));
const masterchain = new Address(-1, sha256('cocoon test vault: first'));
const root = toUint256(sha256('cocoon test receipts root'));
const providerKey = toUint256(provider.publicKey);
const ones = 2n ** 256n - 1n;

function vector(name, magic, signer, changes) {
  const claim = {
    vault, provider: providerKey, epoch: 1, cumulative: 100_000_000n, receiptsRoot: root, ...changes,
  };
  const cell = claimCell(magic, claim);
  const bytes = representation(cell);
  if (!createHash('sha256').update(bytes).digest().equals(cell.hash())) throw new Error(name);
  return {
    name,
    vault: claim.vault.toRawString(),
    provider: hex256(claim.provider),
    epoch: claim.epoch,
    cumulative_nano: claim.cumulative.toString(),
    receipts_root: hex256(claim.receiptsRoot),
    representation: bytes.toString('hex'),
    cell_hash: cell.hash().toString('hex'),
    boc: bocOf(cell),
    signer: signer.publicKey.toString('hex'),
    signature: signCell(cell, signer.secretKey).toString('hex'),
  };
}

const voucher = (name, changes, signer = payer) => vector(name, Magic.voucher, signer, changes);
const release = (name, changes, signer = provider) => vector(name, Magic.release, signer, changes);

const vouchers = [
  voucher('plain', {}),
  voucher('cumulative 0', { cumulative: 0n }),
  voucher('cumulative 1', { cumulative: 1n }),
  voucher('cumulative of one TON', { cumulative: 1_000_000_000n }),
  voucher('cumulative just over 32 bits', { cumulative: 2n ** 32n }),
  voucher('cumulative above the signed range', { cumulative: 2n ** 63n }),
  voucher('largest cumulative', { cumulative: 2n ** 64n - 1n }),
  voucher('epoch 0', { epoch: 0 }),
  voucher('epoch 2', { epoch: 2 }),
  voucher('epoch above the signed range', { epoch: 2 ** 31 }),
  voucher('largest epoch', { epoch: 2 ** 32 - 1 }),
  voucher('receipts root 0', { receiptsRoot: 0n }),
  voucher('receipts root 1', { receiptsRoot: 1n }),
  voucher('receipts root of ones', { receiptsRoot: ones }),
  voucher('provider 1', { provider: 1n }),
  voucher('provider of ones', { provider: ones }),
  voucher('another provider', { provider: toUint256(other.publicKey) }),
  voucher('another vault', { vault: second }),
  voucher('vault in the masterchain', { vault: masterchain }),
  voucher('vault 0', { vault: new Address(0, Buffer.alloc(32)) }),
  voucher('vault of ones', { vault: new Address(0, Buffer.alloc(32, 0xff)) }),
  voucher('everything 0', {
    vault: new Address(0, Buffer.alloc(32)), provider: 0n, epoch: 0, cumulative: 0n, receiptsRoot: 0n,
  }),
  voucher('everything largest', {
    vault: new Address(-1, Buffer.alloc(32, 0xff)), provider: ones, epoch: 2 ** 32 - 1,
    cumulative: 2n ** 64n - 1n, receiptsRoot: ones,
  }),
  voucher('another signer', {}, other),
];

const releases = [
  release('plain', {}),
  release('without receipts', { receiptsRoot: 0n }),
  release('nothing is owed', { cumulative: 0n, receiptsRoot: 0n }),
  release('largest cumulative', { cumulative: 2n ** 64n - 1n }),
  release('epoch 7', { epoch: 7 }),
  release('another vault', { vault: second }),
  release('another provider', { provider: toUint256(other.publicKey) }, other),
];

await writeOrCheck(
  fileURLToPath(new URL('../../protocol/testdata/vouchers.json', import.meta.url)),
  `${JSON.stringify({
    about: [
      'Claims against a vault: vouchers (signed by the payer) and releases (signed by the provider).',
      'Made by contracts/vectors/vouchers.mjs with @ton/core and @ton/crypto; do not edit.',
      'A claim is one cell of 907 bits without references, most significant bit first:',
      'magic:u32 vault:MsgAddressInt provider:u256 epoch:u32 cumulative:u64 receipts_root:u256,',
      'where MsgAddressInt is the bits 10 0, then workchain:i8 and hash:u256 (267 bits).',
      'cell_hash = SHA-256(representation); representation = 00 e3 and the 907 bits, then a bit 1',
      'and zeros up to a whole byte. signature = Ed25519(cell_hash) of signer.',
      'A release has the same layout with its own magic.',
    ],
    magic: {
      voucher: `0x${Magic.voucher.toString(16)}`,
      release: `0x${Magic.release.toString(16)}`,
    },
    keys: { payer: describeKey(payer), provider: describeKey(provider), other: describeKey(other) },
    vouchers,
    releases,
  }, null, 2)}\n`,
);
