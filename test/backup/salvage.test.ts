import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { runRestore } from '../../src/backup/restore/restore.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import type { KnownFrame } from '../../src/backup/objects/trust.ts';
import type { SalvageReport } from '../../src/backup/types.ts';
import { parseBtreePage } from '../../src/pages/btree-page.ts';
import { tempDir } from '../support/compare.ts';
import { backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const PAGE = 1024;

interface Place {
  readonly folder: string;
  readonly store: string;
  readonly origin: string;
  readonly here: StoreHere;
}

async function place(t: TestContext, sql = SCHEMA): Promise<Place> {
  const folder = tempDir(t);
  const store = join(folder, 'store');
  const here = await storeHere(new DirectoryBackend(store), folder);
  const origin = join(folder, 'origin.db');
  const db = new Database(origin);
  db.exec(sql);
  db.close();
  return { folder, store, origin, here };
}

/** Each kind has a table that is large enough for interior pages, and other tables between their pages. */
const SCHEMA = `
  PRAGMA page_size = ${PAGE};
  CREATE TABLE plain (id INTEGER PRIMARY KEY, a TEXT, b BLOB);
  CREATE TABLE keyed (k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID;
  CREATE TABLE large (id INTEGER PRIMARY KEY, body BLOB);
  CREATE TABLE "odd name'" (id INTEGER PRIMARY KEY, u TEXT UNIQUE);
  CREATE TABLE gone (x);
  CREATE TABLE good (id INTEGER PRIMARY KEY, a TEXT);
  CREATE INDEX plain_a ON plain (a);
  CREATE INDEX keyed_v ON keyed (v);
  CREATE VIEW seen AS SELECT a FROM good;
  WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 4000)
    INSERT INTO plain SELECT i, hex(i * 7919), randomblob(100) FROM i;
  INSERT INTO keyed SELECT hex(id * 31), a FROM plain;
  INSERT INTO large SELECT id, randomblob(5000) FROM plain WHERE id <= 60;
  INSERT INTO "odd name'" SELECT id, 'u' || a FROM plain;
  INSERT INTO gone SELECT randomblob(300) FROM plain WHERE id <= 600;
  INSERT INTO good SELECT id, a FROM plain;
  DROP TABLE gone;`;

const TABLES = ['plain', 'keyed', 'large', "odd name'", 'good'];

/** The pages of an object of one kind, by dbstat. */
function pagesOf(origin: string, name: string, type: 'leaf' | 'internal' | 'overflow'): number[] {
  const db = new Database(origin, { readonly: true });
  try {
    const rows = db
      .prepare('SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ? ORDER BY pageno')
      .pluck();
    return rows.all(name, type) as number[];
  } finally {
    db.close();
  }
}

function rootOf(origin: string, name: string): number {
  const db = new Database(origin, { readonly: true });
  try {
    return db.prepare('SELECT rootpage FROM sqlite_schema WHERE name = ?').pluck().get(name) as number;
  } finally {
    db.close();
  }
}

/**
 * Changes bytes of these pages that mean nothing: the gap in a page of a b-tree, else the last byte of the
 * page.
 */
function touch(origin: string, pages: readonly number[]): void {
  const descriptor = openSync(origin, 'r+');
  try {
    for (const page of pages) {
      const bytes = Buffer.alloc(PAGE);
      readSync(descriptor, bytes, 0, PAGE, (page - 1) * PAGE);
      const parsed = parseBtreePage(bytes, page, PAGE);
      const header = page === 1 ? 100 : 0;
      const content = parsed === undefined ? PAGE : bytes.readUInt16BE(header + 5);
      const pointers = header + (parsed?.isLeaf === true ? 8 : 12) + 2 * (parsed?.cells.length ?? 0);
      assert.ok(parsed === undefined || content > pointers, `page ${page} has a gap`);
      bytes[content - 1] = (bytes[content - 1] as number) ^ 0xff;
      writeSync(descriptor, bytes, 0, PAGE, (page - 1) * PAGE);
    }
  } finally {
    closeSync(descriptor);
  }
}

/** Flips a byte in the header of each frame of this kind that was put since `before`. */
async function damageFrames(
  { here, store }: Place,
  before: ReadonlySet<string>,
  kind: number,
): Promise<void> {
  const { index } = await loadContents(here.access);
  for (const frame of index.frames) {
    if (!before.has(frame.pack.id) && frame.kind === kind) flip(store, frame);
  }
}

/** So that none of it can be read. */
function flip(store: string, { pack, offset }: KnownFrame): void {
  const path = join(store, 'packs', pack.id);
  const bytes = readFileSync(path);
  const at = offset + 4;
  bytes[at] = (bytes[at] as number) ^ 0xff;
  rmSync(path);
  writeFileSync(path, bytes);
}

const PAGES = 1;
const NODES = 2;

async function packsOf({ here }: Place): Promise<Set<string>> {
  return new Set((await here.access.backend.list('packs')).map(({ name }) => name));
}

/** A snapshot that has lost exactly these pages; `alone` means that no other snapshot is in the store. */
async function loseAll(at: Place, pages: readonly number[], { alone = false } = {}): Promise<string> {
  const first = await backupHere(at.here, at.origin);
  const before = await packsOf(at);
  touch(at.origin, pages);
  const { id } = await backupHere(at.here, at.origin);
  await damageFrames(at, before, PAGES);
  if (alone) await at.here.store.forget([first.id]);
  return id;
}

async function salvage(
  { store, folder }: Place,
  snapshot: string,
): Promise<{ path: string; report: SalvageReport | undefined }> {
  const path = join(folder, 'salvaged.db');
  rmSync(path, { force: true });
  const { salvaged } = await runRestore({ store, snapshot, target: path, salvage: true });
  return { path, report: salvaged };
}

/** What the system's own sqlite3 says. */
function sqlite3(path: string, sql: string): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync('sqlite3', ['-batch', path, sql], { encoding: 'utf8' });
  return { status, stdout, stderr };
}

