// Keys and numbers of the test vectors: everything follows from a name.

import { createHash } from 'node:crypto';
import { keyPairFromSeed } from '@ton/crypto';

export const sha256 = (text) => createHash('sha256').update(text).digest();
export const hex256 = (value) => value.toString(16).padStart(64, '0');
export const bocOf = (cell) => cell.toBoc({ idx: false, crc32: false }).toString('hex');

export function keyOf(name) {
  const seed = sha256(`cocoon test key: ${name}`);
  return { seed, ...keyPairFromSeed(seed) };
}

export const describeKey = ({ seed, publicKey }) => ({
  seed: seed.toString('hex'),
  public: publicKey.toString('hex'),
});
