/**
 * The two writers that the benchmark compares: sqlsync's pools, and better-sqlite3 as it comes, with a
 * connection for each writer.
 */
import Database from 'better-sqlite3';
import { openDatabase } from '../../src/index.ts';

export type Kind = 'plain' | 'pools';

export const BUSY_TIMEOUT_MS = 5000;

/** One writer; each write adds 1 to its row of `counters`, so that a lost or doubled write shows. */
export interface BenchWriter {
  /** A single statement. */
  add(): Promise<unknown> | undefined;
  /** A transaction of the same statements that takes `ms` more. */
  addSlowly(ms: number): Promise<unknown> | undefined;
}

export interface Writers {
  readonly writers: readonly BenchWriter[];
  readonly close: () => Promise<void>;
}

const ADD = 'UPDATE counters SET n = n + 1 WHERE writer = ?';
const sleeper = new Int32Array(new SharedArrayBuffer(4));

/** The work of a transaction: the process computes, or waits for something. */
export function sleep(ms: number): void {
  Atomics.wait(sleeper, 0, 0, ms);
}

export function makeDatabase(path: string, writers: number): void {
  const db = new Database(path);
  db.pragma('journal_mode = WAL');
  db.exec(`
    CREATE TABLE counters (writer INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    CREATE TABLE places (id INTEGER PRIMARY KEY, url TEXT NOT NULL, title TEXT, visits INTEGER);
    CREATE UNIQUE INDEX places_url ON places (url);
  `);
  const insert = db.prepare('INSERT INTO counters VALUES (?, 0)');
  db.transaction(() => {
    for (let writer = 0; writer < writers; writer++) insert.run(writer);
  })();
  db.close();
}

export function countWrites(path: string): number {
  const db = new Database(path, { readonly: true });
  try {
    return db.prepare('SELECT total(n) FROM counters').pluck().get() as number;
  } finally {
    db.close();
  }
}

/** Opens the writers `first` … `first + count - 1`. */
export async function openWriters(kind: Kind, path: string, first: number, count: number): Promise<Writers> {
  const numbers = Array.from({ length: count }, (_, index) => first + index);
  return kind === 'plain' ? plainWriters(path, numbers) : await poolWriters(path, numbers);
}

export function openPlain(path: string): Database.Database {
  const db = new Database(path, { timeout: BUSY_TIMEOUT_MS });
  db.pragma('synchronous = NORMAL');
  return db;
}

function plainWriters(path: string, numbers: readonly number[]): Writers {
  const connections: Database.Database[] = [];
  const writers = numbers.map((number): BenchWriter => {
    const db = openPlain(path);
    connections.push(db);
    const add = db.prepare(ADD);
    const addSlowly = db.transaction((ms: number) => {
      add.run(number);
      sleep(ms);
    });
    return {
      add: () => void add.run(number),
      addSlowly: (ms) => {
        addSlowly.immediate(ms);
        return undefined;
      },
    };
  });
  return {
    writers,
    close: () => {
      for (const db of connections) db.close();
      return Promise.resolve();
    },
  };
}

async function poolWriters(path: string, numbers: readonly number[]): Promise<Writers> {
  const db = await openDatabase(path, { busyTimeoutMs: BUSY_TIMEOUT_MS });
  const writers = numbers.map((number): BenchWriter => {
    const params = [number];
    return {
      add: () => db.write.run(ADD, params),
      addSlowly: (ms) =>
        db.write.transaction(async (tx) => {
          await tx.run(ADD, params);
          sleep(ms);
        }),
    };
  });
  return { writers, close: () => db.close() };
}
