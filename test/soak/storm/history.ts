import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import Database from 'better-sqlite3';
import { Random } from '../../../fixtures/random.ts';

/**
 * A database whose every state is known beforehand: transaction n makes the changes of {@link changeOf}, in
 * any process. So a copy shows by itself which state of the origin it has, and any other content is none.
 */
export interface HistoryOptions {
  readonly seed: number;
  /** Rows at the start, of 800 bytes on average. */
  readonly cells: number;
}

interface Change {
  readonly put: readonly number[];
  readonly removed: readonly number[];
}

const SCHEMA = [
  'CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL)',
  'CREATE TABLE cell (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, body BLOB NOT NULL)',
  'CREATE INDEX cell_n ON cell (n, id)',
];

export function makeHistory(path: string, options: HistoryOptions): void {
  const database = new Database(path);
  try {
    database.pragma('page_size = 1024');
    database.pragma('journal_mode = wal');
    database.transaction(() => {
      for (const statement of SCHEMA) database.exec(statement);
      database.exec('INSERT INTO state VALUES (1, 0)');
      put(database, 0, changeOf(options, 0));
    })();
  } finally {
    database.close();
  }
}

/** Commits the next state. */
export function commitNext(database: Database.Database, options: HistoryOptions): void {
  database
    .transaction(() => {
      const n = (database.prepare('SELECT n FROM state').pluck().get() as number) + 1;
      put(database, n, changeOf(options, n));
      database.prepare('UPDATE state SET n = ?').run(n);
    })
    .immediate();
}

function put(database: Database.Database, n: number, change: Change): void {
  const insert = database.prepare('INSERT OR REPLACE INTO cell VALUES (?, ?, ?)');
  for (const id of change.put) insert.run(id, n, bodyOf(n, id));
  const remove = database.prepare('DELETE FROM cell WHERE id = ?');
  for (const id of change.removed) remove.run(id);
}

/** Mostly a few rows; now and then a quarter of them. */
function changeOf({ seed, cells }: HistoryOptions, n: number): Change {
  if (n === 0) return { put: Array.from({ length: cells }, (_, i) => i + 1), removed: [] };
  const random = new Random(seed + Math.imul(n, 0x9e3779b1));
  const ids = (count: number): number[] =>
    Array.from({ length: count }, () => random.integer(1, Math.ceil(cells * 1.2)));
  const count = random.chance(0.05) ? Math.ceil(cells / 4) : random.integer(1, 12);
  return { put: ids(count), removed: ids(random.integer(0, 5)) };
}

function bodyOf(n: number, id: number): Buffer {
  const digest = createHash('sha256').update(`${n} ${id}`).digest();
  return Buffer.alloc(digest.readUInt16LE(0) % 1600, digest);
}

/** The states that the origin has had, and no other. */
export class History {
  readonly #options: HistoryOptions;
  /** Number of the transaction that wrote each row, by its id; 0xffffffff for a row that does not exist. */
  readonly #cells: Uint32Array;
  /** The figures of each state. */
  readonly #digests: string[] = [];

  constructor(options: HistoryOptions) {
    this.#options = options;
    this.#cells = new Uint32Array(Math.ceil(options.cells * 1.2) + 1).fill(0xffffffff);
  }

  /**
   * Proves that the database of `connection` is one state of the history, and returns its number. Throws an
   * AssertionError.
   */
  stateOf(connection: Database.Database, path: string): number {
    return connection.transaction(() => {
      const check = connection.pragma('quick_check', { simple: true });
      assert.equal(check, 'ok', `${path}: quick_check`);
      const indexed = connection
        .prepare('SELECT count(*) FROM cell INDEXED BY cell_n WHERE n >= 0')
        .pluck()
        .get();
      assert.equal(indexed, connection.prepare('SELECT count(*) FROM cell NOT INDEXED').pluck().get(), path);
      const n = connection.prepare('SELECT n FROM state').pluck().get() as number;
      const cells = new Uint32Array(this.#cells.length).fill(0xffffffff);
      const rows = connection.prepare('SELECT id, n, body FROM cell').iterate();
      for (const row of rows as Iterable<{ id: number; n: number; body: Buffer }>) {
        cells[row.id] = row.n;
        assert.ok(
          row.body.equals(bodyOf(row.n, row.id)),
          `${path}: the content of row ${row.id} of ${row.n}`,
        );
      }
      assert.equal(digestOf(cells), this.#digestAt(n), `${path} is no state of the origin, nor state ${n}`);
      return n;
    })();
  }

  /** The same for a file that nobody in this process has open. */
  stateAt(path: string): number {
    const database = new Database(path, { readonly: true, timeout: 10_000 });
    try {
      return this.stateOf(database, path);
    } finally {
      database.close();
    }
  }

  #digestAt(n: number): string {
    while (this.#digests.length <= n) {
      const next = this.#digests.length;
      const change = changeOf(this.#options, next);
      for (const id of change.put) this.#cells[id] = next;
      for (const id of change.removed) this.#cells[id] = 0xffffffff;
      this.#digests.push(digestOf(this.#cells));
    }
    return this.#digests[n] as string;
  }
}

function digestOf(cells: Uint32Array): string {
  return createHash('sha256').update(cells).digest('base64');
}
