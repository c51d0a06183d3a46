/**
 * `node child.ts SCENARIO-AS-JSON`: says `ready`, waits for any message, runs the scenario, and sends the
 * result.
 */
import { createHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import type { Database as Pools } from '../../src/index.ts';
import { openDatabase } from '../../src/index.ts';
import type { BenchWriter, Kind } from './writers.ts';
import { BUSY_TIMEOUT_MS, openPlain, openWriters, sleep } from './writers.ts';

export type Scenario =
  | { type: 'write'; kind: Kind; path: string; first: number; count: number; holdMs: number; ms: number }
  | { type: 'lock'; path: string; holdMs: number }
  | { type: 'read'; kind: Kind; path: string; writers: number; ms: number }
  | { type: 'import'; kind: ImportKind; path: string; items: number; budgetMs: number };

export type ImportKind = 'one by one' | 'bulk' | 'plain one by one' | 'plain at once';

export interface WriteOutcome {
  commits: number;
  /** Refusals with SQLite's own code, which the pools must never pass to a caller. */
  busyErrors: number;
  otherErrors: string[];
  worstMs: number;
  loopP99Ms: number;
  loopMaxMs: number;
}

export interface ReadOutcome {
  reads: number;
  p50Ms: number;
  p99Ms: number;
}

export interface ImportOutcome {
  seconds: number;
  writes: number;
  p99Ms: number;
  maxMs: number;
}

/** For how long a plain loop goes on before it lets the event loop turn. */
const TURN_MS = 5;

async function write(scenario: Scenario & { type: 'write' }): Promise<WriteOutcome> {
  const { kind, path, first, count, holdMs, ms } = scenario;
  const { writers, close } = await openWriters(kind, path, first, count);
  await ready();
  const outcome: WriteOutcome = {
    commits: 0,
    busyErrors: 0,
    otherErrors: [],
    worstMs: 0,
    loopP99Ms: 0,
    loopMaxMs: 0,
  };
  const loopDelay = monitorEventLoopDelay({ resolution: 1 });
  loopDelay.enable();
  const endMs = performance.now() + ms;
  const turnMs = plainTurnMs(kind, count);
  await Promise.all(writers.map((writer) => writeUntil(writer, { holdMs, endMs, turnMs }, outcome)));
  // A loop that never let the event loop turn is seen as soon as it does.
  await delay(10);
  loopDelay.disable();
  await close();
  return { ...outcome, loopP99Ms: loopDelay.percentile(99) / 1e6, loopMaxMs: loopDelay.max / 1e6 };
}

interface Pace {
  holdMs: number;
  endMs: number;
  /** For how long a writer goes on before it lets the event loop turn. */
  turnMs: number;
}

/** The pools let the event loop turn by themselves; many plain writers each let it turn after every write. */
function plainTurnMs(kind: Kind, writers: number): number {
  return kind === 'pools' ? Infinity : writers > 1 ? 0 : 5;
}

async function writeUntil(
  writer: BenchWriter,
  { holdMs, endMs, turnMs }: Pace,
  outcome: WriteOutcome,
): Promise<void> {
  let turnBeganMs = performance.now();
  for (let calledMs = turnBeganMs; calledMs < endMs;) {
    try {
      const pending = holdMs > 0 ? writer.addSlowly(holdMs) : writer.add();
      if (pending !== undefined) await pending;
      outcome.commits++;
    } catch (error) {
      const code = String((error as { code?: string }).code);
      if (code.startsWith('SQLITE_BUSY')) outcome.busyErrors++;
      else outcome.otherErrors.push(code);
    }
    const nowMs = performance.now();
    if (nowMs - calledMs > outcome.worstMs) outcome.worstMs = nowMs - calledMs;
    calledMs = nowMs;
    if (nowMs - turnBeganMs > turnMs) {
      await nextTurn();
      turnBeganMs = performance.now();
    }
  }
}

/** Another program, which knows nothing of the queue; it ends when it is killed. */
async function lock({ path, holdMs }: Scenario & { type: 'lock' }): Promise<never> {
  const db = new Database(path, { timeout: BUSY_TIMEOUT_MS });
  await ready();
  for (;;) {
    db.exec('BEGIN IMMEDIATE');
    sleep(holdMs);
    db.exec('COMMIT');
    await delay(20);
  }
}

/**
 * Reads once in each turn of the event loop, as for a request, and measures the time from arrival to answer,
 * with writers beside.
 */
async function read({ kind, path, writers, ms }: Scenario & { type: 'read' }): Promise<ReadOutcome> {
  const open = writers > 0 ? await openWriters(kind, path, 0, writers) : undefined;
  const pools = kind === 'pools' ? await openDatabase(path) : undefined;
  const plain =
    kind === 'plain' ? openPlain(path).prepare('SELECT n FROM counters WHERE writer = ?') : undefined;
  await ready();
  const outcome = { commits: 0, busyErrors: 0, otherErrors: [], worstMs: 0, loopP99Ms: 0, loopMaxMs: 0 };
  const endMs = performance.now() + ms;
  const pace = { holdMs: 0, endMs, turnMs: plainTurnMs(kind, writers) };
  const histogram = createHistogram();
  let arrivedMs = performance.now();
  const writing = (open?.writers ?? []).map((writer) => writeUntil(writer, pace, outcome));
  for (let number = 0; number === 0 || arrivedMs < endMs; number++) {
    await nextTurn();
    if (plain !== undefined) plain.get(number % 200);
    else await pools?.read.get('SELECT n FROM counters WHERE writer = ?', [number % 200]);
    const nowMs = performance.now();
    histogram.record(Math.max(1, Math.round((nowMs - arrivedMs) * 1000)));
    arrivedMs = nowMs;
  }
  await Promise.all(writing);
  await open?.close();
  await pools?.close();
  return {
    reads: histogram.count,
    p50Ms: histogram.percentile(50) / 1000,
    p99Ms: histogram.percentile(99) / 1000,
  };
}

const INSERT = 'INSERT INTO places (url, title, visits) VALUES (?, ?, ?)';

function place(item: number): [string, string, number] {
  const key = Math.imul(item, 0x9e3779b1) >>> 0;
  return [`https://example.org/${key.toString(36)}/${item}`, `Page ${item} of the import`, item % 100];
}

/** An import, and beside it an interactive write every 10 ms. */
async function importPlaces(scenario: Scenario & { type: 'import' }): Promise<ImportOutcome> {
  const { kind, path, items, budgetMs } = scenario;
  const isPlain = kind.startsWith('plain');
  const pools = isPlain ? undefined : await openDatabase(path);
  const plain = isPlain ? openPlain(path) : undefined;
  await ready();
  const histogram = createHistogram();
  let isDone = false;
  const interactive = async (): Promise<void> => {
    for (let dueMs = performance.now(); !isDone; dueMs += 10) {
      while (performance.now() < dueMs && !isDone) await delay(1);
      const sql = 'UPDATE counters SET n = n + 1 WHERE writer = 0';
      if (plain === undefined) await pools?.write.run(sql, [], { priority: 'interactive' });
      else plain.exec(sql);
      histogram.record(Math.max(1, Math.round((performance.now() - dueMs) * 1000)));
    }
  };
  const beside = interactive();
  const startMs = performance.now();
  if (plain !== undefined) await importPlain(plain, kind, items);
  else await importPools(pools as Pools, kind, items, budgetMs);
  const seconds = (performance.now() - startMs) / 1000;
  isDone = true;
  await beside;
  await pools?.close();
  plain?.close();
  return {
    seconds,
    writes: histogram.count,
    p99Ms: histogram.percentile(99) / 1000,
    maxMs: histogram.max / 1000,
  };
}

async function importPools(db: Pools, kind: ImportKind, items: number, budgetMs: number): Promise<void> {
  const all = Array.from({ length: items }, (_, item) => item);
  if (kind === 'bulk') {
    await db.write.bulk(all, async (tx, item) => void (await tx.run(INSERT, place(item))), { budgetMs });
    return;
  }
  for (const item of all) {
    await db.write.transaction(async (tx) => void (await tx.run(INSERT, place(item))), {
      priority: 'background',
    });
  }
}

async function importPlain(db: Database.Database, kind: ImportKind, items: number): Promise<void> {
  const insert = db.prepare(INSERT);
  const insertOne = db.transaction((item: number) => void insert.run(...place(item)));
  if (kind === 'plain at once') {
    await nextTurn();
    db.transaction(() => {
      for (let item = 0; item < items; item++) insert.run(...place(item));
    }).immediate();
    return;
  }
  let turnMs = performance.now();
  for (let item = 0; item < items; item++) {
    insertOne.immediate(item);
    if (performance.now() - turnMs < TURN_MS) continue;
    await nextTurn();
    turnMs = performance.now();
  }
}

function ready(): Promise<unknown> {
  process.send?.('ready');
  return new Promise((resolve) => process.once('message', resolve));
}

async function run(scenario: Scenario): Promise<unknown> {
  switch (scenario.type) {
    case 'write':
      return await write(scenario);
    case 'lock':
      return await lock(scenario);
    case 'read':
      return await read(scenario);
    case 'import':
      return await importPlaces(scenario);
  }
}

process.on('disconnect', () => process.exit());
const result = await run(JSON.parse(process.argv[2] ?? '') as Scenario);
process.send?.(result, () => process.disconnect());
