import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, fstatSync, mkdirSync, openSync, readSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { constants, zstdCompressSync } from 'node:zlib';
import Database from 'better-sqlite3';
import { Random } from '../fixtures/random.ts';

/** What happened to the origin since the replica was made; `new` has no replica. */
export const CASE_NAMES = [
  'untouched',
  'identical',
  'update364',
  'update1pct',
  'insert1pct',
  'delete1pct',
  'vacuum',
  'new',
] as const;

export type CaseName = (typeof CASE_NAMES)[number];

export interface BenchCase {
  name: CaseName;
  /** For the table of results. */
  description: string;
  /** The changed database, checkpointed and closed. */
  origin: string;
  /**
   * The database before the change, which each run copies; undefined if the case begins without a replica.
   */
  replica: string | undefined;
  /** True if a comparison of both has ended well before the run, and nothing has touched them since. */
  isKnown: boolean;
}

export interface BenchData {
  /** See {@link rowsOfSize}. */
  rows: number;
  seed: number;
}

/** Raise it when the same rows and seed give other data: it is part of the names of the cached files. */
const DATA_VERSION = 1;
const DATA_DIR = join(import.meta.dirname, 'data');
const PAGE_SIZE = 4096;
/** Measured at 3.64 million rows, index and page overhead included. */
const BYTES_PER_ROW = 1.05e9 / 3_640_000;

/** Rows of a database of about this size, such as `1.05GB` (10^9 bytes), `200MB` or a plain number of bytes. */
export function rowsOfSize(size: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(|kB|MB|GB)$/i.exec(size);
  if (match === null) throw new Error(`${size}: not a size; expected for example 1.05GB or 200MB`);
  const unit = { '': 1, KB: 1e3, MB: 1e6, GB: 1e9 }[(match[2] as string).toUpperCase()] as number;
  // Whole thousands, so that every share of the rows that the cases take is a whole number of rows.
  return Math.max(10_000, Math.round((Number(match[1]) * unit) / BYTES_PER_ROW / 1000) * 1000);
}

/** The files of one case, made on first use and kept in bench/data/. */
export function prepareCase(name: CaseName, data: BenchData): BenchCase {
  const base = prepareBase(data);
  const { description, change } = CHANGES[name];
  const origin =
    change === undefined ? base : cached(data, name, (path) => applyChange(base, path, data, change));
  const replica = name === 'new' ? undefined : base;
  return { name, description, origin, replica, isKnown: name === 'untouched' };
}

/**
 * The database that all cases start from: rows of about 200 bytes in the order of their id, and an index whose
 * random keys were inserted in that order, so that its pages are about two thirds full, as in real use.
 */
export function prepareBase(data: BenchData): string {
  return cached(data, 'base', (path) => {
    const db = new Database(path);
    try {
      db.pragma(`page_size = ${PAGE_SIZE}`);
      db.pragma('journal_mode = OFF');
      db.pragma('synchronous = OFF');
      db.pragma('cache_size = -600000');
      db.exec(`
        CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT NOT NULL, amount REAL NOT NULL, payload TEXT NOT NULL);
        CREATE INDEX items_key ON items (key);`);
      db.transaction(() => insertRows(db, new Random(data.seed), data.rows))();
      db.pragma('journal_mode = WAL');
      db.pragma('wal_checkpoint(TRUNCATE)');
    } finally {
      db.close();
    }
  });
}

type Change = (db: Database.Database, random: Random, rows: number) => void;

const CHANGES: Record<CaseName, { description: string; change?: Change }> = {
  untouched: { description: 'nothing has touched either file since the last success: the quick check' },
  identical: { description: 'nothing changed, and every page is compared (`--full`)' },
  update364: {
    description: 'UPDATE of a REAL column, 0.01 % of the rows, scattered',
    change: (db, random, rows) => updateEvery(db, random, rows, 10_000),
  },
  update1pct: {
    description: 'UPDATE of a REAL column, 1 % of the rows, scattered',
    change: (db, random, rows) => updateEvery(db, random, rows, 100),
  },
  insert1pct: {
    description: 'INSERT of 1 % more rows with random index keys',
    change: (db, random, rows) => db.transaction(() => insertRows(db, random, rows / 100))(),
  },
  delete1pct: {
    description: 'DELETE of 1 % of the rows, scattered',
    change: (db, random, rows) => deleteEvery(db, random, rows, 100),
  },
  vacuum: {
    description: 'DELETE of 1 % of the rows, scattered, then VACUUM',
    change: (db, random, rows) => {
      deleteEvery(db, random, rows, 100);
      db.exec('VACUUM');
    },
  },
  new: { description: 'no replica yet' },
};

function insertRows(db: Database.Database, random: Random, rows: number): void {
  const insert = db.prepare('INSERT INTO items (key, amount, payload) VALUES (?, ?, ?)');
  for (let i = 0; i < rows; i++) insert.run(hex(random, 4), amount(random), payload(random));
}

