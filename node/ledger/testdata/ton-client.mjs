// Uses a devnet (examples/devnet.rs) through @ton/ton's TonClient, unchanged, as any wallet would.
// Run: npm install --no-save @ton/core@0.63.1 @ton/crypto@3.3.0 @ton/ton@16.3.0
// && node ton-client.mjs http://127.0.0.1:PORT
import assert from 'node:assert/strict';
import core from '@ton/core';
import crypto from '@ton/crypto';
import ton from '@ton/ton';

const { internal, toNano, SendMode } = core;
const url = process.argv[2];
const client = new ton.TonClient({ endpoint: `${url}/api/v2/jsonRPC` });
const key = await crypto.mnemonicToPrivateKey(await crypto.mnemonicNew());
const wallet = client.open(ton.WalletContractV5R1.create({
  publicKey: key.publicKey,
  walletId: { networkGlobalId: -7337, context: { walletVersion: 'v5r1', workchain: 0, subwalletNumber: 0 } },
}));
assert.equal(await client.isContractDeployed(wallet.address), false);
const faucet = await fetch(`${url}/devnet/faucet`, {
  method: 'POST', body: JSON.stringify({ address: wallet.address.toString(), amount: String(toNano('10')) }),
});
assert.equal(faucet.status, 200);
assert.equal(await wallet.getBalance(), toNano('10'));
assert.equal(await wallet.getSeqno(), 0);

const other = ton.WalletContractV5R1.create({ publicKey: Buffer.alloc(32, 7) }).address;
for (let seqno = 0; seqno < 3; seqno++) {
  await wallet.sendTransfer({
    seqno, secretKey: key.secretKey, sendMode: SendMode.PAY_GAS_SEPARATELY | SendMode.IGNORE_ERRORS,
    messages: [internal({ to: other, value: toNano('1'), bounce: false, body: `payment ${seqno}` })],
  });
  assert.equal(await wallet.getSeqno(), seqno + 1);
}
assert.equal(await client.getBalance(other), toNano('3'));
await assert.rejects(wallet.sendTransfer({ seqno: 0, secretKey: key.secretKey, messages: [], sendMode: 3 }));

const transactions = await client.getTransactions(wallet.address, { limit: 10 });
assert.equal(transactions.length, 4);
assert.deepEqual(transactions.map((t) => t.outMessagesCount), [1, 1, 1, 0]);
assert.equal(transactions[0].description.computePhase.gasUsed, 4939n);
const [newest] = transactions;
const older = await client.getTransactions(wallet.address, {
  limit: 2, lt: newest.lt.toString(), hash: newest.hash().toString('base64'),
});
assert.deepEqual(older.map((t) => t.lt), transactions.slice(1, 3).map((t) => t.lt));
const one = await client.getTransaction(wallet.address, newest.lt.toString(), newest.hash().toString('base64'));
assert.equal(one.hash().toString('hex'), newest.hash().toString('hex'));
const state = await client.getContractState(wallet.address);
assert.equal(state.state, 'active');
const info = await client.getMasterchainInfo();
assert.ok(info.latestSeqno >= 1);
console.log('TonClient agrees');
