// Wallet version 5 (v5r1), as far as a table of costs needs it: to send messages from a real wallet.
//
// Owns: the layout of its data and of a signed request. The code is the one that the node ships.

import { readFileSync } from 'node:fs';
import { Cell, SendMode, beginCell, contractAddress, storeOutList } from '@ton/core';
import { sign } from '@ton/crypto';

const code = Cell.fromBoc(readFileSync(
  new URL('../../node/ledger/src/wallet/v5r1-code.boc', import.meta.url),
))[0];
const SIGNED_EXTERNAL = 0x7369676e;
/** Any number will do here; the node derives it from the network. */
const WALLET_ID = 0x7fffff11;

/** State init and address of the wallet of a key. */
export function wallet({ publicKey }) {
  const data = beginCell()
    .storeBit(true)
    .storeUint(0, 32)
    .storeUint(WALLET_ID, 32)
    .storeBuffer(publicKey)
    .storeBit(false)
    .endCell();
  const init = { code, data };
  return { init, address: contractAddress(0, init) };
}

/** Body of an external message to the wallet: sends `messages`. */
export function request({ secretKey }, seqno, validUntil, messages) {
  const actions = messages.map((outMsg) => ({
    type: 'sendMsg', mode: SendMode.PAY_GAS_SEPARATELY | SendMode.IGNORE_ERRORS, outMsg,
  }));
  const unsigned = beginCell()
    .storeUint(SIGNED_EXTERNAL, 32)
    .storeUint(WALLET_ID, 32)
    .storeUint(validUntil, 32)
    .storeUint(seqno, 32)
    .storeMaybeRef(beginCell().store(storeOutList(actions)).endCell())
    .storeBit(false);
  return beginCell()
    .storeBuilder(unsigned)
    .storeBuffer(sign(unsigned.endCell().hash(), secretKey))
    .endCell();
}
