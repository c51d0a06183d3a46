import { spawnSync } from 'node:child_process';
import { freemem } from 'node:os';
import { readIntoPageCache } from './target.ts';

const GIB = 1024 ** 3;

/** Memory that the largest run fills with dirty pages: a new database, its WAL, and some. */
const TOUCHED_BYTES = 3 * GIB;

/**
 * Makes each run begin alike: its files are in the page cache, and the memory that it will fill was in use
 * just now. Without the second, a virtual machine has to get each page from its host at the first touch. That
 * cost more than the copy in some runs, and fell on the tool that happened to run first.
 */
export function settle(files: readonly string[]): void {
  const bytes = Math.min(TOUCHED_BYTES, Math.floor(freemem() / 2));
  const touch = `for (let left = ${bytes}; left > 0; left -= 2 ** 28) kept.push(Buffer.alloc(2 ** 28, 1));`;
  spawnSync(process.execPath, ['-e', `const kept = []; ${touch}`]);
  for (const file of files) readIntoPageCache(file);
}
