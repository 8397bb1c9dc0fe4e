// Writes the test vectors that hold the Rust message builders and state parser to the registry.
//
// Owns: protocol/testdata/registry.json: addresses and messages made by @ton/core, and data cells that
// the contract itself wrote in the reference emulator.

import { fileURLToPath } from 'node:url';
import { Address } from '@ton/core';
import { writeOrCheck } from '../committed.mjs';
import { Body, registryAddress, registryInit } from '../wrappers/Registry.mjs';
import { RegistryFixture, TIMELOCK, registryCode } from '../tests/registry.fixture.mjs';
import { bocOf, hex256, sha256 } from './keys.mjs';
import { toUint256 } from '../wrappers/Vault.mjs';

const account = (name) => new Address(0, sha256(`cocoon test account: ${name}`));
const hash = (name) => toUint256(sha256(name));
const raw = (key) => `0:${hex256(key)}`;

const base = { owner: account('owner'), timelock: 604800, networkId: -239, salt: 0n };
const deployments = [
  {}, { networkId: -3 }, { networkId: -7337, timelock: 60, salt: 5n }, { owner: new Address(-1, sha256('owner')) },
].map((changes) => {
  const parameters = { ...base, ...changes };
  return {
    owner: parameters.owner.toRawString(),
    timelock_seconds: parameters.timelock,
    network_id: parameters.networkId,
    salt: parameters.salt.toString(),
    data: bocOf(registryInit(registryCode, parameters).data),
    address: registryAddress(registryCode, parameters).toRawString(),
  };
});

const [model, treasury, measurement] = [hash('model'), toUint256(account('treasury').hash), hash('guest')];
const operations = [
  ['propose_fee', Body.proposeFee({ basisPoints: 100, treasury }), { basis_points: 100, treasury: raw(treasury) }],
  ['cancel_fee', Body.cancelFee(), {}],
  ['set_minimum_protocol', Body.setMinimumProtocol({ version: 7 }), { version: 7 }],
  ['set_model', Body.setModel({ key: model, name: 'Größe-7B' }), { key: hex256(model), name: 'Größe-7B' }],
  ['remove_model', Body.removeModel({ key: model }), { key: hex256(model) }],
  ['set_maintainer', Body.setMaintainer({ key: treasury, name: 'Ada' }), { account: raw(treasury), name: 'Ada' }],
  ['remove_maintainer', Body.removeMaintainer({ key: treasury }), { account: raw(treasury) }],
  ['propose_owner', Body.proposeOwner({ owner: account('heir') }), { owner: account('heir').toRawString() }],
  ['withdraw', Body.withdraw({ amount: 123456789n }), { amount_nano: '123456789' }],
  ['accept_owner', Body.acceptOwner(), {}],
  ['apply_fee', Body.applyFee(), {}],
  ['publish', Body.publish({ key: measurement, name: 'guest 1.0' }), { key: hex256(measurement), name: 'guest 1.0' }],
  ['unpublish', Body.unpublish({ key: measurement }), { key: hex256(measurement) }],
].map(([kind, body, fields]) => ({ kind, ...fields, body: bocOf(body) }));

// ---- states, as the contract writes them

const states = [];
const registry = await RegistryFixture.create();

async function record(name) {
  const { models, maintainers, pendingFee, ...storage } = await registry.storage();
  states.push({
    name,
    data: bocOf(await registry.data()),
    version: storage.version,
    minimum_protocol: storage.minimumProtocol,
    fee: { basis_points: storage.fee.basisPoints, treasury: raw(storage.fee.treasury) },
    pending_fee: pendingFee && {
      basis_points: pendingFee.basisPoints, treasury: raw(pendingFee.treasury), not_before: pendingFee.notBefore,
    },
    owner: storage.owner.toRawString(),
    pending_owner: storage.pendingOwner?.toRawString() ?? null,
    timelock_seconds: storage.timelock,
    network_id: storage.networkId,
    salt: storage.salt.toString(),
    models: models.map(([key, text]) => ({ key: hex256(key), name: text })),
    maintainers: maintainers.map(([key, { name: text, measurements }]) => ({
      account: raw(key),
      name: text,
      measurements: measurements.map(([one, entry]) => ({
        key: hex256(one), name: entry.name, published_at: entry.publishedAt,
      })),
    })),
  });
}

async function succeed(from, body) {
  const { exit } = await registry.send(from, body);
  if (exit !== 0) throw new Error(`exit code ${exit}`);
}

await record('new');
await succeed('owner', Body.proposeFee({ basisPoints: 100, treasury }));
await record('a fee is announced');
registry.chain.now += TIMELOCK;
await succeed('stranger', Body.applyFee());
await succeed('owner', Body.setMinimumProtocol({ version: 3 }));
await succeed('owner', Body.setModel({ key: model, name: 'Größe-7B' }));
await succeed('owner', Body.setModel({ key: hash('another'), name: 'another' }));
await succeed('owner', Body.setMaintainer({ key: registry.account('maintainer'), name: 'Ada' }));
await succeed('owner', Body.setMaintainer({ key: registry.account('heir'), name: 'Grace' }));
await succeed('maintainer', Body.publish({ key: measurement, name: 'guest 1.0' }));
await succeed('maintainer', Body.publish({ key: hash('next guest'), name: 'guest 1.1' }));
await record('fee in force, two models, two maintainers');
await succeed('owner', Body.proposeOwner({ owner: registry.heir.address }));
await record('another owner is proposed');
await succeed('heir', Body.acceptOwner());
await succeed('heir', Body.setModel({ key: hash('hostile'), name: 'a\u001b[31mb\n' }));
await record('a name with control characters');

await writeOrCheck(
  fileURLToPath(new URL('../../protocol/testdata/registry.json', import.meta.url)),
  `${JSON.stringify({
    about: [
      'Addresses, messages and states of the registry contract, for its clients.',
      'Made by contracts/vectors/registry.mjs with @ton/core and the emulator; do not edit.',
      'Cells are bags of cells in hexadecimal; amounts are nanoTON.',
    ],
    code_hash: registryCode.hash().toString('hex'),
    deployments,
    operations,
    states,
  }, null, 2)}\n`,
);
