/** The application that writes to the origin while it is copied; writer.ts starts it and tells it what to do. */
import Database from 'better-sqlite3';
import { Random } from '../fixtures/random.ts';

export type WriterRequest =
  /** `perSecond` undefined: one commit after the other. */
  { type: 'start'; perSecond: number | undefined } | { type: 'stop' };

/** What one phase was like for the writer. */
export interface WriterPhase {
  seconds: number;
  commits: number;
  p50Ms: number;
  p99Ms: number;
  maxMs: number;
  /** Commits that failed with SQLITE_BUSY, after the busy timeout. */
  busyErrors: number;
}

/** better-sqlite3's default. */
const BUSY_TIMEOUT_MS = 5000;
const TURN_MS = 50;
const LATENCIES_MAX = 5_000_000;

const [path = '', journal = 'wal', rowsText = '1'] = process.argv.slice(2);
const db = new Database(path, { timeout: BUSY_TIMEOUT_MS });
db.pragma(`journal_mode = ${journal}`);
db.pragma('synchronous = NORMAL');
const update = db.prepare('UPDATE items SET amount = ? WHERE id = ?');
const random = new Random(7);
/** The part of the database in which the application writes all the time is small. */
const hotRows = Math.min(Number(rowsText), 10_000);
const commit = db.transaction(() => {
  update.run(random.integer(0, 1_000_000) / 100, random.integer(1, hotRows));
});
const latencies = new Float64Array(LATENCIES_MAX);
const sleeper = new Int32Array(new SharedArrayBuffer(4));
let stopping = false;

process.on('message', (request: WriterRequest) => {
  if (request.type === 'stop') stopping = true;
  else void writeUntilStopped(request.perSecond).then((phase) => process.send?.(phase));
});
process.on('disconnect', () => process.exit());
process.send?.('ready');

async function writeUntilStopped(perSecond: number | undefined): Promise<WriterPhase> {
  stopping = false;
  if (journal === 'wal') db.pragma('wal_checkpoint(TRUNCATE)');
  const start = performance.now();
  let count = 0;
  let busyErrors = 0;
  while (!stopping) {
    const turnEnd = performance.now() + TURN_MS;
    while (performance.now() < turnEnd) {
      const due = perSecond === undefined ? performance.now() : start + (count * 1000) / perSecond;
      const from = waitFor(due);
      try {
        commit.immediate();
      } catch (error) {
        if ((error as { code?: string }).code !== 'SQLITE_BUSY') throw error;
        busyErrors++;
      }
      if (count === LATENCIES_MAX) throw new Error('more commits than there is room for');
      latencies[count++] = performance.now() - from;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  const seconds = (performance.now() - start) / 1000;
  const sorted = latencies.subarray(0, count).sort();
  const at = (share: number): number => sorted[Math.min(count - 1, Math.floor(count * share))] ?? NaN;
  const commits = count - busyErrors;
  return { seconds, commits, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1), busyErrors };
}

/**
 * Returns the moment from which the commit counts: its due time, if it begins late because of the commits
 * before it.
 */
function waitFor(due: number): number {
  const waitMs = due - performance.now();
  if (waitMs <= 0) return due;
  Atomics.wait(sleeper, 0, 0, waitMs);
  return performance.now();
}
