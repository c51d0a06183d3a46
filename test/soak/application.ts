import { createHistogram } from 'node:perf_hooks';
import type { RecordableHistogram } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { openDatabase, sync } from '../../src/index.ts';
import type { Database } from '../../src/index.ts';
import { toSqlsyncError } from '../../src/errors.ts';
import { nextStamp } from '../support/stamped-database.ts';

/**
 * An application that lives for as long as the soak: `application.ts ORIGIN REPLICA PAUSE_MS`. It writes and
 * reads the origin through the pools, and syncs it by the library when its parent asks for that.
 */
export type ApplicationOrder =
  /** The kind of time in which writes are counted. */
  | 'phase idle'
  | 'phase sync'
  /** Closes its pools, so that another file may take the origin's name; opens them again. */
  | 'close'
  | 'open'
  | 'sync'
  | 'report';

export interface Latency {
  readonly writes: number;
  /** The time of a transaction from the call to the commit, including its wait for the other writers; in ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly worstMs: number;
}

export interface ApplicationReport {
  readonly idle: Latency;
  readonly sync: Latency;
  readonly reads: number;
}

export type ApplicationReply =
  { readonly outcome: string; readonly code?: string; readonly bytes: number } | ApplicationReport | 'done';

const [origin = '', replica = '', pauseMs = '3'] = process.argv.slice(2);
const latencies = { idle: createHistogram(), sync: createHistogram() };
let phase: 'idle' | 'sync' = 'idle';
let reads = 0;
let database: Database | undefined = await openDatabase(origin);

async function write(): Promise<void> {
  if (database === undefined) return;
  const startedIn = phase;
  const startedAt = performance.now();
  await database.write.transaction(async (tx) => {
    const stamp = nextStamp();
    await tx.run('INSERT INTO cell (stamp, body) VALUES (?, randomblob(100))', [stamp]);
    await tx.run('DELETE FROM cell WHERE id <= (SELECT max(id) FROM cell) - 1500');
    await tx.run('UPDATE cell SET stamp = ?', [stamp]);
    await tx.run('UPDATE total SET stamp = ?, cells = (SELECT count(*) FROM cell)', [stamp]);
  });
  // A write during which a sync began or ended belongs to neither kind.
  if (phase === startedIn) latencies[phase].record(Math.ceil((performance.now() - startedAt) * 1000));
}

async function read(): Promise<void> {
  if (database === undefined) return;
  await database.read.snapshot(async (r) => {
    const total = await r.get<{ stamp: number; cells: number }>('SELECT stamp, cells FROM total');
    const seen = await r.get<{ stamps: number; cells: number }>(
      'SELECT count(DISTINCT stamp) AS stamps, count(*) AS cells FROM cell',
    );
    if (total?.cells !== seen?.cells || (seen?.stamps ?? 0) > 1) throw new Error('a torn read of the origin');
  });
  reads++;
}

/** Runs for ever; a pool that is closed on purpose refuses calls at that moment. */
async function repeat(work: () => Promise<void>): Promise<never> {
  for (;;) {
    try {
      await work();
    } catch (error) {
      if (toSqlsyncError(error).code !== 'CLOSED') throw error;
    }
    await delay(Number(pauseMs));
  }
}

async function runSync(): Promise<ApplicationReply> {
  try {
    const { outcome, bytesSent, bytesReceived } = await sync({ origin, replica, overwrite: true });
    return { outcome, bytes: bytesSent + bytesReceived };
  } catch (error) {
    const { code, message } = toSqlsyncError(error);
    return { outcome: message, code, bytes: 0 };
  }
}

function latencyOf(histogram: RecordableHistogram): Latency {
  const { count } = histogram;
  if (count === 0) return { writes: 0, p50Ms: 0, p99Ms: 0, worstMs: 0 };
  const milliseconds = (microseconds: number): number => microseconds / 1000;
  return {
    writes: count,
    p50Ms: milliseconds(histogram.percentile(50)),
    p99Ms: milliseconds(histogram.percentile(99)),
    worstMs: milliseconds(histogram.max),
  };
}

async function obey(order: ApplicationOrder): Promise<ApplicationReply> {
  switch (order) {
    case 'phase idle':
    case 'phase sync':
      phase = order === 'phase idle' ? 'idle' : 'sync';
      return 'done';
    case 'close': {
      const closing = database;
      database = undefined;
      await closing?.close();
      return 'done';
    }
    case 'open':
      database = await openDatabase(origin);
      return 'done';
    case 'sync':
      return runSync();
    case 'report':
      return { idle: latencyOf(latencies.idle), sync: latencyOf(latencies.sync), reads };
  }
}

process.on('message', (order: ApplicationOrder) => void obey(order).then((reply) => process.send?.(reply)));
process.once('disconnect', () => process.exit());
process.send?.('started');
await Promise.all([repeat(write), repeat(read)]);
