import '../support/environment.ts';
import { chmodSync, closeSync, fstatSync, openSync, readSync, readdirSync, writeSync } from 'node:fs';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { generateDatabase } from '../../fixtures/generate.ts';
import type { GenerateOptions } from '../../fixtures/generate.ts';
import { tempDir } from '../support/compare.ts';

/** A small database with tables and indexes, no full-text search; 60 to 70 pages of 4 KiB. */
export function smallDatabase(path: string, options: GenerateOptions = {}): void {
  generateDatabase(path, { rows: 250, features: ['overflow', 'withoutRowid'], ...options });
}

/** A database of about so many incompressible bytes. */
export function largeDatabase(path: string, bytes: number, journalMode: 'wal' | 'delete' = 'wal'): void {
  const db = new Database(path);
  try {
    db.pragma(`journal_mode = ${journalMode}`);
    db.pragma('synchronous = OFF');
    db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB)');
    const count = Math.ceil(bytes / 8192);
    db.exec(`
      WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${count})
      INSERT INTO t (x) SELECT randomblob(8000) FROM n`);
  } finally {
    db.close();
  }
}

/** Runs SQL on a database that no process has open, and closes it again. */
export function change(path: string, sql: string): void {
  const db = new Database(path);
  try {
    db.exec(sql);
  } finally {
    db.close();
  }
}

/** A query's first column, on a database that this process has not open. */
export function column(path: string, sql: string): unknown[] {
  const db = new Database(path, { fileMustExist: true });
  try {
    return db.prepare(sql).pluck().all();
  } finally {
    db.close();
  }
}

/** A temporary folder that every user may enter. */
export function openFolder(t: TestContext): string {
  const folder = tempDir(t);
  chmodSync(folder, 0o755);
  return folder;
}

/** The files of a folder, without the -wal and -shm that a mere reader of a WAL database leaves. */
export function names(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => !/-(wal|shm)$/.test(name))
    .sort();
}

/** Overwrites bytes of a file, as a failing disk does. */
export function damage(path: string, offset: number, bytes: Uint8Array): void {
  const file = openSync(path, 'r+');
  try {
    writeSync(file, bytes, 0, bytes.length, offset);
  } finally {
    closeSync(file);
  }
}

/**
 * Puts the checksum of SQLite's checksum VFS (https://www.sqlite.org/cksumvfs.html) into the 8 reserved bytes of each
 * page: two 32-bit sums over the little-endian words of the rest, in turns.
 */
export function addPageChecksums(path: string, pageSize: number): void {
  const file = openSync(path, 'r+');
  try {
    const page = Buffer.alloc(pageSize);
    for (let offset = 0; offset < fstatSync(file).size; offset += pageSize) {
      readSync(file, page, 0, pageSize, offset);
      const words = new Uint32Array(page.buffer, page.byteOffset, (pageSize - 8) / 4);
      const sums = Uint32Array.of(0, 0) as Uint32Array & { 0: number; 1: number };
      for (const [i, word] of words.entries()) {
        const sum = i % 2 === 0 ? 0 : 1;
        sums[sum] += word + (sums[1 - sum] ?? 0);
      }
      writeSync(file, new Uint8Array(sums.buffer), 0, 8, offset + pageSize - 8);
    }
  } finally {
    closeSync(file);
  }
}
