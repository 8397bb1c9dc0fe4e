// @ton/ton's own TonClient on the ledger of a real node, through its toncenter routes, as any wallet would use it.
// Needs the program: COCOON_NODE=path/to/cocoon-node. Without it the test says that it was skipped.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import core from '@ton/core';
import crypto from '@ton/crypto';
import ton from '@ton/ton';

const { internal, SendMode, toNano } = core;
const program = process.env.COCOON_NODE;
const skip = program ? false : 'COCOON_NODE is not set';
const GLOBAL_ID = -7337;

const freePort = () => new Promise((resolve) => {
  const server = createServer().listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

let node, folder, url;

before(async () => {
  if (skip) return;
  folder = mkdtempSync(join(tmpdir(), 'cocoon-devnet-'));
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  node = spawn(program, ['--data-dir', folder, '--listen', '/ip4/127.0.0.1/udp/0/quic-v1', '--ledger-listen', `127.0.0.1:${port}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await new Promise((resolve, reject) => {
    let log = '';
    node.stderr.on('data', (text) => {
      log += text;
      if (log.includes('serving the ledger')) resolve();
    });
    node.on('exit', (code) => reject(new Error(`the node ended with ${code}: ${log}`)));
  });
});

after(() => {
  if (skip) return;
  node.removeAllListeners('exit');
  node.kill('SIGKILL');
  rmSync(folder, { recursive: true });
});

const post = (path, body) => fetch(url + path, {
  method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body),
});

const newWallet = async (client) => {
  const key = await crypto.mnemonicToPrivateKey(await crypto.mnemonicNew());
  const wallet = client.open(ton.WalletContractV5R1.create({
    publicKey: key.publicKey,
    walletId: { networkGlobalId: GLOBAL_ID, context: { walletVersion: 'v5r1', workchain: 0, subwalletNumber: 0 } },
  }));
  const funded = await post('/devnet/faucet', { address: wallet.address.toString(), amount: String(toNano('10')) });
  assert.equal(funded.status, 200);
  return { key, wallet };
};

test('TonClient reads balances, sends transfers, calls get methods and pages through history', { skip }, async () => {
  const client = new ton.TonClient({ endpoint: `${url}/api/v2/jsonRPC` });
  const { key, wallet } = await newWallet(client);
  assert.equal(await client.isContractDeployed(wallet.address), false);
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
  // Whoever is paid again in a later second has paid for storage meanwhile, as its transactions say.
  const payments = await client.getTransactions(other, { limit: 10 });
  assert.equal(payments.length, 3);
  const storage = payments.reduce((sum, t) => sum + t.totalFees.coins, 0n);
  assert.equal(await client.getBalance(other), toNano('3') - storage);
  await assert.rejects(wallet.sendTransfer({ seqno: 0, secretKey: key.secretKey, messages: [], sendMode: 3 }));

  const { stack } = await client.runMethod(wallet.address, 'get_public_key');
  assert.equal(stack.readBigNumber(), BigInt(`0x${key.publicKey.toString('hex')}`));

  const transactions = await client.getTransactions(wallet.address, { limit: 10 });
  assert.equal(transactions.length, 4);
  assert.deepEqual(transactions.map((t) => t.outMessagesCount), [1, 1, 1, 0]);
  assert.equal(transactions[0].description.computePhase.gasUsed, 4939n);
  const [newest] = transactions;
  const page = { lt: newest.lt.toString(), hash: newest.hash().toString('base64') };
  const older = await client.getTransactions(wallet.address, { limit: 2, ...page });
  assert.deepEqual(older.map((t) => t.lt), transactions.slice(1, 3).map((t) => t.lt));
  const one = await client.getTransaction(wallet.address, page.lt, page.hash);
  assert.equal(one.hash().toString('hex'), newest.hash().toString('hex'));
  assert.equal((await client.getContractState(wallet.address)).state, 'active');
  assert.ok((await client.getMasterchainInfo()).latestSeqno >= 1);
});

test('the devnet\'s clock can be moved ahead, never back', { skip }, async () => {
  const time = async () => {
    const state = await (await fetch(`${url}/api/v2/getAddressInformation?address=0:${'00'.repeat(32)}`)).json();
    return state.result.sync_utime;
  };
  const start = await time();
  const moved = await post('/devnet/advance', { seconds: 3600 });
  assert.equal(moved.status, 200);
  assert.ok((await moved.json()).result.now >= start + 3600);
  assert.ok(await time() >= start + 3600);
  for (const seconds of [-1, 'x', 10 ** 12]) {
    assert.equal((await post('/devnet/advance', { seconds })).status, 422);
  }
});
