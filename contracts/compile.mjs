// Compiles the contracts; `--check` recompiles and compares with what is committed in build/.
//
// Owns: build/*.boc and build/hashes.json. The compiler's version is pinned in package.json, and its
// output depends on the sources only, so a difference means that source and code disagree.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { Cell } from '@ton/core';
import { getTolkCompilerVersion, runTolkCompiler } from '@ton/tolk-js';
import { writeOrCheck } from './committed.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const contracts = { vault: 'vault/Vault.tolk', registry: 'registry/Registry.tolk' };

/** Cells and bits of a tree, equal cells counted once, as storage and forward fees count them. */
function size(root) {
  const seen = new Map();
  const visit = (cell) => {
    const key = cell.hash().toString('hex');
    if (seen.has(key)) return;
    seen.set(key, cell.bits.length);
    cell.refs.forEach(visit);
  };
  visit(root);
  return { cells: seen.size, bits: [...seen.values()].reduce((sum, bits) => sum + bits, 0) };
}

async function compile(entry) {
  const result = await runTolkCompiler({
    entrypointFileName: entry,
    fsReadCallback: (file) => readFileSync(path.join(here, file), 'utf8'),
  });
  if (result.status === 'error') throw new Error(result.message);
  if (result.stderr) console.error(result.stderr);
  return Cell.fromBase64(result.codeBoc64);
}

const hashes = { compiler: `tolk ${await getTolkCompilerVersion()}`, contracts: {} };
for (const [name, entry] of Object.entries(contracts)) {
  const code = await compile(entry);
  await writeOrCheck(path.join(here, `build/${name}.boc`), code.toBoc({ idx: false, crc32: true }));
  hashes.contracts[name] = { source: entry, code_hash: code.hash().toString('hex'), ...size(code) };
}
await writeOrCheck(path.join(here, 'build/hashes.json'), `${JSON.stringify(hashes, null, 2)}\n`);
