import assert from 'node:assert/strict';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { generateDatabase } from '../../fixtures/generate.ts';
import { Random } from '../../fixtures/random.ts';
import { assertReplicaOf, maskedPages, pageImage } from './compare.ts';
import { runRelayed } from './relay-near.ts';
import type { Pair, Role } from './relay-near.ts';

/** The kind of replica that a sync finds: one in WAL mode, one in rollback mode, or none. */
export const REPLICA_KINDS = ['wal', 'rollback', 'new'] as const;
export type ReplicaKind = (typeof REPLICA_KINDS)[number];

export type ReplicaState = 'absent' | 'old' | 'new' | 'torn';

export interface ScenarioOptions {
  /** Rows that carry a blob of 3,000 bytes; every transaction changes all of them. */
  readonly blobs: number;
  readonly pageSize: number;
}

/**
 * An origin, and replicas of its earlier state to copy for each run. The databases have no freelist: SQLite
 * does not journal the pages of one, so that a rollback would not restore them.
 */
export class Scenario {
  readonly origin: string;
  readonly #folder: string;
  readonly #newPages: Buffer[];
  readonly #old = new Map<ReplicaKind, { bytes: Buffer; pages: Buffer[] }>();

  static async make(folder: string, options: ScenarioOptions): Promise<Scenario> {
    const origin = join(folder, 'origin.db');
    generateDatabase(origin, { rows: 40, features: ['withoutRowid'], pageSize: options.pageSize });
    write(origin, new Random(7), options.blobs);
    for (const kind of ['wal', 'rollback'] as const) {
      mkdirSync(join(folder, kind));
      const replica = join(folder, kind, 'replica.db');
      const { near, far } = await runRelayed('pull', { origin, replica });
      assert.deepEqual([near, far], [undefined, undefined]);
      if (kind === 'rollback') withDatabase(replica, (db) => db.pragma('journal_mode = delete'));
    }
    mkdirSync(join(folder, 'new'));
    write(origin, new Random(8), options.blobs);
    return new Scenario(folder, origin);
  }

  private constructor(folder: string, origin: string) {
    this.#folder = folder;
    this.origin = origin;
    this.#newPages = maskedPages(readFileSync(origin));
    for (const kind of ['wal', 'rollback'] as const) {
      const bytes = readFileSync(join(folder, kind, 'replica.db'));
      this.#old.set(kind, { bytes, pages: maskedPages(bytes) });
    }
  }

  /** A replica of its own for one run. */
  pair(kind: ReplicaKind): Pair {
    const run = mkdtempSync(join(this.#folder, `run-${kind}-`));
    cpSync(join(this.#folder, kind), run, { recursive: true });
    const replica = join(run, 'replica.db');
    if (kind !== 'new') markAsOwn(replica);
    return { origin: this.origin, replica };
  }

  /** The replica's state for its readers; if no byte was written, the replica is not opened for that. */
  state(kind: ReplicaKind, pair: Pair): ReplicaState {
    if (!existsSync(pair.replica)) return 'absent';
    const old = this.#old.get(kind);
    const settled = !['-wal', '-journal'].some((suffix) => holdsContent(pair.replica + suffix));
    const bytes = readFileSync(pair.replica);
    if (settled && old?.bytes.equals(bytes) === true) return 'old';
    const pages = maskedPages(settled ? bytes : imageOf(pair.replica));
    if (samePages(pages, this.#newPages)) return 'new';
    return old !== undefined && samePages(pages, old.pages) ? 'old' : 'torn';
  }

  /** The state without a commit. */
  before(kind: ReplicaKind): ReplicaState {
    return kind === 'new' ? 'absent' : 'old';
  }

  /** Runs the sync again, to its end; `thorough` has another build of SQLite read the result too. */
  async converge(kind: ReplicaKind, role: Role, pair: Pair, thorough = false): Promise<void> {
    const { near, far } = await runRelayed(role, pair);
    assert.deepEqual([near, far], [undefined, undefined], 'running again');
    assert.equal(this.state(kind, pair), 'new', 'running again');
    if (thorough) assertReplicaOf(this.origin, pair.replica);
  }
}

/** Makes the mark that was copied with a replica the mark of the copy. */
function markAsOwn(replica: string): void {
  const path = join(dirname(replica), `.${basename(replica)}.sqlsync`);
  const mark = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  const { dev, ino } = statSync(replica);
  writeFileSync(path, JSON.stringify({ ...mark, fileId: `${dev}:${ino}`, fileBornMs: 0 }));
}

/** Reading makes SQLite recover, so this reads a copy: the next sync has to cope with the files that the kill left. */
function imageOf(path: string): Buffer {
  const copy = join(mkdtempSync(`${path}-copy-`), 'replica.db');
  for (const suffix of ['', '-wal', '-journal']) {
    if (existsSync(path + suffix)) copyFileSync(path + suffix, copy + suffix);
  }
  return pageImage(copy);
}

function holdsContent(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;
}

function samePages(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return a.length === b.length && a.every((page, i) => page.equals(b[i] as Buffer));
}

function write(path: string, random: Random, blobs: number): void {
  withDatabase(path, (db) => {
    db.exec('CREATE TABLE IF NOT EXISTS bulk (id INTEGER PRIMARY KEY, payload BLOB)');
    const put = db.prepare('INSERT OR REPLACE INTO bulk VALUES (?, ?)');
    db.transaction(() => {
      for (let id = 1; id <= blobs; id++) put.run(id, random.bytes(3000));
      db.exec('UPDATE item SET amount = amount + 1');
    })();
    db.pragma('wal_checkpoint(TRUNCATE)');
    assert.equal(db.pragma('freelist_count', { simple: true }), 0);
  });
}

function withDatabase(path: string, work: (db: Database.Database) => void): void {
  const db = new Database(path);
  try {
    work(db);
  } finally {
    db.close();
  }
}
