import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../../../src/pool/types.ts';
import { OtherProcess } from '../../support/other-process.ts';
import { openTemporary, valuesOf } from '../open.ts';

const HELD_MS = 10_000;
const PACE_MS = 20;

/** A tenth of the possible turns: a loop that is blocked in each attempt has no such number. */
const TURNS_MIN = HELD_MS / PACE_MS / 10;

const INSERT = 'INSERT INTO t (x) VALUES (?)';

/** Each way to write, in turn. */
const WAYS: readonly ((db: Database, number: number) => Promise<unknown>)[] = [
  (db, number) => db.write.run(INSERT, [number]),
  (db, number) => db.write.transaction((tx) => tx.run(INSERT, [number])),
  (db, number) => db.write.get(`${INSERT} RETURNING x`, [number]),
  (db, number) => db.write.exec(`INSERT INTO t (x) VALUES (${number})`),
];

describe('while another program holds the lock for ten seconds', { concurrency: true }, () => {
  for (const admission of ['none', 'cooperative'] as const) {
    test(`writes wait for the lock without an error, readers are served, and then all writes run in order (admission: ${admission})`, async (t) => {
      const db = await openTemporary(t, { admission, busyTimeoutMs: 10 * HELD_MS });
      const holder = await new OtherProcess(t).open(db.path);
      await holder.exec(`BEGIN IMMEDIATE; INSERT INTO t (x) VALUES ('holder')`);
      let isHeld = true;
      const release = async (): Promise<{ called: number; waiting: number }> => {
        await delay(HELD_MS);
        isHeld = false;
        const atTheEnd = { called: calls.length, waiting: db.stats().write.queueLength };
        await holder.exec('COMMIT');
        return atTheEnd;
      };
      let turns = 0;
      const timer = setInterval(() => (turns += Number(isHeld)), PACE_MS);
      t.after(() => clearInterval(timer));

      const calls: Promise<unknown>[] = [];
      const call = (): void => {
        const way = WAYS[calls.length % WAYS.length] as (typeof WAYS)[number];
        calls.push(way(db, calls.length));
      };
      for (let number = 0; number < 100; number += 1) call();
      const released = release();
      let reads = 0;
      while (isHeld) {
        assert.deepEqual(await db.read.all('SELECT x FROM t'), []);
        reads += 1;
        if (reads % 10 === 0) call();
        await delay(PACE_MS);
      }

      const { called, waiting } = await released;
      assert.equal(waiting, called, 'none was done or given up before');
      const outcomes = await Promise.allSettled(calls);
      assert.deepEqual(
        outcomes.filter(({ status }) => status === 'rejected'),
        [],
      );
      assert.deepEqual(await valuesOf(db), ['holder', ...calls.keys()]);
      assert.ok(turns >= TURNS_MIN, `the event loop turned ${turns} times`);
      assert.ok(reads >= TURNS_MIN, `${reads} reads`);
      const { retries, timeouts } = db.stats().write;
      assert.ok((retries['SQLITE_BUSY'] ?? 0) > 0);
      assert.equal(timeouts, 0);
    });
  }
});
