/**
 * `node page-image-child.ts DATABASE…` writes for each database, to stdout, 8 bytes of length (big-endian) and all
 * its pages as SQLite sees them. See compare.ts for why this is a process of its own.
 */
import { writeSync } from 'node:fs';
import Database from 'better-sqlite3';

for (const path of process.argv.slice(2)) {
  const image = readImage(path);
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(image.length));
  writeAll(length);
  writeAll(image);
}

function readImage(path: string): Buffer {
  try {
    return serialize(path, true);
  } catch (error) {
    // With a hot journal, the content of the database is that after SQLite's recovery.
    if ((error as { code?: string }).code !== 'SQLITE_READONLY_ROLLBACK') throw error;
    return serialize(path, false);
  }
}

function serialize(path: string, readonly: boolean): Buffer {
  const db = new Database(path, { readonly, fileMustExist: true, timeout: 5000 });
  try {
    // Serializing reports no read error (it leaves the pages zero), so this reads all pages first.
    db.prepare('SELECT count(*) FROM sqlite_schema').get();
    return db.serialize();
  } finally {
    db.close();
  }
}

function writeAll(bytes: Buffer): void {
  for (let written = 0; written < bytes.length;) {
    written += writeSync(1, bytes, written, bytes.length - written);
  }
}
