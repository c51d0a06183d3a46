/**
 * `npm run bench -- [--cases A,B] [--runs N] [--size 1.05GB] [--compare backup,cp,…] [-- SQLSYNC OPTIONS]`
 *
 * Measures `sqlsync ORIGIN REPLICA` on this machine for each case of data.ts, in each round on a fresh copy of the
 * replica and beside the other ways to copy a database, and writes bench/RESULTS.md.
 */
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import Database from 'better-sqlite3';
import { CASE_NAMES, copyDatabase, prepareCase, rowsOfSize } from './data.ts';
import type { BenchCase, CaseName } from './data.ts';
import { measureProcess } from './measure.ts';
import type { Measured } from './measure.ts';
import { COMPARISONS, renderReport } from './report.ts';
import type { CaseResult, ComparisonName, Round, SyncSummary } from './report.ts';

const ROOT = join(import.meta.dirname, '..');
const WORK_DIR = join(import.meta.dirname, 'data', 'work');
const USUAL_EXE = join(ROOT, 'bin', 'sqlsync.js');

interface BenchOptions {
  exe: string;
  syncArgs: readonly string[];
  comparisons: readonly ComparisonName[];
  runs: number;
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      cases: { type: 'string', default: CASE_NAMES.join(',') },
      runs: { type: 'string', default: '5' },
      size: { type: 'string', default: '1.05GB' },
      seed: { type: 'string', default: '1' },
      compare: { type: 'string', default: 'backup' },
      exe: { type: 'string', default: USUAL_EXE },
      output: { type: 'string', default: join(import.meta.dirname, 'RESULTS.md') },
    },
  });
  const names = values.cases.split(',').map((name) => oneOf(CASE_NAMES, name));
  const comparisonNames = Object.keys(COMPARISONS) as ComparisonName[];
  const comparisons = values.compare
    .split(',')
    .filter(Boolean)
    .map((name) => oneOf(comparisonNames, name));
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1)
    throw new Error(`--runs ${values.runs}: expected a whole number from 1`);
  const data = { rows: rowsOfSize(values.size), seed: Number(values.seed) };

  const options: BenchOptions = { exe: values.exe, syncArgs: positionals, comparisons, runs };
  const results: CaseResult[] = [];
  for (const name of names) results.push(await runCase(prepareCase(name, data), options));
  rmSync(WORK_DIR, { recursive: true, force: true });

  const report = renderReport(results, { rows: data.rows, runs, comparisons, command: commandLine() });
  console.log(`\n${report}`);
  writeFileSync(values.output, report);
}

async function runCase(benchCase: BenchCase, options: BenchOptions): Promise<CaseResult> {
  readIntoPageCache(benchCase.origin);
  const rounds: Round[] = [];
  for (let number = 0; number < options.runs; number++) {
    const round: Round = { sync: undefined, others: {} };
    const measurements = [
      async () => void (round.sync = await measureSync(benchCase, options, number === 0)),
      ...options.comparisons.map((name) => async () => {
        round.others[name] = (await measureComparison(benchCase, name)).seconds;
      }),
    ];
    // Every other round in the opposite order, so that a drift of the machine favours nobody.
    if (number % 2 === 1) measurements.reverse();
    for (const measurement of measurements) await measurement();
    rounds.push(round);
    console.error(describeRound(benchCase.name, number, round));
  }
  return { benchCase, rounds };
}

async function measureSync(
  { origin, replica }: BenchCase,
  { exe, syncArgs }: BenchOptions,
  verify: boolean,
): Promise<Measured & { summary: SyncSummary }> {
  const target = freshTarget(replica);
  const overwrite = replica === undefined ? [] : ['--overwrite'];
  const measured = await measureProcess(process.execPath, [
    exe,
    origin,
    target,
    '--json',
    ...overwrite,
    ...syncArgs,
  ]);
  const summary = parseSummary(measured.stdout);
  if (verify) assertSamePages(origin, target);
  return { ...measured, summary };
}

async function measureComparison({ origin, replica }: BenchCase, name: ComparisonName): Promise<Measured> {
  const { command, args, updates } = COMPARISONS[name];
  const target = freshTarget(updates ? replica : undefined);
  return measureProcess(command, args(origin, target));
}

/** A path in an empty directory, with a copy of `replica` there that is on the disk already. */
function freshTarget(replica: string | undefined): string {
  rmSync(WORK_DIR, { recursive: true, force: true });
  mkdirSync(WORK_DIR, { recursive: true });
  const target = join(WORK_DIR, 'replica.db');
  if (replica === undefined) return target;
  copyDatabase(replica, target);
  // Or else the measured process would pay for writing out the copy.
  const file = openSync(target, 'r+');
  fsyncSync(file);
  closeSync(file);
  return target;
}

function parseSummary(stdout: string): SyncSummary {
  const last = stdout.trimEnd().split('\n').at(-1) ?? '';
  const summary = JSON.parse(last) as SyncSummary;
  if (summary.type !== 'summary') throw new Error(`expected a summary as the last line, not ${last}`);
  return summary;
}

const CHUNK_BYTES = 1 << 20;

/** Cheap proof that the right thing was measured; the tests prove much more. */
function assertSamePages(origin: string, replica: string): void {
  const wal = `${replica}-wal`;
  if (existsSync(wal) && statSync(wal).size > 0) {
    const db = new Database(replica);
    db.pragma('wal_checkpoint(TRUNCATE)');
    db.close();
  }
  const files = [openSync(origin, 'r'), openSync(replica, 'r')];
  const chunks = files.map(() => Buffer.alloc(CHUNK_BYTES));
  for (let position = 0; ; position += CHUNK_BYTES) {
    const [a, b] = files.map((file, index) => {
      const chunk = chunks[index] as Buffer;
      const read = chunk.subarray(0, readSync(file, chunk, 0, CHUNK_BYTES, position));
      // What belongs to the replica, all of it in the file header.
      if (position === 0)
        for (const [from, to] of [
          [18, 20],
          [24, 28],
          [40, 44],
          [92, 100],
        ])
          read.fill(0, from, to);
      return read;
    }) as [Buffer, Buffer];
    if (!a.equals(b))
      throw new Error(`${replica} differs from ${origin} between ${position} and the next MiB`);
    if (a.length < CHUNK_BYTES) break;
  }
  files.forEach(closeSync);
}

function readIntoPageCache(path: string): void {
  const file = openSync(path, 'r');
  const chunk = Buffer.alloc(CHUNK_BYTES);
  while (readSync(file, chunk) > 0);
  closeSync(file);
}

function describeRound(name: CaseName, number: number, round: Round): string {
  const others = Object.entries(round.others).map(([other, seconds]) => `${other} ${seconds.toFixed(2)} s`);
  return `${name} ${number + 1}: sqlsync ${round.sync?.seconds.toFixed(2)} s, ${others.join(', ')}`;
}

function commandLine(): string {
  const args = process.argv.slice(2).map((arg) => (arg.startsWith(ROOT) ? relative(ROOT, arg) : arg));
  return ['npm run bench', ...(args.length > 0 ? ['--', ...args] : [])].join(' ');
}

function oneOf<T extends string>(choices: readonly T[], value: string): T {
  const choice = choices.find((candidate) => candidate === value);
  if (choice === undefined) throw new Error(`${value}: expected one of ${choices.join(', ')}`);
  return choice;
}

await main();
