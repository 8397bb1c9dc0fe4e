// A registry on the reference C++ emulator under the fees of 2026.
//
// Owns: what every test of the registry starts from.

import { readFileSync } from 'node:fs';
import { Cell, toNano } from '@ton/core';
import { Blockchain } from '@ton/sandbox';
import { payoutOf, toUint256 } from '../wrappers/Vault.mjs';
import { parseStorage, registryAddress, registryInit } from '../wrappers/Registry.mjs';
import { MAINNET, START, config } from './fixture.mjs';

const file = (name) => readFileSync(new URL(`../${name}`, import.meta.url));
export const registryCode = Cell.fromBoc(file('build/registry.boc'))[0];
export const TIMELOCK = 7 * 86400;

/** Error codes by name, read from the source. */
export const Errors = Object.fromEntries(
  [...file('registry/errors.tolk').toString().matchAll(/^const ERROR_(\w+) = (\d+)/gm)]
    .map(([, name, number]) => [name, Number(number)]),
);

export class RegistryFixture {
  static async create({ deposit = '1' } = {}) {
    const fixture = new RegistryFixture();
    fixture.chain = await Blockchain.create({ config });
    fixture.chain.now = START;
    for (const name of ['owner', 'stranger', 'maintainer', 'treasury', 'heir']) {
      fixture[name] = await fixture.chain.treasury(name);
    }
    fixture.parameters = {
      owner: fixture.owner.address, timelock: TIMELOCK, networkId: MAINNET, salt: 0n,
    };
    fixture.address = registryAddress(registryCode, fixture.parameters);
    fixture.deployed = await fixture.stranger.send({
      to: fixture.address, value: toNano(deposit), bounce: false,
      init: registryInit(registryCode, fixture.parameters),
    });
    return fixture;
  }

  account(name) {
    return payoutOf(this[name].address);
  }

  async data() {
    return (await this.chain.getContract(this.address)).account.account.storage.state.state.data;
  }

  async storage() {
    return parseStorage(await this.data());
  }

  async balance() {
    return (await this.chain.getContract(this.address)).balance;
  }

  /** The outcome of the registry's transaction for a message from a wallet. */
  async send(from, body, value = toNano('0.05')) {
    return this.outcome(await this[from].send({ to: this.address, value, bounce: true, body }));
  }

  outcome(result) {
    const own = result.transactions.find(({ address }) => address === toUint256(this.address.hash));
    const { computePhase } = own.description;
    return {
      exit: computePhase.exitCode, gas: Number(computePhase.gasUsed), fees: own.totalFees.coins,
      sent: [...own.outMessages.values()],
    };
  }

  get(method, stack = []) {
    return this.chain.runGetMethod(this.address, method, stack);
  }
}
