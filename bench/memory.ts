/** Peak memory for a database that is larger than any buffer: a file of 50 GB that is nearly all hole. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { measureProcess } from './measure.ts';
import { figure, table } from './results.ts';
import { STAMPED_AFTER_MS } from './rounds.ts';
import { freshTarget, WORK_DIR } from './target.ts';

export interface MemoryOptions {
  exe: string;
  syncArgs: readonly string[];
  /** Bytes; the first is what the others are compared with. */
  sizes: readonly number[];
}

export const MEMORY_SIZES: readonly number[] = [1.05e9, 50e9];

const PAGE_SIZE = 4096;
const PAGE_COUNT_OFFSET = 28;
const DISK_BYTES_MAX = 10e6;

/** Each process adds what it read, in all system calls, to the file that this variable names. */
const READ_BYTES_VARIABLE = 'SQLSYNC_BENCH_READ_BYTES';
const COUNT_READ_BYTES = `
  import { appendFileSync, readFileSync } from 'node:fs';
  import { isMainThread } from 'node:worker_threads';
  if (isMainThread) process.on('exit', () => {
    const [, bytes] = /^rchar: (\\d+)/.exec(readFileSync('/proc/self/io', 'utf8'));
    appendFileSync(process.env.${READ_BYTES_VARIABLE}, bytes + '\\n');
  });`;

export async function memorySection({ exe, syncArgs, sizes }: MemoryOptions): Promise<string> {
  const rows: string[][] = [];
  const peaks: { near: number; far: number }[] = [];
  for (const size of sizes) {
    const target = freshTarget(undefined);
    const origin = join(WORK_DIR, 'origin.db');
    makeSparse(origin, size);
    execFileSync('cp', ['--sparse=always', origin, target]);
    await delay(STAMPED_AFTER_MS);
    const command = [exe, origin, target, '--overwrite', ...syncArgs];
    const measured = await measureProcess(process.execPath, command);
    const unread = await measureProcess(process.execPath, command);
    const readBytes = await readBytesOf(command);
    for (const path of [origin, target]) assertSparse(path);
    const { seconds, cpuSeconds, peakBytes: near = NaN, childPeakBytes: far = NaN } = measured;
    peaks.push({ near, far });
    const [first = { near, far }] = peaks;
    rows.push([
      `${size / 1e9} GB`,
      figure(seconds, 1),
      figure(cpuSeconds, 1),
      figure(near / 1e6, 0),
      figure(near / first.near, 2),
      figure(far / 1e6, 0),
      figure(far / first.far, 2),
      figure(unread.seconds, 2),
      figure(readBytes / 1e6, 1),
    ]);
    console.error(rows.at(-1)?.join('  '));
  }
  rmSync(WORK_DIR, { recursive: true, force: true });
  const header = [
    'database',
    's',
    'CPU s',
    'near peak MB',
    'ratio',
    'far peak MB',
    'ratio',
    'again s',
    'MB read',
  ];
  return `One run each, local to local, origin and replica identical: a small database whose header announces all the pages of a file that is almost
only a hole, so that both agents hash every page. Peaks are resident memory; the target is a ratio of at most 1.3. The last columns are
a second run, which the quick check spares all pages, and what a third one read, the program itself included; the targets are 0.5 s and 10 MB.

${table(header, rows)}`;
}

/** All bytes that a command read, with its child processes. */
async function readBytesOf(args: readonly string[]): Promise<number> {
  const file = join(WORK_DIR, 'read-bytes');
  const preload = `data:text/javascript;base64,${Buffer.from(COUNT_READ_BYTES).toString('base64')}`;
  const env = [`${READ_BYTES_VARIABLE}=${file}`, `NODE_OPTIONS=--import=${preload}`];
  await measureProcess('env', [...env, process.execPath, ...args]);
  const counts = readFileSync(file, 'utf8').trim().split('\n').map(Number);
  return counts.reduce((sum, bytes) => sum + bytes, 0);
}

/** A database in WAL mode whose file was made larger, with the page count in its header. */
function makeSparse(path: string, size: number): void {
  const db = new Database(path);
  db.pragma(`page_size = ${PAGE_SIZE}`);
  db.exec(`
    CREATE TABLE items (id INTEGER PRIMARY KEY, payload TEXT NOT NULL);
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1000)
    INSERT INTO items SELECT n, hex(n * 7919) FROM numbers;`);
  db.pragma('journal_mode = WAL');
  db.close();
  const pages = Math.floor(size / PAGE_SIZE);
  const count = Buffer.alloc(4);
  count.writeUInt32BE(pages);
  const file = openSync(path, 'r+');
  writeSync(file, count, 0, count.length, PAGE_COUNT_OFFSET);
  ftruncateSync(file, pages * PAGE_SIZE);
  closeSync(file);
}

function assertSparse(path: string): void {
  const bytes = statSync(path).blocks * 512;
  if (bytes > DISK_BYTES_MAX) throw new Error(`${path} takes ${bytes} bytes on the disk; expected a hole`);
}
