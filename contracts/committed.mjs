// A generated file that is committed: written by default, compared when the program runs with `--check`.
//
// Owns: the one way in which every generator here says that a committed file is out of date.

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';

const checking = process.argv.includes('--check');

/** Writes `content` to `file`, or with `--check` fails unless the file already holds it. */
export async function writeOrCheck(file, content) {
  const wanted = Buffer.from(content);
  const name = path.relative(process.cwd(), file);
  if (!checking) {
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, wanted);
    console.log(`wrote ${name}, ${wanted.length} bytes`);
    return;
  }
  const found = await readFile(file).catch(() => Buffer.alloc(0));
  if (found.equals(wanted)) {
    console.log(`${name} is current`);
  } else {
    console.error(`${name} is out of date: run this program without --check and commit the result`);
    process.exitCode = 1;
  }
}
