// Makes wallet.json with the reference libraries, so that our wallet is checked against code that
// we did not write. Run: npm install --no-save @ton/core@0.63.1 @ton/crypto@3.3.0 @ton/ton@16.3.0
// && node generate.mjs > wallet.json
import { createHash } from 'node:crypto';
import core from '@ton/core';
import crypto from '@ton/crypto/dist/mnemonic/mnemonic.js';
import ton from '@ton/ton';

const { Address, beginCell, internal, external, storeMessage, comment, SendMode } = core;
const { WalletContractV5R1 } = ton;

// The same phrases on every run: seeds 0, 1, 2, … through the library's deterministic generator.
const seed = (n) => createHash('sha512').update(`cocoon wallet vectors ${n}`).digest();
const NETWORKS = { mainnet: -239, testnet: -3, devnet: -7337 };

const wallets = [];
for (let n = 0; n < 24; n++) {
  const words = await crypto.mnemonicFromRandomSeed(seed(n), 24);
  const key = await crypto.mnemonicToPrivateKey(words);
  const entry = { phrase: words.join(' '), publicKey: key.publicKey.toString('hex'), networks: {} };
  for (const [name, globalId] of Object.entries(NETWORKS)) {
    const wallet = WalletContractV5R1.create({
      publicKey: key.publicKey,
      walletId: { networkGlobalId: globalId, context: { walletVersion: 'v5r1', workchain: 0, subwalletNumber: 0 } },
    });
    // One to four transfers, with and without a comment, bounceable or not, deployed or not.
    const seqno = n % 3 === 0 ? 0 : n * 7;
    const transfers = [];
    for (let i = 0; i <= n % 4; i++) {
      transfers.push({
        to: Address.parseRaw(`0:${createHash('sha256').update(`${n} ${i}`).digest('hex')}`).toRawString(),
        nano: String(1_000_000n * BigInt(n + 1) + BigInt(i)),
        bounce: (n + i) % 2 === 0,
        comment: i % 2 === 0 ? '' : `payment ${n}.${i}`,
      });
    }
    const validUntil = seqno === 0 ? 0xffffffff : 1795000000 + n;
    const body = wallet.createTransfer({
      seqno,
      secretKey: key.secretKey,
      timeout: validUntil,
      sendMode: SendMode.PAY_GAS_SEPARATELY | SendMode.IGNORE_ERRORS,
      messages: transfers.map((t) => internal({
        to: Address.parse(t.to),
        value: BigInt(t.nano),
        bounce: t.bounce,
        body: t.comment ? comment(t.comment) : undefined,
      })),
    });
    const message = beginCell().store(storeMessage(external({
      to: wallet.address,
      init: seqno === 0 ? wallet.init : undefined,
      body,
    }))).endCell();
    entry.networks[name] = {
      address: wallet.address.toRawString(),
      bounceable: wallet.address.toString({ bounceable: true, testOnly: name !== 'mainnet' }),
      wallet: wallet.address.toString({ bounceable: false, testOnly: name !== 'mainnet' }),
      seqno, validUntil, transfers,
      bodyHash: body.hash().toString('hex'),
      messageHash: message.hash().toString('hex'),
    };
  }
  wallets.push(entry);
}
// Phrases that are none: a known word in the wrong place, and one that needs a password.
const swapped = wallets[0].phrase.split(' ');
[swapped[3], swapped[4]] = [swapped[4], swapped[3]];
const locked = (await crypto.mnemonicFromRandomSeed(seed(1000), 24, 'password')).join(' ');
console.log(JSON.stringify({ wallets, swapped: swapped.join(' '), locked }, null, 1));
