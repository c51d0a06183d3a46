import assert from 'node:assert/strict';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { Random } from '../../../fixtures/random.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import type { SqlsyncError } from '../../../src/errors.ts';
import { besideReplica } from '../../../src/beside/mark.ts';
import { maskedPages } from '../../support/compare.ts';
import { runRelayed } from '../../support/relay-near.ts';
import type { Pair, Role } from '../../support/relay-near.ts';
import { syncHere } from '../../support/sync.ts';
import { OriginWriter } from './origin-writer.ts';

/**
 * What a sync finds in the replica's place. `wal` grows and `rollback` shrinks; `new` is nothing, `resumed`
 * the part file of an interrupted run; `replace` and `replaceWal` have larger pages than the origin and less
 * content, `replaceSmaller` has smaller pages and more content; `emptied` has an origin of 0 bytes; `staged`
 * is `wal` by way of a spool, `spooled` the same with the leftovers of an interrupted run in the spool.
 */
export const SCENE_KINDS = [
  'wal',
  'rollback',
  'new',
  'resumed',
  'replace',
  'replaceWal',
  'replaceSmaller',
  'emptied',
  'staged',
  'spooled',
] as const;
export type SceneKind = (typeof SCENE_KINDS)[number];

/** How a sync ended; `done` means that it reported success. */
export interface Ended {
  readonly failure: SqlsyncError | undefined;
  readonly done?: Pick<MessageOf<'done'>, 'warnings'> | undefined;
}

export type ReplicaState = 'absent' | 'old' | 'new';

const PAGE_BYTES = 1024;
const SPOOL_HEADER_BYTES = 4096;

/** The words of a failure that leaves open whether the replica is the old or the new one. */
const ADMITS_COMMIT = /may have been committed|is as it was or an exact copy|may have lost commits/;

/** Files that may lie beside a replica when nothing is under way. */
const AT_REST = new Set([
  'replica.db',
  '.replica.db.sqlsync',
  // SQLite's own files: a run that finds nothing to change leaves what a killed run had written to the WAL
  // and committed.
  'replica.db-shm',
  'replica.db-wal',
]);

/**
 * An origin that a process goes on writing, an earlier state of a replica of it, and the judge of each sync's
 * outcome.
 */
export class Scene {
  readonly kind: SceneKind;
  readonly folder: string;
  readonly origin: string;
  readonly #originBytes: Buffer;
  readonly #writer: OriginWriter;
  #oldPages: Buffer[] = [];
  #newPages: Buffer[] = [];

  /** Makes the scene in `folder`, which it creates. The caller must call `end`. */
  static async make(folder: string, kind: SceneKind): Promise<Scene> {
    mkdirSync(join(folder, 'old'), { recursive: true });
    const origin = join(folder, 'origin.db');
    await makeOld(origin, join(folder, 'old'), kind);
    rmSync(origin);
    if (kind === 'emptied') writeFileSync(origin, '');
    else populate(origin, { pageBytes: PAGE_BYTES, rows: 24, salt: 2 });
    if (kind === 'spooled') await leaveSpool(origin, join(folder, 'old', 'replica.db'));
    const scene = new Scene(folder, kind, origin, await OriginWriter.start(origin));
    await scene.#learn();
    return scene;
  }

  private constructor(folder: string, kind: SceneKind, origin: string, writer: OriginWriter) {
    this.folder = folder;
    this.kind = kind;
    this.origin = origin;
    this.#originBytes = readFileSync(origin);
    this.#writer = writer;
  }

