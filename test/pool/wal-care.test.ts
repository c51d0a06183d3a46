import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { WalEvent } from '../../src/pool/stats.ts';
import type { Database } from '../../src/pool/types.ts';
import { WalCare } from '../../src/pool/wal-care.ts';
import { tempDir } from '../support/compare.ts';
import { hold, openTemporary } from './open.ts';

const LIMIT_BYTES = 1024 * 1024;

/** Resolves with the next event of this outcome. */
function walEvent(t: TestContext, db: Database, outcome: WalEvent['outcome']): Promise<WalEvent> {
  const { promise, resolve } = Promise.withResolvers<WalEvent>();
  const listener = (event: unknown): void => {
    const wal = event as WalEvent;
    if (wal.path === db.path && wal.outcome === outcome) resolve(wal);
  };
  subscribe('sqlsync:pool:wal', listener);
  t.after(() => unsubscribe('sqlsync:pool:wal', listener));
  return promise;
}

/** The last of these writes may be the last one for long. */
async function growWal(db: Database): Promise<void> {
  while (db.stats().wal.bytes <= LIMIT_BYTES) {
    await db.write.run('INSERT INTO t (x) VALUES (randomblob(100000))');
  }
}

/** The timers of the care keep no process alive, so this one has to. */
async function awake<T>(promise: Promise<T>): Promise<T> {
  const timer = setInterval(() => undefined, 1000);
  try {
    return await promise;
  } finally {
    clearInterval(timer);
  }
}

describe('a WAL beyond its limit', () => {
  test('a WAL beyond its limit is emptied when nobody reads or writes', async (t) => {
    const db = await openTemporary(t, { walLimitBytes: LIMIT_BYTES });
    const truncated = walEvent(t, db, 'truncated');
    await growWal(db);
    assert.ok((await awake(truncated)).bytes > LIMIT_BYTES);
    const { bytes, truncations } = db.stats().wal;
    assert.deepEqual([bytes, truncations], [0, 1]);
  });

  test('a WAL beyond its limit is emptied later if a reader or a writer is in the way, and nobody waits for that', async (t) => {
    const db = await openTemporary(t, { walLimitBytes: LIMIT_BYTES });
    const busy = walEvent(t, db, 'busy');
    const truncated = walEvent(t, db, 'truncated');
    const { promise: read, resolve: endReading } = Promise.withResolvers<void>();
    const reading = db.read.snapshot(async (r) => {
      await r.get('SELECT count(*) FROM t');
      await read;
    });
    await growWal(db);
    await awake(busy);
    await db.write.run('INSERT INTO t (x) VALUES (2)');
    const { release, done } = hold(db);
    endReading();
    await reading;
    release();
    await Promise.all([done, awake(truncated)]);
    const { bytes, truncations, truncationsBusy } = db.stats().wal;
    assert.deepEqual([bytes, truncations], [0, 1]);
    assert.ok(truncationsBusy >= 1);
  });

  test('a WAL stays for later if emptying it fails, as on a full disk, and no caller gets an error', async (t) => {
    const path = join(tempDir(t), 'a.db');
    writeFileSync(`${path}-wal`, Buffer.alloc(LIMIT_BYTES + 1));
    const { promise, resolve } = Promise.withResolvers<void>();
    const care = new WalCare(path, path, LIMIT_BYTES);
    t.after(() => care.close());
    let attempts = 0;
    care.watch({
      isIdle: true,
      truncateWal: () => {
        attempts += 1;
        if (attempts === 1) throw Object.assign(new Error('disk full'), { code: 'SQLITE_FULL' });
        truncateSync(`${path}-wal`);
        resolve();
        return true;
      },
    });
    care.afterWrite(performance.now());
    await awake(promise);
    assert.deepEqual([care.bytes(), care.truncationsBusy], [0, 1]);
  });

  test('a WAL counts as empty if the file system does not give its size, and no write fails for that', (t) => {
    const path = join(tempDir(t), 'a.db');
    // A link to itself: stat is refused, for root too.
    symlinkSync(`${path}-wal`, `${path}-wal`);
    const care = new WalCare(path, path, 0);
    t.after(() => care.close());
    care.watch({ isIdle: true, truncateWal: () => assert.fail('there is nothing to empty') });
    care.afterWrite(performance.now());
    assert.equal(care.bytes(), 0);
  });

  test('a WAL is not touched while a writer works or waits, however often it is found too large', async (t) => {
    const path = join(tempDir(t), 'a.db');
    writeFileSync(`${path}-wal`, Buffer.alloc(LIMIT_BYTES + 1));
    const { promise, resolve } = Promise.withResolvers<void>();
    const found: string[] = [];
    const care = new WalCare(path, path, LIMIT_BYTES);
    t.after(() => care.close());
    care.watch({
      get isIdle(): boolean {
        found.push(found.length < 3 ? 'writing' : 'idle');
        return found.at(-1) === 'idle';
      },
      truncateWal: () => {
        truncateSync(`${path}-wal`);
        resolve();
        return true;
      },
    });
    care.afterWrite(performance.now());
    await awake(promise);
    assert.deepEqual(found, ['writing', 'writing', 'writing', 'idle']);
    assert.deepEqual([care.bytes(), care.truncationsBusy], [0, 0]);
  });
});
