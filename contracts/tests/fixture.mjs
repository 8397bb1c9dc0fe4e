// A vault on the reference C++ emulator under the fees of 2026, with keys made from names.
//
// Owns: what every test starts from, and how an outcome is read off a transaction.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Cell, Dictionary, external, internal, toNano } from '@ton/core';
import { keyPairFromSeed } from '@ton/crypto';
import { Blockchain } from '@ton/sandbox';
import {
  Command, UNLIMITED, commandBody, commandCell, ownerBody, parseStorage, payoutOf, releaseCell,
  settleExternalBody, settleInternalBody, signCell, toUint256, vaultAddress, vaultInit, voucherCell,
} from '../wrappers/Vault.mjs';

const file = (name) => readFileSync(new URL(`../${name}`, import.meta.url));
const cellOf = (name) => Cell.fromBoc(file(name))[0];

export const code = cellOf('build/vault.boc');
export const config = cellOf('config/mainnet-2026.boc');
export const MAINNET = -239;
export const START = 1795000000;
export const RELEASE_DELAY = 21600;
export const RESERVE = toNano('0.05');

/** Error codes by name, read from the source so that tests and contract cannot drift apart. */
export const Errors = Object.fromEntries(
  [...file('vault/errors.tolk').toString().matchAll(/^const ERROR_(\w+) = (\d+)/gm)]
    .map(([, name, number]) => [name, Number(number)]),
);

/** A key pair that depends on its name only. */
export const keyOf = (name) =>
  keyPairFromSeed(createHash('sha256').update(`cocoon test key: ${name}`).digest());
export const publicOf = (name) => toUint256(keyOf(name).publicKey);

/** The same configuration with one parameter changed. */
export function configWith(index, change) {
  const parameters = Dictionary.loadDirect(
    Dictionary.Keys.Int(32), Dictionary.Values.Cell(), config,
  );
  parameters.set(index, change(parameters.get(index)));
  return parameters;
}

export class Fixture {
  /** A deployed vault with 1 TON; `parameters` overrides single ones. */
  static async create({ deposit = '1', parameters = {}, withConfig = config } = {}) {
    const fixture = new Fixture();
    fixture.chain = await Blockchain.create({ config: withConfig });
    fixture.chain.now = START;
    fixture.owner = await fixture.chain.treasury('owner');
    fixture.stranger = await fixture.chain.treasury('stranger');
    fixture.payee = await fixture.chain.treasury('payee');
    fixture.treasury = await fixture.chain.treasury('treasury');
    fixture.payer = keyOf('payer');
    fixture.parameters = {
      clientKey: toUint256(fixture.payer.publicKey),
      owner: fixture.owner.address,
      networkId: MAINNET,
      releaseDelay: RELEASE_DELAY,
      dailyCap: UNLIMITED,
      feeBasisPoints: 0,
      treasury: payoutOf(fixture.treasury.address),
      salt: 77n,
      ...parameters,
    };
    fixture.address = vaultAddress(code, fixture.parameters);
    fixture.deployed = await fixture.stranger.send({
      to: fixture.address,
      value: toNano(deposit),
      bounce: false,
      init: vaultInit(code, fixture.parameters),
    });
    return fixture;
  }

  get payout() {
    return payoutOf(this.payee.address);
  }

  // ---- state

  /** The account's data cell, or null while there is no active account. */
  async data() {
    const { account } = (await this.chain.getContract(this.address)).account;
    return account?.storage.state.type === 'active' ? account.storage.state.state.data : null;
  }

  async dataHash() {
    return (await this.data()).hash().toString('hex');
  }

  async storage() {
    return parseStorage(await this.data());
  }

  async allocation(name) {
    const { allocations } = await this.storage();
    return allocations.find(([provider]) => provider === publicOf(name))?.[1];
  }

  async balance(address = this.address) {
    return (await this.chain.getContract(address)).balance;
  }

  /** The contract's first duty: everything promised is there. */
  async assertCovered() {
    const { reserved, accrued, allocations, allocationCount } = await this.storage();
    const owed = allocations.reduce((sum, [, { limit, paid }]) => sum + limit - paid, 0n);
    if (owed !== reserved) throw new Error(`reserved ${reserved}, but ${owed} is owed`);
    if (allocations.length !== allocationCount) throw new Error(`count ${allocationCount}`);
    const balance = await this.balance();
    if (balance < reserved + accrued) throw new Error(`${balance} < ${reserved} + ${accrued}`);
  }

