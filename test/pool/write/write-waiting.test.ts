import assert from 'node:assert/strict';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { describe, test } from 'node:test';
import type { Database, Priority, WriteOptions } from '../../../src/pool/types.ts';
import { hold, openTemporary, valuesOf } from '../open.ts';

const INSERT = 'INSERT INTO t (x) VALUES (?)';

/** Makes all of them wait behind a transaction, then lets them go. */
async function queued(
  db: Database,
  writes: readonly (readonly [string, WriteOptions])[],
): Promise<PromiseSettledResult<unknown>[]> {
  const { release, done } = hold(db);
  const waiting = writes.map(([x, options]) => db.write.run(INSERT, [x], options));
  release();
  await done;
  return Promise.allSettled(waiting);
}

describe('the writes that wait for the writer', () => {
  test('waiting writes are served by priority, and in the order they came within one', async (t) => {
    const db = await openTemporary(t);
    await queued(db, [
      ['b1', { priority: 'background' }],
      ['n1', {}],
      ['i1', { priority: 'interactive' }],
      ['n2', { priority: 'normal' }],
      ['i2', { priority: 'interactive' }],
    ]);
    assert.deepEqual(await valuesOf(db), ['i1', 'i2', 'n1', 'n2', 'b1']);
  });

  test('waiting writes are served though others of a higher priority go on coming', async (t) => {
    const db = await openTemporary(t);
    let isServed = false;
    const interactive = async (): Promise<void> => {
      while (!isServed) await db.write.run(INSERT, ['i'], { priority: 'interactive' });
    };
    const { release, done } = hold(db);
    const background = db.write.run(INSERT, ['b'], { priority: 'background' }).then(() => (isServed = true));
    const all = [background, ...Array.from({ length: 20 }, interactive)];
    release();
    await Promise.all([done, ...all]);
    assert.ok((await valuesOf(db)).includes('b'));
  });

  test('waiting writes with the same key are merged into the latest, in the place of the oldest', async (t) => {
    const db = await openTemporary(t);
    const outcomes = await queued(db, [
      ['seen 1', { coalesce: 'seen' }],
      ['other', {}],
      ['seen 2', { coalesce: 'seen' }],
      ['progress', { coalesce: 'progress' }],
      ['seen 3', { coalesce: 'seen' }],
    ]);
    assert.deepEqual(await valuesOf(db), ['seen 3', 'other', 'progress']);
    const rowids = outcomes.map((outcome) => (outcome as { value?: { lastInsertRowid: number } }).value);
    assert.deepEqual(
      rowids.map((result) => result?.lastInsertRowid),
      [1, 2, 1, 3, 1],
    );
    assert.equal(db.stats().write.coalesced, 2);
    await queued(db, [['seen 4', { coalesce: 'seen' }]]);
    assert.equal((await valuesOf(db)).at(-1), 'seen 4');
  });

  test('waiting writes leave when their signal aborts, and the others do not', async (t) => {
    const db = await openTemporary(t);
    const gone = new AbortController();
    const { release, done } = hold(db);
    const waiting = [
      db.write.run(INSERT, [1], { signal: gone.signal }),
      db.write.run(INSERT, [2]),
      db.write.transaction((tx) => tx.run(INSERT, [3]), { signal: gone.signal }),
      db.write.run(INSERT, [4], { coalesce: 'k', signal: gone.signal }),
      db.write.run(INSERT, [5], { coalesce: 'k' }),
    ];
    const outcomes = Promise.allSettled(waiting);
    gone.abort(new Error('enough'));
    await assert.rejects(waiting[0] as Promise<unknown>, { code: 'ABORTED', cause: gone.signal.reason });
    release();
    await done;
    assert.deepEqual(
      (await outcomes).map(({ status }) => status),
      ['rejected', 'fulfilled', 'rejected', 'rejected', 'fulfilled'],
    );
    assert.deepEqual(await valuesOf(db), [2, 5]);
    await assert.rejects(db.write.run(INSERT, [6], { signal: gone.signal }), { code: 'ABORTED' });
  });

  test('a waiting write that gives up leaves its place to an older one with the same key, which keeps its own signal', async (t) => {
    const db = await openTemporary(t);
    const [gone, later] = [new AbortController(), new AbortController()];
    const insert = (x: number, options: WriteOptions): Promise<unknown> =>
      db.write.transaction((tx) => tx.run(INSERT, [x]), options);
    const { release, done } = hold(db);
    const older = [insert(1, { coalesce: 'aborted' }), insert(2, { coalesce: 'expired' })];
    const newer = [
      insert(3, { coalesce: 'aborted', signal: gone.signal }),
      insert(4, { coalesce: 'expired', signal: later.signal, deadlineMs: 1 }),
    ];
    gone.abort();
    await assert.rejects(newer[0] as Promise<unknown>, { code: 'ABORTED' });
    await assert.rejects(newer[1] as Promise<unknown>, { code: 'BUSY_TIMEOUT' });
    later.abort();
    release();
    await Promise.all([done, ...older]);
    assert.deepEqual(await valuesOf(db), [1, 2]);
  });

  test('waiting writes give up at their own deadline, and name the holder of the writer', async (t) => {
    const db = await openTemporary(t, { busyTimeoutMs: 60_000 });
    const { release, done } = hold(db, 'monthly report');
    const patient = db.write.run(INSERT, ['patient']);
    const merged = db.write.run(INSERT, ['merged'], { coalesce: 'k', deadlineMs: 20 });
    const merging = db.write.run(INSERT, ['merging'], { coalesce: 'k' });
    await assert.rejects(merged, { code: 'BUSY_TIMEOUT' });
    await assert.rejects(db.write.run(INSERT, [1], { deadlineMs: 20, label: 'login' }), {
      code: 'BUSY_TIMEOUT',
      message:
        /"login" waited \d+ ms for the writer, which "monthly report" of this pool has held for \d+ ms/,
    });
    release();
    await Promise.all([done, patient, merging]);
    assert.deepEqual(await valuesOf(db), ['patient', 'merging']);
    assert.equal(db.stats().write.timeouts, 2);
  });

  test('waiting writes do not keep a signal from ending a transaction that runs, at its next statement or its commit', async (t) => {
    const db = await openTemporary(t);
    for (const isQueued of [false, true]) {
      const abort = new AbortController();
      const holder = isQueued ? hold(db) : undefined;
      const atStatement = db.write.transaction(
        async (tx) => {
          await tx.run(INSERT, [1]);
          abort.abort();
          await assert.rejects(tx.run(INSERT, [2]), { code: 'ABORTED' });
          throw new Error('its own end');
        },
        { signal: abort.signal },
      );
      holder?.release();
      await assert.rejects(atStatement, { message: 'its own end' });
      const again = new AbortController();
      const atCommit = db.write.transaction(
        async (tx) => {
          await tx.run(INSERT, [3]);
          again.abort();
        },
        { signal: again.signal },
      );
      await assert.rejects(atCommit, { code: 'ABORTED' });
    }
    assert.deepEqual(await valuesOf(db), []);
  });
});

