import { prepareQuickTests } from '../support/quick.ts';
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { message } from '../../protocol/encode.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { converse } from '../../src/sync/runs/conversation.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { tempDir } from '../support/compare.ts';
import { openDescriptors } from '../support/descriptors.ts';

prepareQuickTests({ after });

/** Asks an origin agent as a follower does, whose interval this is; 0 asks once. */
class Follower {
  readonly #connection: Connection;
  readonly #ended: Promise<void>;

  /** @param maxTimeMs The limit that the agent's administrator sets for one database. */
  constructor(t: TestContext, maxTimeMs?: number) {
    const [near, far] = memoryTransportPair();
    this.#ended = runFarAgent(far, { idleTimeoutMs: 0, maxTimeMs });
    this.#connection = new Connection(near, 'opening', { idleTimeoutMs: 20_000 });
    t.after(() => this.close());
  }

  open(path: string, lookEveryMs: number): void {
    const texts = { path, replicaHost: '', replicaPath: '', replicaFileId: '' };
    const modes = { key: new Uint8Array(16), hash: 1, compression: 0, overwrite: false, reader: 0 };
    const limits = {
      busyTimeoutMs: 0,
      idleTimeoutMs: 0,
      maxTimeMs: 0,
      maxSnapshotMs: 0,
      maxWalGrowthBytes: 0,
    };
    this.#connection.send(
      message('open', { ...texts, ...modes, ...limits, knownStamp: new Uint8Array(0), lookEveryMs }),
    );
  }

  wake(): void {
    this.#connection.send(message('wake', {}));
  }

  /** Takes all hashes of the snapshot that was opened, and ends the step. */
  async step(): Promise<void> {
    const { pageSize, pageCount } = await this.#connection.receiveOnly('snapshot');
    this.#connection.state = 'driving';
    this.#connection.send(message('getHashes', { id: 1, level: 0, first: 0, count: pageCount }));
    await this.#connection.receiveOnly('hashes');
    this.#connection.send(message('getRoot', {}));
    await this.#connection.receiveOnly('root');
    this.#connection.send(message('release', {}));
    const none = { pagesCompared: 0, pagesChanged: 0, pagesTransferred: 0, pagesDelta: 0 };
    const flags = { outcome: 0, created: false, resumed: false, quick: false, warnings: [], findings: [] };
    this.#connection.send(message('done', { pageSize, pageCount, ...none, ...flags }));
    this.#connection.state = 'opening';
  }

  async close(): Promise<void> {
    this.#connection.send(message('close', {}));
    this.#connection.end();
    await this.#ended;
  }
}

function application(t: TestContext): { path: string; db: InstanceType<typeof Database> } {
  const path = join(tempDir(t), 'origin.db');
  const db = new Database(path);
  t.after(() => db.close());
  db.pragma('journal_mode = WAL');
  db.exec('CREATE TABLE t (x)');
  return { path, db };
}

test('an agent whose peer follows no more has the origin open no more', async (t) => {
  const { path } = application(t);
  const before = openDescriptors(path);
  const follower = new Follower(t);
  follower.open(path, 1000);
  await follower.step();
  follower.open(path, 0);
  await follower.step();
  // The second snapshot ends when the agent has read `done`.
  while (openDescriptors(path) > before) await delay(1);
});

test('an agent waits for an interval that no timer can hold, and answers a wake meanwhile', async (t) => {
  const { path } = application(t);
  const warnings: string[] = [];
  const warned = ({ name }: Error): number => warnings.push(name);
  process.on('warning', warned);
  t.after(() => process.off('warning', warned));
  const follower = new Follower(t);
  follower.open(path, 2 ** 32 - 1);
  await follower.step();
  follower.open(path, 2 ** 32 - 1);
  await delay(100);
  follower.wake();
  await follower.step();
  assert.deepEqual(warnings, []);
});

test('the time limit of an agent does not run while it waits for a change', async (t) => {
  const { path, db } = application(t);
  const follower = new Follower(t, 2000);
  follower.open(path, 50);
  await follower.step();
  follower.open(path, 50);
  await delay(2500);
  db.exec('INSERT INTO t VALUES (1)');
  await follower.step();
});

test('a lost connection leaves no listener at the signal of its run', async (t) => {
  const { path } = application(t);
  const { signal } = new AbortController();
  const lost = new Error('lost');
  const options = { run: { signal }, traffic: { bytesSent: 0, bytesReceived: 0 }, onWarning: () => {} };
  for (const mayShareProcess of [true, false])
    await assert.rejects(
      converse({ kind: 'local', path }, 'opening', { ...options, mayShareProcess }, () =>
        Promise.reject(lost),
      ),
      /lost/,
    );
  assert.equal(getEventListeners(signal, 'abort').length, 0);
});
