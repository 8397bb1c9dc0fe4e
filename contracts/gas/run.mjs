// `npm run gas`: measures every operation anew and commits to it; with `--table` also writes the README's table.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const contracts = fileURLToPath(new URL('..', import.meta.url));
const tests = ['tests/gas.test.mjs', 'tests/registry.test.mjs'];
const { status } = spawnSync(process.execPath, ['--test', ...tests], {
  cwd: contracts, stdio: 'inherit', env: { ...process.env, UPDATE_GAS: '1' },
});
process.exitCode = status ?? 1;
if (process.exitCode === 0 && process.argv.includes('--table')) await import('./table.mjs');