describe('the statistics', () => {
  test('the statistics name the holder and the waiting writes now, and afterwards their times, by label', async (t) => {
    const db = await openTemporary(t);
    const { release, done } = hold(db, 'import');
    const waiting = (['background', 'normal'] as const).map((priority: Priority) =>
      db.write.run(INSERT, [priority], { label: `a ${priority} one`, priority }),
    );
    const during = db.stats().write;
    assert.equal(during.holder?.label, 'import');
    assert.equal(during.queueLength, 2);
    assert.deepEqual(
      during.waiting.map(({ label, priority }) => [label, priority]),
      [
        ['a background one', 'background'],
        ['a normal one', 'normal'],
      ],
    );
    release();
    await Promise.all([done, ...waiting]);
    const { holder, queueLength, commits, labels } = db.stats().write;
    assert.deepEqual([holder, queueLength, commits], [undefined, 0, 4]);
    assert.deepEqual(Object.keys(labels).toSorted(), [
      '(none)',
      'a background one',
      'a normal one',
      'import',
    ]);
    const { wait, hold: held } = labels['a normal one'] as NonNullable<(typeof labels)[string]>;
    assert.equal(wait.count, 1);
    assert.ok(wait.maxMs > 0 && wait.p50Ms <= wait.p99Ms && wait.p99Ms <= wait.maxMs && held.maxMs > 0);
  });

  test('the statistics come as events too', async (t) => {
    const db = await openTemporary(t);
    const events: unknown[] = [];
    const listener = (event: unknown): void => {
      const { path, label, outcome } = event as Record<string, unknown>;
      if (path === db.path) events.push([label, outcome]);
    };
    subscribe('sqlsync:pool:write', listener);
    t.after(() => unsubscribe('sqlsync:pool:write', listener));
    await db.write.run(INSERT, [1], { label: 'good' });
    await assert.rejects(db.write.transaction(() => assert.fail('no'), { label: 'bad' }));
    assert.deepEqual(events, [
      ['good', 'commit'],
      ['bad', 'rollback'],
    ]);
  });
});
