/**
 * What a writer at full speed loses beside `sqlsync doctor --watch`, with the locks of the machine as few as they are
 * and with thousands of them.
 */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { median } from './measure.ts';
import { figure, table } from './results.ts';
import { WORK_DIR } from './target.ts';
import type { WriterPhase } from './writer-process.ts';
import { Writer } from './writer.ts';

export interface DoctorOptions {
  exe: string;
  rounds: number;
  /** Journal modes of the database. */
  journals: readonly string[];
}

const ROWS = 10_000;
/** Short, and many in a round: what else the machine does changes from second to second. */
const PHASE_MS = 500;
const PAIRS = 12;
/** Locks of a file that is not the database. */
const FOREIGN_LOCKS = [0, 2000] as const;

interface Pair {
  alone: WriterPhase;
  watched: WriterPhase;
}

export async function doctorSection({ exe, rounds, journals }: DoctorOptions): Promise<string> {
  const rows: string[][] = [];
  for (const journal of journals)
    for (const locks of FOREIGN_LOCKS) {
      const pairs = await runPairs(journal, locks, { exe, rounds });
      rows.push([`${journal}, ${locks} other locks`, ...cells(pairs)]);
    }
  return `Another process commits as fast as it goes to a database of ${ROWS.toLocaleString('en')} rows, with \`synchronous\` NORMAL and a busy
timeout of 5 s. Phases of ${PHASE_MS / 1000} s beside \`sqlsync doctor --watch\` and beside the same process stopped by SIGSTOP take turns ${rounds * PAIRS} times,
each pair in the opposite order of the one before. "other locks" are POSIX locks of a third process on a file of its own, which the
system's list of locks has, too. Medians of the phases; the loss is that of the ratios within the pairs (the target is less than 1 %),
with the middle half of them, and busy errors are those of all phases (the target is 0).

${table(['journal, machine', 'commits/s alone', 'watched', 'loss %', 'middle half', 'p99 ms alone', 'watched', 'busy errors'], rows)}`;
}

async function runPairs(
  journal: string,
  locks: number,
  { exe, rounds }: { exe: string; rounds: number },
): Promise<Pair[]> {
  rmSync(WORK_DIR, { recursive: true, force: true });
  mkdirSync(WORK_DIR, { recursive: true });
  const path = join(WORK_DIR, 'app.db');
  makeDatabase(path);
  const locker = locks === 0 ? undefined : await holdLocks(join(WORK_DIR, 'other'), locks);
  const writer = await Writer.start(path, journal, ROWS);
  try {
    const pairs: Pair[] = [];
    for (let round = 1; round <= rounds; round++) {
      const watch = await startWatch(path, exe);
      for (let n = 0; n < PAIRS; n++) {
        const pair: Partial<Pair> = {};
        const phases = [
          async () => void (pair.alone = await phase(writer, watch, 'SIGSTOP')),
          async () => void (pair.watched = await phase(writer, watch, 'SIGCONT')),
        ];
        if (n % 2 === 1) phases.reverse();
        for (const run of phases) await run();
        pairs.push(pair as Pair);
      }
      watch.kill('SIGCONT');
      await end(watch);
      console.error(
        `${journal}, ${locks} other locks, ${round}: loss ${figure(median(pairs.map(lossOf)), 2)} % so far`,
      );
    }
    return pairs;
  } finally {
    await writer.end();
    await end(locker);
  }
}

function makeDatabase(path: string): void {
  const db = new Database(path);
  db.exec(`CREATE TABLE items (id INTEGER PRIMARY KEY, amount REAL);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ROWS})
    INSERT INTO items SELECT i, 0 FROM n`);
  db.close();
}

async function phase(writer: Writer, watch: ChildProcess, signal: NodeJS.Signals): Promise<WriterPhase> {
  watch.kill(signal);
  writer.begin(undefined);
  await delay(PHASE_MS);
  return writer.finish();
}

/** Its first lines come with its first look: the start of its process is no part of the watch. */
async function startWatch(path: string, exe: string): Promise<ChildProcess> {
  const args = [exe, 'doctor', '--watch', '--json', path];
  const watch = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(watch.stdout, 'data');
  watch.stdout.resume();
  return watch;
}

/** Each locks a byte of its own: the system would join neighbours. */
const LOCKER = `
import fcntl, sys
file = open(sys.argv[1], 'w')
for i in range(int(sys.argv[2])): fcntl.lockf(file, fcntl.LOCK_EX, 1, 2 * i)
print('held', flush=True)
sys.stdin.read()
`;

async function holdLocks(path: string, locks: number): Promise<ChildProcess> {
  const locker = spawn('python3', ['-c', LOCKER, path, String(locks)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(locker.stdout, 'data');
  return locker;
}

async function end(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

function lossOf({ alone, watched }: Pair): number {
  return (1 - rateOf(watched) / rateOf(alone)) * 100;
}

function rateOf({ commits, seconds }: WriterPhase): number {
  return commits / seconds;
}

function cells(pairs: readonly Pair[]): string[] {
  const of = (value: (pair: Pair) => number, digits: number): string =>
    figure(median(pairs.map(value)), digits);
  const busy = pairs.reduce((sum, { alone, watched }) => sum + alone.busyErrors + watched.busyErrors, 0);
  return [
    of(({ alone }) => rateOf(alone), 0),
    of(({ watched }) => rateOf(watched), 0),
    of(lossOf, 2),
    middleHalf(pairs.map(lossOf)),
    of(({ alone }) => alone.p99Ms, 3),
    of(({ watched }) => watched.p99Ms, 3),
    String(busy),
  ];
}

function middleHalf(values: readonly number[]): string {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (part: number): number => sorted[Math.round(part * (sorted.length - 1))] ?? 0;
  return `${figure(at(0.25), 1)} to ${figure(at(0.75), 1)}`;
}
