import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { openDatabase, sync, verify } from '../../src/index.ts';
import type { Database } from '../../src/index.ts';
import { column } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import type { Report } from './many-writers.ts';
import { ManyWriters, SCHEMA } from './many-writers.ts';

const LAST_MS = 3000;
const SYNCS_MIN = 3;
const WRITERS = 200;
const PROCESSES = 8;

async function place(t: TestContext): Promise<{ db: Database; origin: string; replica: string }> {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  const db = await openDatabase(origin);
  t.after(() => db.close());
  await db.write.exec(SCHEMA);
  await db.write.bulk(
    Array.from({ length: WRITERS }).keys(),
    async (tx, writer) => void (await tx.run('INSERT INTO counters VALUES (?, 0)', [writer])),
  );
  return { db, origin, replica: join(folder, 'replica.db') };
}

/**
 * Syncs again and again for the time of the test, then once more when `end` has ended the writers; the last replica
 * is compared page by page.
 * @param acknowledged How many writes have been acknowledged: a replica holds all that were before its sync began.
 */
async function syncBeside(
  t: TestContext,
  { db, origin, replica }: Awaited<ReturnType<typeof place>>,
  acknowledged: () => Promise<number> | number,
  end: () => Promise<Report[]>,
): Promise<void> {
  const endMs = performance.now() + LAST_MS;
  let syncs = 0;
  for (; syncs < SYNCS_MIN || performance.now() < endMs; syncs += 1) {
    const before = await acknowledged();
    await sync({ origin, replica });
    const [total] = column(replica, 'SELECT total(n) FROM counters') as [number];
    assert.ok(total >= before, `${total} writes in the replica, ${before} acknowledged before its sync`);
  }
  const reports = await end();
  t.diagnostic(`${syncs} syncs`);
  await assertCounted(t, db, reports);
  await sync({ origin, replica });
  assert.equal((await verify({ a: origin, b: replica })).same, true);
  await db.close();
  assertReplicaOf(origin, replica);
}

/** Checks that no error came up, and that each acknowledged write is there once. */
async function assertCounted(t: TestContext, db: Database, reports: readonly Report[]): Promise<void> {
  assert.deepEqual(
    reports.flatMap(({ errors }) => errors),
    [],
  );
  const writers = reports.flatMap((report) => report.writers).sort((a, b) => a.writer - b.writer);
  assert.deepEqual(
    await db.read.values('SELECT writer, n FROM counters ORDER BY writer'),
    writers.map(({ writer, writes }) => [writer, writes]),
  );
  assert.deepEqual(
    await db.read.values(`
      SELECT writer, count(*), count(DISTINCT number), max(number) + 1 FROM log GROUP BY writer ORDER BY writer`),
    writers
      .filter(({ transactions }) => transactions > 0)
      .map(({ writer, transactions }) => [writer, transactions, transactions, transactions]),
  );
  const reads = reports.map((report) => report.reads);
  t.diagnostic(`${writers.reduce((sum, { writes }) => sum + writes, 0)} writes, reads: ${reads.join(' ')}`);
  assert.equal(writers.length, WRITERS);
  assert.ok(
    writers.every(({ writes }) => writes > 0),
    'each has written',
  );
  assert.ok(
    reads.every((number) => number > 10),
    'readers were served',
  );
}

test('200 writers in one process beside its syncs: no error, each write once, the replica is exact', async (t) => {
  const at = await place(t);
  const all = new ManyWriters(at.db, 0, WRITERS);
  await syncBeside(
    t,
    at,
    () => all.acknowledged,
    async () => [await all.end()],
  );
});

test('8 processes of 25 writers beside syncs: no error, each write once, the replica is exact', async (t) => {
  const at = await place(t);
  const count = WRITERS / PROCESSES;
  const program = join(import.meta.dirname, 'many-writers.ts');
  const children = Array.from({ length: PROCESSES }, (_, number) => {
    const child = fork(program, [at.origin, String(number * count), String(count)]);
    t.after(() => child.kill('SIGKILL'));
    return child;
  });
  await Promise.all(children.map((child) => said(child)));
  for (const child of children) child.send('begin');
  // A reader sees only committed rows, and every replica whose sync begins after that has them.
  const committed = async (): Promise<number> =>
    (await at.db.read.get<{ n: number }>('SELECT total(n) AS n FROM counters'))?.n ?? 0;
  while ((await committed()) === 0) await delay(1);
  await syncBeside(t, at, committed, () => {
    const reports = children.map((child) => said(child) as Promise<Report>);
    for (const child of children) child.send('end');
    return Promise.all(reports);
  });
});

/** Its next message. */
async function said(child: ChildProcess): Promise<unknown> {
  const ended = once(child, 'exit').then(([status, signal]) => {
    throw new Error(`a process of writers ended by itself: ${signal ?? status}`);
  });
  const [message] = (await Promise.race([once(child, 'message'), ended])) as [unknown];
  return message;
}
