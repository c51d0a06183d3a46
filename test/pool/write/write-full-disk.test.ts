import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { closeSync, mkdtempSync, openSync, rmdirSync, statSync, truncateSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { systemErrorCode } from '../../../src/errors.ts';
import { openDatabase } from '../../../src/pool/database.ts';
import { nextTurn } from '../../../src/pool/event-loop.ts';
import type { WalEvent } from '../../../src/pool/stats.ts';
import type { Database, DatabaseOptions } from '../../../src/pool/types.ts';
import { OtherProcess } from '../../support/other-process.ts';

const DISK_BYTES = 6 * 1024 * 1024;
const KIB = 1024;

/** A connection caches 16 MB: SQLite has to write a larger transaction in the middle of the statement. */
const CACHE_EXCEEDING_BYTES = 20_000 * KIB;

/** After this time the pool looks at the size of the WAL again. */
const WAL_LOOK_MS = 250;

const INSERT = 'INSERT INTO t (x) VALUES (?)';
const INSERT_BYTES = 'INSERT INTO t (x) VALUES (randomblob(?))';

/** A file system of its own in memory, so small that it can be filled. */
class SmallDisk {
  readonly path: string;
  readonly refusal: string | undefined;
  readonly #filler: string;

  constructor() {
    this.path = mkdtempSync(join(tmpdir(), 'sqlsync-small-disk-'));
    this.#filler = join(this.path, 'filler');
    const size = `size=${DISK_BYTES}`;
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', size, 'tmpfs', this.path], { encoding: 'utf8' });
    this.refusal = mounted.status === 0 ? undefined : (mounted.error?.message ?? mounted.stderr.trim());
  }

  /** Leaves this many bytes free. */
  fill(leftBytes = 0): void {
    const file = openSync(this.#filler, 'a');
    try {
      for (const chunk = Buffer.alloc(4 * KIB); ;) writeSync(file, chunk);
    } catch (error) {
      assert.equal(systemErrorCode(error), 'ENOSPC');
    } finally {
      closeSync(file);
    }
    truncateSync(this.#filler, Math.max(0, statSync(this.#filler).size - leftBytes));
  }

  empty(): void {
    truncateSync(this.#filler, 0);
  }

  unmount(): void {
    if (this.refusal === undefined) assert.equal(spawnSync('umount', [this.path]).status, 0);
    rmdirSync(this.path);
  }
}

/** The reason why there can be no small disk here. */
function noSmallDisk(): string | false {
  if (process.platform !== 'linux') return 'THE FULL DISK IS NOT TESTED HERE: it needs the tmpfs of Linux';
  const disk = new SmallDisk();
  disk.unmount();
  if (disk.refusal === undefined) return false;
  return `THE FULL DISK IS NOT TESTED HERE: only root may mount a tmpfs (${disk.refusal})`;
}

async function openOnSmallDisk(
  t: TestContext,
  options: DatabaseOptions = {},
): Promise<{ db: Database; disk: SmallDisk }> {
  const disk = new SmallDisk();
  let db: Database | undefined;
  t.after(async () => {
    await db?.close();
    disk.unmount();
  });
  db = await openDatabase(join(disk.path, 'a.db'), options);
  await db.write.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, x)');
  return { db, disk };
}

/** The rows of `t`, with the length of a blob in its place. */
async function lengthsOf(db: Database): Promise<unknown[]> {
  const rows = await db.read.values(`SELECT iif(typeof(x) = 'blob', length(x), x) FROM t ORDER BY id`);
  return rows.flat();
}

/** The rows as another build of SQLite sees them. */
async function assertSound(t: TestContext, path: string): Promise<void> {
  const other = new OtherProcess(t);
  const connection = await other.open(path, { readonly: true });
  assert.deepEqual(await connection.rows('PRAGMA integrity_check'), [['ok']]);
  await other.end();
}

function isDiskFull(error: unknown): true {
  assert.match(String(systemErrorCode(error)), /^SQLITE_(FULL|IOERR)/);
  return true;
}

function walEvent(t: TestContext, db: Database, outcome: WalEvent['outcome']): Promise<WalEvent> {
  const { promise, resolve } = Promise.withResolvers<WalEvent>();
  const listener = (event: unknown): void => {
    const wal = event as WalEvent;
    if (wal.path === db.path && wal.outcome === outcome) resolve(wal);
  };
  subscribe('sqlsync:pool:wal', listener);
  const awake = setInterval(() => undefined, 1000);
  t.after(() => {
    unsubscribe('sqlsync:pool:wal', listener);
    clearInterval(awake);
  });
  return promise;
}

describe('a disk that is really full', { skip: noSmallDisk() }, () => {
  test('a disk that is full in a statement gives its transaction the error and undoes it, even if that goes on', async (t) => {
    const { db, disk } = await openOnSmallDisk(t);
    await db.write.run(INSERT, ['before']);
    disk.fill(512 * KIB);
    let caught: unknown;
    const full = db.write.transaction(async (tx) => {
      await tx.run(INSERT, ['undone']);
      caught = await tx.run(INSERT_BYTES, [CACHE_EXCEEDING_BYTES]).catch((error: unknown) => error);
      await tx.run(INSERT, ['after the failure']);
    });
    const behind = db.write.run(INSERT, ['behind']);
    await assert.rejects(full);
    isDiskFull(caught);
    await behind;
    await assert.rejects(db.write.run(INSERT_BYTES, [CACHE_EXCEEDING_BYTES]), isDiskFull);
    assert.deepEqual(await lengthsOf(db), ['before', 'behind']);
    disk.empty();
    await db.write.run(INSERT_BYTES, [1024 * KIB]);
    assert.deepEqual(await lengthsOf(db), ['before', 'behind', 1024 * KIB]);
    await assertSound(t, db.path);
  });

  test('a disk that is full at COMMIT gives the transaction the error, and nothing of it is left or handed on', async (t) => {
    const { db, disk } = await openOnSmallDisk(t);
    await db.write.run(INSERT, ['before']);
    disk.fill(64 * KIB);
    let isThrough = false;
    const full = db.write.transaction(async (tx) => {
      // The transaction fits the cache: only the commit writes.
      await tx.run(INSERT_BYTES, [512 * KIB]);
      await nextTurn();
      isThrough = true;
    });
    const alone = db.write.run(INSERT_BYTES, [513 * KIB]);
    const behind = db.write.transaction((tx) => tx.run(INSERT, ['behind']));
    await assert.rejects(full, isDiskFull);
    assert.ok(isThrough, 'its function had returned');
    await assert.rejects(alone, isDiskFull);
    await behind;
    assert.deepEqual(await lengthsOf(db), ['before', 'behind']);
    assert.equal(db.stats().write.holder, undefined);
    disk.empty();
    await db.write.transaction((tx) => tx.run(INSERT_BYTES, [512 * KIB]));
    assert.deepEqual(await lengthsOf(db), ['before', 'behind', 512 * KIB]);
    await assertSound(t, db.path);
  });

  test('a disk that is full at a checkpoint disturbs no caller, and the WAL is emptied once there is room', async (t) => {
    const { db, disk } = await openOnSmallDisk(t, { walLimitBytes: 256 * KIB });
    const inTheWay = walEvent(t, db, 'busy');
    const { release, read } = await holdView(db);
    await db.write.run(INSERT_BYTES, [1024 * KIB]);
    await delay(WAL_LOOK_MS);
    await db.write.run(INSERT, ['before']);
    await inTheWay;
    disk.fill();
    release();
    await read;
    await walEvent(t, db, 'busy');
    assert.deepEqual(await lengthsOf(db), [1024 * KIB, 'before']);
    assert.ok(db.stats().wal.bytes > 1024 * KIB);
    assert.equal(db.stats().wal.truncations, 0);
    const truncated = walEvent(t, db, 'truncated');
    disk.empty();
    await truncated;
    assert.equal(db.stats().wal.bytes, 0);
    await db.write.run(INSERT, ['after']);
    assert.deepEqual(await lengthsOf(db), [1024 * KIB, 'before', 'after']);
    await assertSound(t, db.path);
  });

  test('a disk that is full at close() keeps acknowledged writes in the WAL, where the next opening finds them', async (t) => {
    const { db, disk } = await openOnSmallDisk(t);
    await db.write.run(INSERT_BYTES, [1024 * KIB]);
    disk.fill();
    await db.close();
    assert.ok(statSync(`${db.path}-wal`).size > 1024 * KIB, 'it could not be emptied');
    disk.empty();
    const again = await openDatabase(db.path);
    assert.deepEqual(await lengthsOf(again), [1024 * KIB]);
    await again.close();
    await assertSound(t, db.path);
  });

  test('a disk that is full under many writers has all acknowledged writes, and none of those that failed', async (t) => {
    const { db, disk } = await openOnSmallDisk(t);
    disk.fill(256 * KIB);
    const acknowledged: number[] = [];
    const failures: unknown[] = [];
    const writer = async (first: number): Promise<void> => {
      for (let round = 0; round < 4; round += 1) {
        // Each write has a length of its own, by which the test knows it.
        const length = (first * 4 + round + 1) * 300;
        const write =
          round % 2 === 0
            ? db.write.run(INSERT_BYTES, [length])
            : db.write.transaction(async (tx) => {
                await tx.run(INSERT_BYTES, [length]);
                await nextTurn();
              });
        await write.then(
          () => acknowledged.push(length),
          (error: unknown) => failures.push(error),
        );
        if (round === 2) disk.empty();
      }
    };
    await Promise.all(Array.from({ length: 20 }, (_, first) => writer(first)));
    assert.ok(failures.length > 0 && acknowledged.length > 20, `${failures.length} failed`);
    for (const error of failures) isDiskFull(error);
    const byLength = (a: unknown, b: unknown): number => Number(a) - Number(b);
    assert.deepEqual((await lengthsOf(db)).sort(byLength), acknowledged.sort(byLength));
    await db.close();
    await assertSound(t, db.path);
  });
});

/**
 * A reader whose state keeps the WAL from being emptied, until `release` is called. It has begun when this
 * resolves: a view that began after the next write would let a checkpoint copy that write before the disk is
 * full.
 */
async function holdView(db: Database): Promise<{ release: () => void; read: Promise<void> }> {
  const begun = Promise.withResolvers<void>();
  const end = Promise.withResolvers<void>();
  const read = db.read.snapshot(async (r) => {
    await r.all('SELECT count(*) FROM t');
    begun.resolve();
    await end.promise;
  });
  await Promise.race([begun.promise, read]);
  return { release: end.resolve, read };
}