  // ---- messages

  /** Sends an external message; the outcome of the vault's transaction. */
  async external(body, init) {
    let result;
    try {
      result = await this.chain.sendMessage(external({ to: this.address, body, init }));
    } catch (error) {
      const exit = /Exit code: (-?\d+)/.exec(error.message);
      if (!exit && !/not accepted/i.test(error.message)) throw error;
      return { accepted: false, exit: exit ? Number(exit[1]) : null, message: error.message };
    }
    return this.outcome(result);
  }

  /** Sends an internal message from a wallet. */
  async internal(wallet, body, value = toNano('0.1')) {
    return this.outcome(
      await wallet.send({ to: this.address, value, bounce: true, body: body ?? undefined }),
    );
  }

  outcome(result) {
    const own = result.transactions.find(
      (transaction) => transaction.address === toUint256(this.address.hash),
    );
    const { computePhase, actionPhase } = own.description;
    return {
      accepted: true,
      exit: computePhase.type === 'skipped' ? null : computePhase.exitCode,
      action: actionPhase ? actionPhase.resultCode : null,
      gas: computePhase.type === 'skipped' ? 0 : Number(computePhase.gasUsed),
      fees: own.totalFees.coins,
      own,
      sent: [...own.outMessages.values()],
      transactions: result.transactions,
    };
  }

  /** A command of the hot key; `changes` spoil or override parts of it. */
  async signed(command, changes = {}) {
    const { seqno } = await this.storage();
    const {
      key = this.payer, vault = this.address, validUntil = this.chain.now + 60, ...rest
    } = changes;
    const cell = commandCell({ vault, seqno: rest.seqno ?? seqno, validUntil, command, ...rest });
    return commandBody(cell, signCell(cell, key.secretKey));
  }

  async command(command, changes) {
    return this.external(await this.signed(command, changes));
  }

  async ownerCommand(command, wallet = this.owner) {
    return this.internal(wallet, ownerBody(command));
  }

  allocate(name, amount, changes) {
    const request = {
      provider: typeof name === 'bigint' ? name : publicOf(name),
      payout: this.payout,
      amount: toNano(amount),
    };
    return this.command(Command.allocate({ ...request, ...changes?.request }), changes);
  }

  release(name, cumulative, changes = {}) {
    const claim = releaseCell(this.claim(name, cumulative, changes));
    const { secretKey } = changes.signer ?? keyOf(name);
    return Command.release({ claim, signature: signCell(claim, secretKey) });
  }

  // ---- vouchers

  claim(name, cumulative, changes = {}) {
    return {
      vault: this.address,
      provider: publicOf(name),
      epoch: 1,
      cumulative: toNano(cumulative),
      receiptsRoot: 9n,
      ...changes.claim,
    };
  }

  /** The body of an external settlement; `changes` spoil parts of it. */
  settlement(name, cumulative, changes = {}) {
    const cell = (changes.cell ?? voucherCell)(this.claim(name, cumulative, changes));
    const signature = signCell(cell, (changes.signer ?? this.payer).secretKey);
    if (changes.internal) return settleInternalBody(cell, signature);
    return settleExternalBody(cell, signature, signCell(cell, (changes.consent ?? keyOf(name)).secretKey));
  }

  settle(name, cumulative, changes) {
    return this.external(this.settlement(name, cumulative, changes));
  }

  settleInternal(name, cumulative, changes = {}) {
    const body = this.settlement(name, cumulative, { ...changes, internal: true });
    return this.internal(this.stranger, body, changes.value);
  }
}

/** Providers' keys such that the lookup of the first passes 62 forks: the worst legal map. */
export function deepKeys(count) {
  const victim = publicOf('provider');
  const keys = [victim];
  for (let bit = 0; keys.length < count; bit += 1) {
    // The same as the victim's up to `bit`, other there: a leaf that hangs off the victim's path.
    keys.push(victim ^ (1n << BigInt(255 - bit)));
  }
  return keys;
}

export { internal, toNano };