const CONTENT = (table: string): string =>
  `SELECT count(*) FROM "${table}"; SELECT * FROM "${table}" ORDER BY 1;`;

/**
 * Every table but `hit` gives its old rows, also by an index; each of `hit` gives an error, and never too few
 * rows.
 */
function assertOthersRead({ origin }: Place, path: string, hit: readonly string[]): void {
  for (const table of TABLES) {
    const found = sqlite3(path, CONTENT(table));
    if (hit.includes(table)) {
      assert.notEqual(found.status, 0, `${table} is hit`);
      assert.match(found.stderr, /malformed/);
      continue;
    }
    assert.deepEqual(found, sqlite3(origin, CONTENT(table)), table);
  }
  assert.equal(sqlite3(path, 'SELECT count(*) FROM seen').status, 0);
}

function hitOf(report: SalvageReport | undefined): Record<string, number> {
  return Object.fromEntries((report?.objects ?? []).map(({ name, pagesLost }) => [name, pagesLost]));
}

describe('restore --salvage', () => {
  for (const [title, { name, type, some }] of Object.entries({
    'leaves of a table': {
      name: 'plain',
      type: 'leaf',
      some: (all: number[]) => all.filter((_, i) => i % 9 === 4),
    },
    'the first and the last leaf of a table': {
      name: 'plain',
      type: 'leaf',
      some: (all: number[]) => [all[0], all.at(-1)],
    },
    'the root of a table': { name: 'plain', type: 'internal', some: (all: number[]) => all.slice(0, 1) },
    'interior pages of a table WITHOUT ROWID': {
      name: 'keyed',
      type: 'internal',
      some: (all: number[]) => all.slice(1),
    },
    'leaves of a table WITHOUT ROWID': {
      name: 'keyed',
      type: 'leaf',
      some: (all: number[]) => all.slice(3, 9),
    },
    'overflow pages in the middle of values': {
      name: 'large',
      type: 'overflow',
      some: (all: number[]) => all.slice(6, 8),
    },
  } as const)) {
    test(`salvage gives back all other tables where ${title} are lost`, async (t) => {
      const at = await place(t);
      const lost = some(pagesOf(at.origin, name, type)) as number[];
      assert.ok(lost.length > 0);
      const id = await loseAll(at, lost);
      await assert.rejects(runRestore({ store: at.store, snapshot: id, target: join(at.folder, 'x.db') }), {
        code: 'STORE_DAMAGED',
        hint: /restore --salvage/,
      });
      const { path, report } = await salvage(at, id);
      assert.deepEqual(hitOf(report), { [name]: lost.length });
      assert.equal(report?.pagesLost, lost.length);
      assertOthersRead(at, path, [name]);
    });
  }

  test('the salvaged last overflow page of a value is an error, and not a value that ends in zeros', async (t) => {
    const at = await place(t);
    // A value of 5000 bytes has four full overflow pages and a last one, which ends its chain.
    const last = pagesOf(at.origin, 'large', 'overflow').find(
      (page) => readFileSync(at.origin).readUInt32BE((page - 1) * PAGE) === 0,
    ) as number;
    const id = await loseAll(at, [last]);
    const { path, report } = await salvage(at, id);
    assert.deepEqual(hitOf(report), { large: 1 });
    assertOthersRead(at, path, ['large']);
    const whole = sqlite3(path, 'SELECT count(*) FROM large');
    assert.equal(whole.stdout, '60\n', 'the rows themselves are there');
  });

  test('salvage makes an index anew from its table, so that nothing is lost', async (t) => {
    const at = await place(t);
    const lost = [
      ...pagesOf(at.origin, 'plain_a', 'leaf').slice(2, 5),
      rootOf(at.origin, 'keyed_v'),
      ...pagesOf(at.origin, "sqlite_autoindex_odd name'_1", 'leaf').slice(0, 2),
    ];
    const id = await loseAll(at, lost);
    const { path, report } = await salvage(at, id);
    assert.deepEqual(report?.objects.map(({ name, isRebuilt }) => [name, isRebuilt]).sort(), [
      ['keyed_v', true],
      ['plain_a', true],
      ["sqlite_autoindex_odd name'_1", true],
    ]);
    assertOthersRead(at, path, []);
    assert.equal(sqlite3(path, 'PRAGMA integrity_check').stdout, 'ok\n');
    const byIndex = 'SELECT count(*) FROM plain INDEXED BY plain_a WHERE a >= "";';
    assert.deepEqual(sqlite3(path, byIndex), sqlite3(at.origin, byIndex));
  });

  test('an index that cannot be made anew is an error where it is used, and its table can be read', async (t) => {
    const at = await place(t);
    const lost = [
      ...pagesOf(at.origin, 'plain_a', 'leaf').slice(0, 1),
      ...pagesOf(at.origin, 'plain', 'leaf').slice(0, 1),
    ];
    const id = await loseAll(at, lost);
    const { path, report } = await salvage(at, id);
    assert.deepEqual(hitOf(report), { plain: 1, plain_a: 1 });
    assertOthersRead(at, path, ['plain']);
    const byIndex = sqlite3(path, 'SELECT count(*) FROM plain INDEXED BY plain_a WHERE a >= "";');
    assert.match(byIndex.stderr, /malformed/);
  });

  test('salvaged free pages hold nothing, and the file can be written afterwards', async (t) => {
    const at = await place(t);
    const trunk = readFileSync(at.origin).readUInt32BE(32);
    assert.ok(trunk > 0);
    const leaf = readFileSync(at.origin).readUInt32BE((trunk - 1) * PAGE + 8);
    const id = await loseAll(at, [trunk, leaf]);
    const { path, report } = await salvage(at, id);
    assert.equal(report?.pagesLost, 2);
    assertOthersRead(at, path, []);
    const written = sqlite3(
      path,
      'INSERT INTO good (a) SELECT hex(randomblob(200)) FROM plain; SELECT count(*) FROM good',
    );
    assert.equal(written.stdout, '8000\n', written.stderr);
  });

  test('salvage takes page 1 from the snapshots before and after it, if their schema is the same', async (t) => {
    const at = await place(t);
    const id = await loseAll(at, [1]);
    touch(at.origin, [1]);
    const after = await backupHere(at.here, at.origin, { usesParent: false });
    const { path, report } = await salvage(at, id);
    assert.equal(report?.isSchemaCertain, true);
    assert.notEqual(report?.schemaOf, after.id);
    assert.equal(report?.pagesLost, 1);
    assertOthersRead(at, path, []);
  });

  test('salvage says that page 1 of the newest snapshot is that of another one', async (t) => {
    const at = await place(t);
    const id = await loseAll(at, [1]);
    const { path, report } = await salvage(at, id);
    assert.equal(report?.isSchemaCertain, false);
    assert.ok(report?.schemaOf !== undefined);
    assertOthersRead(at, path, []);
  });

  test('without any page 1 salvage gives a database without tables that has all other pages', async (t) => {
    const at = await place(t);
    const id = await loseAll(at, [1], { alone: true });
    const { path, report } = await salvage(at, id);
    assert.equal(report?.isSchemaLost, true);
    assert.equal(sqlite3(path, 'SELECT count(*) FROM sqlite_schema').stdout, '0\n');
    assert.equal(sqlite3(path, 'PRAGMA page_count').stdout, `${statSync(path).size / PAGE}\n`);
  });

  test('a salvaged schema of many pages loses only the entries of the lost ones', async (t) => {
    const tables = Array.from(
      { length: 200 },
      (_, i) => `CREATE TABLE t${i} (x, y DEFAULT '${'d'.repeat(i % 7 === 3 ? 1500 : 40)}');`,
    );
    const at = await place(
      t,
      `${SCHEMA}${tables.join('\n')}${tables.map((_, i) => `INSERT INTO t${i} VALUES (${i}, 0);`).join('\n')}`,
    );
    const leaves = pagesOf(at.origin, 'sqlite_schema', 'leaf').slice(3, 5);
    const overflow = pagesOf(at.origin, 'sqlite_schema', 'overflow').slice(-1);
    const id = await loseAll(at, [...leaves, ...overflow], { alone: true });
    const { path, report } = await salvage(at, id);
    assert.equal(hitOf(report)['sqlite_schema'], 3);
    const left = sqlite3(path, 'SELECT name FROM sqlite_schema WHERE rootpage > 0');
    assert.equal(left.status, 0, left.stderr);
    const names = left.stdout.trim().split('\n');
    assert.ok(names.length > 150 && names.length < 209, `${names.length} are left`);
    const ours = names.filter((each) => /^t\d+$/.test(each));
    const rows = sqlite3(path, ours.map((name) => `SELECT x FROM ${name};`).join(''));
    assert.deepEqual(
      rows.stdout.trim().split('\n'),
      ours.map((name) => name.slice(1)),
    );
  });
});

