import assert from 'node:assert/strict';
import Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';

/**
 * A database that shows by itself whether it is one snapshot: every transaction writes one and the same stamp into
 * every row of every table, so that each page carries it, and the number of rows into `total`. A copy that mixes the
 * pages of two snapshots has two stamps, a wrong number of rows, or fails `integrity_check`.
 */
export const STAMPED_SCHEMA: readonly string[] = [
  'CREATE TABLE total (id INTEGER PRIMARY KEY CHECK (id = 1), stamp INTEGER NOT NULL, cells INTEGER NOT NULL)',
  'CREATE TABLE cell (id INTEGER PRIMARY KEY, stamp INTEGER NOT NULL, body BLOB NOT NULL)',
  'CREATE INDEX cell_stamp ON cell (stamp, id)',
];

export interface StampedOptions {
  readonly seed: number;
  readonly pageSize?: number;
  readonly journalMode?: 'wal' | 'delete';
  /** Rows, of some 300 bytes each. */
  readonly cells?: number;
}

/** Makes such a database at `path`. */
export function makeStamped(path: string, options: StampedOptions): void {
  const database = new Database(path);
  try {
    database.pragma(`page_size = ${options.pageSize ?? 1024}`);
    database.pragma(`journal_mode = ${options.journalMode ?? 'wal'}`);
    database.pragma('synchronous = OFF');
    const random = new Random(options.seed);
    database.transaction(() => {
      createStamped(database);
      addCells(database, random, options.cells ?? 200);
      stampAll(database, nextStamp());
    })();
    database.pragma('wal_checkpoint(TRUNCATE)');
  } finally {
    database.close();
  }
}

export function createStamped(database: Database.Database): void {
  for (const statement of STAMPED_SCHEMA) database.exec(statement);
  database.exec('INSERT INTO total VALUES (1, 0, 0)');
}

export function addCells(database: Database.Database, random: Random, count: number): void {
  const insert = database.prepare('INSERT INTO cell (stamp, body) VALUES (0, ?)');
  for (let i = 0; i < count; i++) insert.run(random.bytes(random.integer(1, 600)));
}

/** Ends a transaction: everything in the database is of this stamp. */
export function stampAll(database: Database.Database, stamp: number): void {
  database.prepare('UPDATE cell SET stamp = ?').run(stamp);
  database.prepare('UPDATE total SET stamp = ?, cells = (SELECT count(*) FROM cell)').run(stamp);
}

/** Later than every stamp that any process of this machine took before (microseconds of the monotonic clock). */
export function nextStamp(): number {
  return Number(process.hrtime.bigint() / 1000n);
}

export interface SnapshotRead {
  /** Undefined if the database has no tables. */
  readonly stamp: number | undefined;
  readonly cells: number;
}

/**
 * Proves that the database at `path` is one snapshot, and returns its stamp. Opens it in this process:
 * nothing else here may have it open. Throws an AssertionError.
 */
export function assertOneSnapshot(path: string): SnapshotRead {
  const database = new Database(path, { readonly: true, timeout: 5000 });
  try {
    // One transaction, since others may write meanwhile.
    return database.transaction(() => readSnapshot(database, path))();
  } finally {
    database.close();
  }
}

/** The same on an open connection, in a transaction. */
export function readSnapshot(database: Database.Database, path: string): SnapshotRead {
  const check = database.pragma('integrity_check', { simple: true });
  assert.equal(check, 'ok', `${path}: integrity_check`);
  return readStamp(database, path);
}

/** As {@link readSnapshot}, without `integrity_check`. */
export function readStamp(database: Database.Database, path: string): SnapshotRead {
  const tables = database
    .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    .pluck()
    .all();
  if (tables.length === 0) return { stamp: undefined, cells: 0 };
  assert.ok(
    tables.includes('cell') && tables.includes('total'),
    `${path} has the tables ${tables.join(', ')}`,
  );
  const total = database.prepare('SELECT stamp, cells FROM total').get() as SnapshotRead;
  const stamps = database.prepare('SELECT DISTINCT stamp FROM cell NOT INDEXED').pluck().all();
  const cells = database.prepare('SELECT count(*) FROM cell NOT INDEXED').pluck().get();
  assert.deepEqual(
    stamps,
    total.cells === 0 ? [] : [total.stamp],
    `${path}: stamps of cells and of the total`,
  );
  assert.equal(cells, total.cells, `${path}: number of cells`);
  return total;
}