function updateEvery(db: Database.Database, random: Random, rows: number, interval: number): void {
  const update = db.prepare('UPDATE items SET amount = ? WHERE id = ?');
  db.transaction(() => {
    for (const id of oneOfEvery(random, rows, interval)) update.run(amount(random), id);
  })();
}

function deleteEvery(db: Database.Database, random: Random, rows: number, interval: number): void {
  const remove = db.prepare('DELETE FROM items WHERE id = ?');
  db.transaction(() => {
    for (const id of oneOfEvery(random, rows, interval)) remove.run(id);
  })();
}

/** A random one of each `interval` consecutive ids: scattered, and hardly two of them on one page. */
function* oneOfEvery(random: Random, rows: number, interval: number): Generator<number> {
  for (let first = 1; first + interval - 1 <= rows; first += interval) {
    yield random.integer(first, first + interval - 1);
  }
}

function amount(random: Random): number {
  return random.integer(0, 10_000_000) / 100;
}

/** Like a record of a shop's application: repeated field names and vocabulary, some identifiers of high entropy. */
function payload(random: Random): string {
  return (
    `{"status":"${random.pick(STATUSES)}","city":"${random.pick(CITIES)}","note":"${random.pick(NOTES)}",` +
    `"token":"${random.bytes(87).toString('base64url')}"}`
  );
}

function hex(random: Random, words: number): string {
  let text = '';
  for (let i = 0; i < words; i++) text += random.uint32().toString(16).padStart(8, '0');
  return text;
}

const STATUSES = ['open', 'paid', 'shipped', 'returned', 'cancelled'];
const CITIES = 'Amsterdam Bergen Cork Dakar Essen Fukuoka Geneva Haifa Izmir Jaipur Kyoto Lima Malmö'.split(
  ' ',
);
const NOTES =
  'handle-with-care call-first ring-twice leave-at-door gift-wrapped express fragile invoice-by-mail repeat-order'.split(
    ' ',
  );

function applyChange(base: string, path: string, data: BenchData, change: Change): void {
  copyDatabase(base, path);
  const db = new Database(path);
  try {
    db.pragma('synchronous = OFF');
    db.pragma('cache_size = -600000');
    change(db, new Random(data.seed + 1), data.rows);
    db.pragma('wal_checkpoint(TRUNCATE)');
  } finally {
    db.close();
  }
}

/** Copy a database that no process has open. */
export function copyDatabase(from: string, to: string): void {
  execFileSync('cp', process.platform === 'linux' ? ['--reflink=auto', from, to] : [from, to]);
}

function cached(data: BenchData, name: string, make: (path: string) => void): string {
  const dir = join(DATA_DIR, `v${DATA_VERSION}-${data.rows}-${data.seed}`);
  const path = join(dir, `${name}.db`);
  if (existsSync(path)) return path;
  mkdirSync(dir, { recursive: true });
  const part = join(dir, `${name}.part`);
  for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(part + suffix, { force: true });
  const start = performance.now();
  make(part);
  renameSync(part, path);
  console.error(`made ${path} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  return path;
}

interface Facts {
  pages: number;
  /** The compressed size of all pages as a share: in groups of 256, by zstd at level 1. */
  zstdRatio: number;
  /** Counts the pages that are new in the database, or differ from those of the base. */
  differingPages: number;
}

function measure(origin: string, base: string): Facts {
  const groupBytes = 256 * PAGE_SIZE;
  const [a, b] = [openSync(origin, 'r'), openSync(base, 'r')];
  const [groupA, groupB] = [Buffer.alloc(groupBytes), Buffer.alloc(groupBytes)];
  const facts = { pages: fstatSync(a).size / PAGE_SIZE, zstdRatio: 0, differingPages: 0 };
  let compressed = 0;
  for (let page = 0; page < facts.pages; page += 256) {
    const lengthA = readSync(a, groupA, 0, groupBytes, page * PAGE_SIZE);
    const lengthB = readSync(b, groupB, 0, groupBytes, page * PAGE_SIZE);
    for (let offset = 0; offset < lengthA; offset += PAGE_SIZE) {
      const end = offset + PAGE_SIZE;
      if (end > lengthB || groupA.compare(groupB, offset, end, offset, end) !== 0) facts.differingPages++;
    }
    const params = { [constants.ZSTD_c_compressionLevel]: 1 };
    compressed += zstdCompressSync(groupA.subarray(0, lengthA), { params }).length;
  }
  closeSync(a);
  closeSync(b);
  facts.zstdRatio = compressed / (facts.pages * PAGE_SIZE);
  return facts;
}

function main(): void {
  const { values } = parseArgs({
    options: {
      size: { type: 'string', default: '1.05GB' },
      seed: { type: 'string', default: '1' },
    },
  });
  const data = { rows: rowsOfSize(values.size), seed: Number(values.seed) };
  const base = prepareBase(data);
  for (const name of CASE_NAMES) {
    const { origin } = prepareCase(name, data);
    const { pages, zstdRatio, differingPages } = measure(origin, base);
    console.log(
      `${name}: ${pages} pages, ${differingPages} differ from the base, zstd -1 ${zstdRatio.toFixed(3)}`,
    );
  }
}

if (import.meta.main) main();
