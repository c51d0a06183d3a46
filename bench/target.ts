import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { OWN_HEADER_RANGES } from '../src/pages/header.ts';
import { copyDatabase } from './data.ts';

export const WORK_DIR: string = join(import.meta.dirname, 'data', 'work');

const CHUNK_BYTES = 1 << 20;

/** A path in an empty directory, with a copy of `replica` there that is on the disk already. */
export function freshTarget(replica: string | undefined): string {
  rmSync(WORK_DIR, { recursive: true, force: true });
  mkdirSync(WORK_DIR, { recursive: true });
  const target = join(WORK_DIR, 'replica.db');
  if (replica !== undefined) copyToDisk(replica, target);
  return target;
}

/**
 * Copies a database that no process has open, and waits for the disk, so that the next measurement does not
 * pay for the copy.
 */
export function copyToDisk(from: string, to: string): void {
  copyDatabase(from, to);
  const file = openSync(to, 'r+');
  fsyncSync(file);
  closeSync(file);
}

/** A cheap proof that the right thing was measured; the tests prove much more. */
export function assertSamePages(origin: string, replica: string): void {
  const wal = `${replica}-wal`;
  if (existsSync(wal) && statSync(wal).size > 0) {
    const db = new Database(replica);
    db.pragma('wal_checkpoint(TRUNCATE)');
    db.close();
  }
  const files = [openSync(origin, 'r'), openSync(replica, 'r')];
  const chunks = files.map(() => Buffer.alloc(CHUNK_BYTES));
  for (let position = 0; ; position += CHUNK_BYTES) {
    const [a, b] = files.map((file, index) => {
      const chunk = chunks[index] as Buffer;
      const read = chunk.subarray(0, readSync(file, chunk, 0, CHUNK_BYTES, position));
      if (position === 0) for (const [first, end] of OWN_HEADER_RANGES) read.fill(0, first, end);
      return read;
    }) as [Buffer, Buffer];
    if (!a.equals(b))
      throw new Error(`${replica} differs from ${origin} between ${position} and the next MiB`);
    if (a.length < CHUNK_BYTES) break;
  }
  files.forEach(closeSync);
}

export function readIntoPageCache(path: string): void {
  const file = openSync(path, 'r');
  const chunk = Buffer.alloc(CHUNK_BYTES);
  while (readSync(file, chunk) > 0);
  closeSync(file);
}