  async end(): Promise<void> {
    await this.#writer.end();
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The state of an untouched replica. */
  get before(): ReplicaState {
    return this.kind === 'new' || this.kind === 'resumed' ? 'absent' : 'old';
  }

  /** A replica in its old state, in a folder of its own. */
  pair(run: string = mkdtempSync(join(this.folder, 'run-'))): Pair {
    cpSync(join(this.folder, 'old'), run, { recursive: true });
    const replica = join(run, 'replica.db');
    if (existsSync(replica)) markAsOwn(replica);
    return { origin: this.origin, replica, replace: this.kind.startsWith('replace') };
  }

  /**
   * Checks the invariant after a sync: the replica is in one of two states, the sync's report is true, the
   * origin is untouched, and another run leads to the new state. Resolves to the state.
   */
  async judge(
    pair: Pair,
    { failure, done }: Ended,
    { mayBeUnmarked = false }: { readonly mayBeUnmarked?: boolean } = {},
  ): Promise<ReplicaState> {
    const state = this.state(pair);
    const said = `${failure?.code} ${failure?.message} (${failure?.hint})`;
    if (failure === undefined) assert.equal(state, 'new', 'the sync reported success');
    if (/nothing was (changed|overwritten)|was not changed/i.test(said))
      assert.equal(state, this.before, said);
    assert.notEqual(failure?.code, 'INTERNAL', said);
    // The commit took place, and its confirmation was lost or a later step failed: then the error has to say
    // so.
    if (failure !== undefined && state === 'new') assert.match(said, ADMITS_COMMIT);
    await this.checkOrigin();
    const isUnmarked = state === 'new' && !existsSync(join(pair.replica, '..', '.replica.db.sqlsync'));
    if (isUnmarked && done !== undefined) assert.match(done.warnings.join(), /will ask for --overwrite/);
    await this.converge({ ...pair, overwrite: mayBeUnmarked && isUnmarked });
    await this.checkOrigin();
    return state;
  }

  /** Rejects if the origin has changed, or its writer had to wait. */
  async checkOrigin(): Promise<void> {
    const { taken, refused } = await this.#writer.figures();
    assert.equal(refused, 0, `the origin's writer was refused ${refused} times`);
    assert.ok(taken > 0, 'the origin has no writer');
    assert.ok(readFileSync(this.origin).equals(this.#originBytes), 'the origin was changed');
  }

  /** The state of the replica after SQLite's own recovery; throws if that is neither state, whole and sound. */
  state({ replica }: Pair): ReplicaState {
    if (!existsSync(replica)) {
      assert.equal(this.before, 'absent', 'the replica is gone');
      return 'absent';
    }
    const pages = recoveredPages(replica, this.folder);
    if (samePages(pages, this.#newPages)) return 'new';
    assert.equal(this.before, 'old', 'there is a new replica, and it is not the new snapshot');
    assert.ok(samePages(pages, this.#oldPages), 'the replica is neither the old nor the new snapshot');
    return 'old';
  }

  /** Runs the sync once more, without a fault: the replica has to be the new snapshot, with nothing left beside it. */
  async converge(pair: Pair, role: Role = 'push'): Promise<void> {
    const { near, far } = await runRelayed(role, pair);
    assert.equal(near ?? far, undefined, `running again: ${near?.code} ${(near ?? far)?.message}`);
    assert.equal(this.state(pair), 'new', 'running again');
    const folder = join(pair.replica, '..');
    for (const name of readdirSync(folder)) {
      const isAtRest = name.endsWith('-journal') ? !isHot(join(folder, name)) : AT_REST.has(name);
      assert.ok(isAtRest, `${name} is left beside the replica`);
    }
  }

  /** Removes the folder of a run that is over. */
  discard(pair: Pair): void {
    rmSync(join(pair.replica, '..'), { recursive: true, force: true });
  }

  async #learn(): Promise<void> {
    const old = join(this.folder, 'old', 'replica.db');
    if (existsSync(old)) this.#oldPages = recoveredPages(old, this.folder);
    const pair = this.pair();
    const { near, far } = await runRelayed('push', pair);
    assert.equal(near ?? far, undefined);
    this.#newPages = recoveredPages(pair.replica, this.folder);
    if (this.kind !== 'emptied') {
      assert.ok(samePages(this.#newPages, maskedPages(this.#originBytes)), 'a sync without a fault');
    }
    assert.ok(!samePages(this.#newPages, this.#oldPages));
    this.discard(pair);
  }
}

/** The environment that a replica agent needs for a scene of this kind. */
export function environmentOf(kind: SceneKind): NodeJS.ProcessEnv {
  return kind === 'staged' ? { SQLSYNC_STAGING_MIN_BYTES: '0' } : {};
}

/** What an interrupted run leaves: the pages that it received. */
async function leaveSpool(origin: string, replica: string): Promise<void> {
  const onFrame = ({ name }: { name: string }): 'cut' | void => (name === 'root' ? 'cut' : undefined);
  await assert.rejects(syncHere({ origin, replica, staging: 'always', onFrame }), {
    code: 'CONNECTION_LOST',
  });
  assert.ok(existsSync(besideReplica(replica, '-spool')));
}

/** A replica of an earlier state of `origin` in `folder`, made by sqlsync. */
async function makeOld(origin: string, folder: string, kind: SceneKind): Promise<void> {
  const replica = join(folder, 'replica.db');
  const isReplaced = kind.startsWith('replace');
  const isSmaller = kind === 'replaceSmaller';
  const grows = ['wal', 'staged', 'spooled'].includes(kind);
  const rows = grows || (isReplaced && !isSmaller) ? 18 : 32;
  const sameAsNew = kind === 'new' || kind === 'resumed';
  populate(origin, {
    pageBytes: isSmaller ? PAGE_BYTES / 2 : isReplaced ? PAGE_BYTES * 2 : PAGE_BYTES,
    rows: sameAsNew ? 24 : rows,
    salt: sameAsNew ? 2 : 1,
  });
  if (kind === 'new') return;
  const { near, far } = await runRelayed('push', { origin, replica });
  assert.equal(near ?? far, undefined);
  if (kind === 'rollback' || kind === 'emptied' || (isReplaced && kind !== 'replaceWal')) {
    withDatabase(replica, (database) => database.pragma('journal_mode = delete'));
  }
  if (kind === 'resumed') makePart(folder, replica);
}

/** What an interrupted run leaves: no page 1 yet, a page that is wrong, and the end missing. */
function makePart(folder: string, replica: string): void {
  const part = join(folder, '.replica.db.sqlsync-part');
  const bytes = readFileSync(replica);
  bytes.fill(0, 0, PAGE_BYTES);
  bytes.fill(7, PAGE_BYTES * 5, PAGE_BYTES * 6);
  writeFileSync(part, bytes);
  truncateSync(part, PAGE_BYTES * Math.floor(bytes.length / PAGE_BYTES / 2));
  for (const name of readdirSync(folder)) {
    if (!name.endsWith('-part')) rmSync(join(folder, name));
  }
}

interface Content {
  readonly pageBytes: number;
  readonly rows: number;
  readonly salt: number;
}

/** Every second row is the same for each salt. The database has no freelist: SQLite does not journal its pages. */
function populate(path: string, { pageBytes, rows, salt }: Content): void {
  withDatabase(path, (database) => {
    database.pragma(`page_size = ${pageBytes}`);
    database.pragma('journal_mode = wal');
    database.exec('CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, payload BLOB)');
    database.exec('CREATE INDEX item_name ON item (name)');
    const put = database.prepare('INSERT INTO item VALUES (?, ?, ?)');
    database.transaction(() => {
      for (let id = 1; id <= rows; id++) {
        const random = new Random(id % 2 === 0 ? id : id * 1000 + salt);
        put.run(id, random.text(30), random.bytes(900));
      }
    })();
    database.pragma('wal_checkpoint(TRUNCATE)');
  });
}

/** The pages of a copy of the database, after SQLite's recovery; throws if `integrity_check` finds anything. */
export function recoveredPages(path: string, scratch: string): Buffer[] {
  return pagesOf(path, scratch, (database) => {
    const findings = database.pragma('integrity_check') as { integrity_check: string }[];
    assert.deepEqual(findings, [{ integrity_check: 'ok' }], 'integrity_check');
  });
}

/** The same of a database that may be damaged; throws SQLite's errors. */
export function pagesOf(
  path: string,
  scratch: string,
  check: (database: Database.Database) => void = () => {},
): Buffer[] {
  const folder = mkdtempSync(join(scratch, 'judged-'));
  try {
    const copy = join(folder, 'replica.db');
    for (const suffix of ['', '-wal', '-journal']) {
      if (existsSync(path + suffix)) copyFileSync(path + suffix, copy + suffix);
    }
    let bytes = 0;
    withDatabase(copy, (database) => {
      check(database);
      database.pragma('wal_checkpoint(TRUNCATE)');
      const size = (name: string): number => database.pragma(name, { simple: true }) as number;
      bytes = size('page_count') * size('page_size');
    });
    // SQLite cuts a file in rollback mode after the commit: bytes beyond the count of pages are not part of
    // the database.
    return maskedPages(readFileSync(copy).subarray(0, bytes));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Makes the mark and the spool that were copied with a replica, if any, belong to the copy. */
export function markAsOwn(replica: string): void {
  const spool = besideReplica(replica, '-spool');
  // A spool that a power cut left without its header is none.
  if (existsSync(spool) && statSync(spool).size >= SPOOL_HEADER_BYTES) {
    const bytes = readFileSync(spool);
    const [format, size] = bytes.toString('latin1', 0, SPOOL_HEADER_BYTES).split('\n');
    bytes.fill(0, 0, SPOOL_HEADER_BYTES).write(`${format}\n${size}\n${statSync(replica).ino}\n`);
    writeFileSync(spool, bytes);
    chmodSync(spool, 0o600);
  }
  const path = join(replica, '..', '.replica.db.sqlsync');
  if (!existsSync(path)) return;
  const mark = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  const { dev, ino } = statSync(replica);
  writeFileSync(path, JSON.stringify({ ...mark, fileId: `${dev}:${ino}`, fileBornMs: 0 }));
}

/** An incomplete journal begins with a zero; SQLite ignores it, and its next transaction takes it over. */
function isHot(journal: string): boolean {
  return (readFileSync(journal)[0] ?? 0) !== 0;
}

function samePages(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  return a.length === b.length && a.every((page, i) => page.equals(b[i] as Buffer));
}

function withDatabase(path: string, work: (database: Database.Database) => void): void {
  const database = new Database(path);
  try {
    work(database);
  } finally {
    database.close();
  }
}
