import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { freemem } from 'node:os';
import { readIntoPageCache } from './target.ts';

/** Memory that a run fills, as a part of the database: with a new database, its WAL, and some. */
const TOUCHED_PART = 3;
const PIECE_BYTES = 2 ** 26;

/**
 * Makes each run begin alike: its files are in the page cache, and the memory that it will fill was in use
 * just now. Without the second, a virtual machine has to get each page from its host at the first touch. That
 * cost more than the copy in some runs, and fell on the tool that happened to run first.
 */
export function settle(files: readonly string[]): void {
  const largest = Math.max(...files.map((file) => statSync(file).size));
  const bytes = Math.min(Math.ceil(largest * TOUCHED_PART), Math.floor(freemem() / 2));
  const touch = `for (let left = ${bytes}; left > 0; left -= ${PIECE_BYTES}) kept.push(Buffer.alloc(${PIECE_BYTES}, 1));`;
  spawnSync(process.execPath, ['-e', `const kept = []; ${touch}`]);
  for (const file of files) readIntoPageCache(file);
}
