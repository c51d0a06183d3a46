/**
 * The application whose database is followed: `writer.ts PATH ROWS`. Each commit changes one row of a small part of the
 * database, and numbers itself. better-sqlite3's default busy timeout.
 */
import { statSync } from 'node:fs';
import Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';

export type WriterOrder = { readonly type: 'start'; readonly perSecond: number } | { readonly type: 'stop' };

/** One phase. */
export interface Written {
  /** The number of the first commit of the phase, from 1. */
  readonly first: number;
  /** When each commit was there, in ms since 1970. */
  readonly times: Float64Array;
  /** From when a commit was due; in ms. */
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The largest size of the WAL. */
  readonly walBytes: number;
}

const TURN_MS = 25;
const HOT_ROWS = 10_000;

const [path = '', rowsText = '1'] = process.argv.slice(2);
const db = new Database(path);
db.pragma('journal_mode = WAL');
db.pragma('synchronous = NORMAL');
db.exec('CREATE TABLE IF NOT EXISTS stamp (id INTEGER PRIMARY KEY, number INTEGER)');
db.exec('INSERT OR REPLACE INTO stamp VALUES (1, 0)');
const update = db.prepare('UPDATE items SET amount = ? WHERE id = ?');
const stamp = db.prepare('UPDATE stamp SET number = ?');
const random = new Random(7);
const hotRows = Math.min(Number(rowsText), HOT_ROWS);
const sleeper = new Int32Array(new SharedArrayBuffer(4));
const commit = db.transaction((number: number) => {
  update.run(random.integer(0, 1_000_000) / 100, random.integer(1, hotRows));
  stamp.run(number);
});
let number = 0;
let isStopping = false;

process.on('message', (order: WriterOrder) => {
  if (order.type === 'stop') isStopping = true;
  else void write(order.perSecond).then((written) => process.send?.(written));
});
process.on('disconnect', () => process.exit());
process.send?.('ready');

async function write(perSecond: number): Promise<Written> {
  isStopping = false;
  db.pragma('wal_checkpoint(TRUNCATE)');
  const first = number + 1;
  const start = performance.now();
  const times: number[] = [];
  const latencies: number[] = [];
  let walBytes = 0;
  while (!isStopping) {
    const turnEnd = performance.now() + TURN_MS;
    while (performance.now() < turnEnd) {
      const due = start + (times.length * 1000) / perSecond;
      const waitMs = Math.min(due, turnEnd) - performance.now();
      if (waitMs > 0) Atomics.wait(sleeper, 0, 0, waitMs);
      if (due > performance.now()) continue;
      const began = performance.now() - due < 1 ? performance.now() : due;
      commit.immediate(++number);
      times.push(performance.timeOrigin + performance.now());
      latencies.push(performance.now() - began);
    }
    walBytes = Math.max(walBytes, statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0);
    await new Promise((resolve) => setImmediate(resolve));
  }
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number): number => sorted[Math.floor(sorted.length * share)] ?? NaN;
  return { first, times: Float64Array.from(times), p50Ms: at(0.5), p99Ms: at(0.99), walBytes };
}
