// Makes shared-ton.json with the reference libraries in JavaScript. shared.py does the same with
// pytoniq-core, from the inputs in it, and writes shared-pytoniq.json; a Rust test holds our code to both.
// Run: npm install --no-save @ton/core@0.63.1 @ton/crypto@3.3.0 @ton/ton@16.3.0
// && node shared.mjs > shared-ton.json
import { createHash } from 'node:crypto';
import core from '@ton/core';
import crypto from '@ton/crypto/dist/mnemonic/mnemonic.js';
import primitives from '@ton/crypto';
import ton from '@ton/ton';

const { Address, beginCell, comment, external, internal, SendMode, storeMessage, storeMessageRelaxed } = core;
const { WalletContractV4, WalletContractV5R1 } = ton;
const { keyPairFromSeed, sign } = primitives;

const bytes = (text) => createHash('sha512').update(`cocoon shared vectors: ${text}`).digest();
const hash32 = (text) => bytes(text).subarray(0, 32);
const hex = (buffer) => Buffer.from(buffer).toString('hex');
const NETWORKS = { mainnet: -239, testnet: -3, devnet: -7337 };

const mnemonics = [];
for (let n = 0; n < 22; n += 1) {
  const words = await crypto.mnemonicFromRandomSeed(bytes(`phrase ${n}`), 24);
  const key = await crypto.mnemonicToPrivateKey(words);
  mnemonics.push({ phrase: words.join(' '), valid: true, secret: hex(key.secretKey.subarray(0, 32)), public: hex(key.publicKey) });
}
// Two words exchanged: known words, and all but one time in 256 no phrase.
for (let n = 0; n < 22; n += 1) {
  const words = mnemonics[n].phrase.split(' ');
  [words[n % 23], words[n % 23 + 1]] = [words[n % 23 + 1], words[n % 23]];
  mnemonics.push({ phrase: words.join(' '), valid: await crypto.mnemonicValidate(words) });
}

const keys = mnemonics.filter((it) => it.valid && it.public).slice(0, 12);
const forms = (address) => ({
  raw: address.toRawString(),
  bounceable: address.toString({ bounceable: true, testOnly: false }),
  non_bounceable: address.toString({ bounceable: false, testOnly: false }),
  test_bounceable: address.toString({ bounceable: true, testOnly: true }),
  test_non_bounceable: address.toString({ bounceable: false, testOnly: true }),
});
const v5r1 = (publicKey, globalId) => WalletContractV5R1.create({
  publicKey,
  walletId: { networkGlobalId: globalId, context: { walletVersion: 'v5r1', workchain: 0, subwalletNumber: 0 } },
});
const addresses = [];
for (const key of keys) {
  const publicKey = Buffer.from(key.public, 'hex');
  for (const [network, globalId] of Object.entries(NETWORKS)) {
    addresses.push({ version: 'v5r1', public: key.public, network, workchain: 0, ...forms(v5r1(publicKey, globalId).address) });
  }
  for (const workchain of [0, -1]) {
    addresses.push({ version: 'v4r2', public: key.public, workchain, ...forms(WalletContractV4.create({ workchain, publicKey }).address) });
  }
}

// Lengths around the ends of cells (123 bytes in the first, 127 in each other), and letters of 1 to 4 bytes.
const lengths = [1, 2, 7, 31, 32, 63, 64, 100, 121, 122, 123, 124, 125, 200, 249, 250, 251, 252, 376, 377, 378, 600];
const texts = [...lengths.map((n) => 'x'.repeat(n)), 'thank you', 'спасибо', '感谢', '🙂 ok', 'é'.repeat(62), '漢'.repeat(42)];
const comments = texts.map((text) => ({ text, hash: hex(comment(text).hash()) }));

const internals = [];
const externals = [];
for (let n = 0; n < 24; n += 1) {
  const transfer = {
    to: `0:${hex(hash32(`to ${n}`))}`,
    nano: String([1n, 1_000_000_000n, 123_456_789n, 2n ** 40n + 7n][n % 4] * BigInt(n + 1)),
    bounce: n % 2 === 0,
    comment: n % 3 === 0 ? '' : texts[n],
  };
  const message = internal({
    to: Address.parse(transfer.to), value: BigInt(transfer.nano), bounce: transfer.bounce,
    body: transfer.comment ? comment(transfer.comment) : undefined,
  });
  internals.push({ ...transfer, hash: hex(beginCell().store(storeMessageRelaxed(message)).endCell().hash()) });

  const [network, globalId] = Object.entries(NETWORKS)[n % 3];
  const key = keyPairFromSeed(hash32(`key ${n}`));
  const wallet = v5r1(key.publicKey, globalId);
  const [seqno, validUntil] = [n * 3 + 1, 1_795_000_000 + n];
  const body = wallet.createTransfer({
    seqno, secretKey: key.secretKey, timeout: validUntil,
    sendMode: SendMode.PAY_GAS_SEPARATELY | SendMode.IGNORE_ERRORS, messages: [message],
  });
  const cell = beginCell().store(storeMessage(external({ to: wallet.address, body }))).endCell();
  externals.push({ network, secret: hex(hash32(`key ${n}`)), seqno, valid_until: validUntil, transfer, body_hash: hex(body.hash()), message_hash: hex(cell.hash()) });
}

const vouchers = [];
for (let n = 0; n < 24; n += 1) {
  const [payer, provider] = [keyPairFromSeed(hash32(`payer ${n}`)), keyPairFromSeed(hash32(`provider ${n}`))];
  const claim = {
    vault: `${n % 5 === 4 ? -1 : 0}:${hex(hash32(`vault ${n}`))}`,
    epoch: [0, 1, 2, 4_294_967_295][n % 4],
    nano: String([0n, 1n, 100_000_000n, 2n ** 64n - 1n][(n >> 1) % 4]),
    root: n % 3 === 0 ? '00'.repeat(32) : hex(hash32(`root ${n}`)),
  };
  const cell = beginCell().storeUint(0x43435632, 32).storeAddress(Address.parse(claim.vault)).storeBuffer(provider.publicKey)
    .storeUint(claim.epoch, 32).storeUint(BigInt(claim.nano), 64).storeBuffer(Buffer.from(claim.root, 'hex')).endCell();
  vouchers.push({
    ...claim, payer_secret: hex(hash32(`payer ${n}`)), provider_secret: hex(hash32(`provider ${n}`)),
    provider: hex(provider.publicKey), hash: hex(cell.hash()), signature: hex(sign(cell.hash(), payer.secretKey)),
  });
}

console.log(JSON.stringify({ mnemonics, addresses, comments, internals, externals, vouchers }, null, 1));