describe('restore --salvage of a damaged store', () => {
  test('salvage of a store that lacks nodes of a tree gives back what other nodes lead to', async (t) => {
    const at = await place(t);
    await backupHere(at.here, at.origin);
    const before = await packsOf(at);
    const count = statSync(at.origin).size / PAGE;
    // More than three quarters of the tree change, so that its root is written whole, and one leaf stays in
    // the first pack.
    const kept = 3;
    const pages = Array.from({ length: count }, (_, i) => i + 1).filter(
      (page) => Math.floor((page - 1) / 64) !== kept && page % 64 !== 0 && hasGap(at.origin, page),
    );
    touch(at.origin, pages);
    const { id } = await backupHere(at.here, at.origin);
    const { index } = await loadContents(at.here.access);
    for (const frame of index.frames)
      if (before.has(frame.pack.id) && frame.kind === NODES) flip(at.store, frame);
    const { path, report } = await salvage(at, id);
    assert.equal(report?.pagesLost, 64);
    const hit = Object.keys(hitOf(report));
    assert.ok(hit.length > 0);
    const tables = report?.objects.filter(({ type }) => type === 'table').map(({ name }) => name) ?? [];
    assertOthersRead(at, path, tables);
  });

  test('salvage of a store without a pack says so if nothing is left', async (t) => {
    const at = await place(t);
    const { id } = await backupHere(at.here, at.origin);
    for (const name of await packsOf(at)) rmSync(join(at.store, 'packs', name));
    const target = join(at.folder, 'salvaged.db');
    await assert.rejects(runRestore({ store: at.store, snapshot: id, target, salvage: true }), {
      code: 'STORE_DAMAGED',
      message: /no page left/,
    });
    assert.ok(!existsSync(target));
  });

  test('--salvage of a sound store is a restore like any other', async (t) => {
    const at = await place(t);
    const { id } = await backupHere(at.here, at.origin);
    const { path, report } = await salvage(at, id);
    assert.equal(report, undefined);
    assert.deepEqual(readFileSync(path), readFileSync(at.origin));
  });

  test('--salvage never overwrites, and writes to this host only', async (t) => {
    const at = await place(t);
    const { id } = await backupHere(at.here, at.origin);
    const target = join(at.folder, 'there.db');
    const words = { store: at.store, snapshot: id, salvage: true } as const;
    for (const other of [{ overwrite: true }, { replace: true }, { dryRun: true }])
      await assert.rejects(runRestore({ ...words, target, ...other }), { code: 'USAGE' });
    await assert.rejects(runRestore({ ...words, target: 'host:/x.db' }), { code: 'USAGE' });
    writeFileSync(target, 'somebody’s');
    await assert.rejects(runRestore({ ...words, target }), { code: 'REPLICA_EXISTS' });
    assert.equal(readFileSync(target, 'utf8'), 'somebody’s');
  });

  test('--salvage goes over the leftovers of an interrupted run', async (t) => {
    const at = await place(t);
    const id = await loseAll(at, pagesOf(at.origin, 'plain', 'leaf').slice(4, 6));
    writeFileSync(join(at.folder, '.salvaged.db.sqlsync-part'), Buffer.alloc(PAGE * 5000, 7));
    const { path } = await salvage(at, id);
    assertOthersRead(at, path, ['plain']);
    assert.equal(statSync(path).size, statSync(at.origin).size);
  });

  test('--salvage gives back a database in WAL mode, and one with auto_vacuum', async (t) => {
    const at = await place(
      t,
      `PRAGMA page_size = ${PAGE}; PRAGMA auto_vacuum = FULL; PRAGMA journal_mode = WAL; ${SCHEMA}`,
    );
    const id = await loseAll(at, [2, ...pagesOf(at.origin, 'plain_a', 'leaf').slice(1, 3)]);
    const { path, report } = await salvage(at, id);
    assert.deepEqual(report?.objects.map(({ name }) => name).sort(), ['(free)', 'plain_a']);
    assertOthersRead(at, path, []);
    assert.equal(sqlite3(path, 'PRAGMA journal_mode').stdout, 'wal\n');
    const written = sqlite3(
      path,
      'DELETE FROM good; INSERT INTO good (a) SELECT a FROM plain; SELECT count(*) FROM good',
    );
    assert.equal(written.stdout, '4000\n', written.stderr);
  });
});

function hasGap(origin: string, page: number): boolean {
  const bytes = readFileSync(origin).subarray((page - 1) * PAGE, page * PAGE);
  const parsed = parseBtreePage(bytes, page, PAGE);
  const header = page === 1 ? 100 : 0;
  if (parsed === undefined) return true;
  return bytes.readUInt16BE(header + 5) > header + (parsed.isLeaf ? 8 : 12) + 2 * parsed.cells.length;
}
