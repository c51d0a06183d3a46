/**
 * What a writer on the origin feels while the origin is copied: commits, latencies and busy errors, alone and
 * during a sync in turn, several times.
 */
import { execFileSync, fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { prepareBase, prepareCase } from './data.ts';
import type { BenchData } from './data.ts';
import { measureProcess, median } from './measure.ts';
import { figure, table } from './results.ts';
import { copyToDisk, WORK_DIR } from './target.ts';
import type { WriterPhase, WriterRequest } from './writer-process.ts';

export interface WriterOptions {
  data: BenchData;
  exe: string;
  syncArgs: readonly string[];
  /** How often the phases are repeated. */
  rounds: number;
  /** Journal modes of the origin. */
  journals: readonly string[];
}

/** How long a phase is; the phase waits for a sync that still runs at its end. */
const PHASE_MS = 4000;
/**
 * What runs beside the writer; `dd` loads the machine as much as a copy does, and knows nothing of SQLite.
 */
const KINDS = ['identical', 'update1pct', 'backup', 'dd'] as const;
type Kind = (typeof KINDS)[number];
/** Commits a second; undefined means as many as possible. */
const LOADS: readonly (number | undefined)[] = [undefined, 200];
/** Each sync needs a replica of its own, made before the phase. */
const UPDATES_PER_PHASE_MAX = 3;

interface Pair {
  alone: WriterPhase;
  during: WriterPhase;
  syncs: number;
  syncSeconds: number;
}

export async function writerSection(options: WriterOptions): Promise<string> {
  const rows: string[][] = [];
  for (const journal of options.journals) {
    const pairs = await runJournal(journal, options);
    for (const [load, kinds] of pairs) {
      const name = `${journal}, ${load}`;
      const all = [...kinds.values()].flat().map(({ alone }) => alone);
      rows.push([`${name}, alone`, ...phaseCells(all), '', '', '', '']);
      for (const [kind, during] of kinds) {
        const phases = during.map((pair) => pair.during);
        const ofDd = ratioOf(during, kinds.get('dd') ?? []);
        rows.push([`${name}, during ${kind}`, ...phaseCells(phases), ofDd, ...syncCells(during)]);
      }
    }
  }
  const rowCount = options.data.rows.toLocaleString('en');
  return `Another process commits to the origin (${rowCount} rows): each commit is an UPDATE of one of 10,000 rows, with
\`synchronous\` NORMAL and a busy timeout of 5 s, either as fast as it goes ("max") or 200 times a second, when a commit that begins late
counts from when it was due. Phases of ${PHASE_MS / 1000} s alone and beside a copy that runs again and again, local to local, take turns ${options.rounds} times:

- **identical**: sqlsync, with a replica that lacks only what the writer did since the last time;
- **update1pct**: sqlsync, with replicas from before the UPDATE of 1 % of the rows;
- **backup**: \`sqlsync backup\` into a store that lacks only what the writer did since the last time;
- **dd**: \`dd bs=1M conv=fsync\` of the origin into a new file, which takes no lock of SQLite's: what the load of a copy costs as such.

Medians of the phases; max and busy errors of all of them together. "p99 of dd" is the ratio to the phase beside dd in the same round
(the target is at most 1, and no busy errors), the p99 ratio that to the phase alone just before. The writer and both agents share the cores. In a rollback journal mode (delete) SQLite itself lets
no writer commit while anybody reads, so there the writer waits for the sync.

${table(
  [
    'journal, load, phase',
    'commits/s',
    'p50 ms',
    'p99 ms',
    'max ms',
    'busy errors',
    'p99 of dd',
    'p99 ratio',
    'copies',
    's each',
  ],
  rows,
)}`;
}

type Loads = Map<string, Map<Kind, Pair[]>>;

async function runJournal(journal: string, options: WriterOptions): Promise<Loads> {
  const { data, rounds } = options;
  rmSync(WORK_DIR, { recursive: true, force: true });
  mkdirSync(WORK_DIR, { recursive: true });
  const origin = join(WORK_DIR, 'origin.db');
  copyToDisk(prepareCase('update1pct', data).origin, origin);
  const replica = join(WORK_DIR, 'replica.db');
  const writer = await Writer.start(origin, journal, data.rows);
  const results: Loads = new Map();
  try {
    await sync(origin, replica, options);
    await measureProcess(process.execPath, [options.exe, 'init', '-q', join(WORK_DIR, 'store')]);
    await backup(origin, options);
    for (const load of LOADS) {
      const kinds = new Map<Kind, Pair[]>(KINDS.map((kind) => [kind, []]));
      results.set(load === undefined ? 'max' : `${load}/s`, kinds);
      for (let round = 0; round < rounds; round++) {
        for (const kind of KINDS) {
          const { alone, ...during } = await runPair(writer, { origin, replica, kind, load }, options);
          kinds.get(kind)?.push({ alone, ...during });
          console.error(
            `${journal} ${load ?? 'max'} ${kind} ${round + 1}: p99 alone ${alone.p99Ms.toFixed(3)} ms, ` +
              `with ${during.syncs} copies ${during.during.p99Ms.toFixed(3)} ms, max ${during.during.maxMs.toFixed(1)} ms`,
          );
        }
      }
    }
  } finally {
    await writer.end();
  }
  return results;
}

interface PairPlan {
  origin: string;
  replica: string;
  kind: Kind;
  load: number | undefined;
}

async function runPair(writer: Writer, plan: PairPlan, options: WriterOptions): Promise<Pair> {
  const { kind, load } = plan;
  const copies = copiesOf(plan, options);
  // The system must not write out the data of the preparations and of earlier phases during these.
  execFileSync('sync');
  writer.begin(load);
  await delay(PHASE_MS);
  const alone = await writer.finish();
  execFileSync('sync');
  writer.begin(load);
  const start = performance.now();
  const seconds: number[] = [];
  for (const copy of copies) {
    seconds.push(await copy());
    if (performance.now() - start > PHASE_MS) break;
  }
  const during = await writer.finish();
  if (kind === 'dd') rmSync(join(WORK_DIR, 'dd.db'), { force: true });
  return { alone, during, syncs: seconds.length, syncSeconds: median(seconds) };
}

/**
 * The jobs to run one after the other beside the writer, each prepared before its turn; a job returns its
 * seconds.
 */
function copiesOf(
  { origin, replica, kind }: PairPlan,
  options: WriterOptions,
): Iterable<() => Promise<number>> {
  switch (kind) {
    case 'identical':
      return endless(() => sync(origin, replica, options));
    case 'update1pct':
      return oldReplicas(options.data).map((old) => () => sync(origin, old, options));
    case 'backup':
      return endless(() => backup(origin, options));
    case 'dd':
      return endless(() => durableCopy(origin, join(WORK_DIR, 'dd.db')));
  }
}

function* endless<T>(value: T): Generator<T> {
  for (;;) yield value;
}

function oldReplicas(data: BenchData): string[] {
  return Array.from({ length: UPDATES_PER_PHASE_MAX }, (_, index) => {
    const path = join(WORK_DIR, `old-${index}.db`);
    for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true });
    copyToDisk(prepareBase(data), path);
    return path;
  });
}

async function sync(origin: string, replica: string, { exe, syncArgs }: WriterOptions): Promise<number> {
  const args = [exe, origin, replica, '--overwrite', '--quiet', ...syncArgs];
  return (await measureProcess(process.execPath, args, { sample: false })).seconds;
}

async function backup(origin: string, { exe }: WriterOptions): Promise<number> {
  const args = [exe, 'backup', '-q', origin, join(WORK_DIR, 'store')];
  return (await measureProcess(process.execPath, args, { sample: false })).seconds;
}

async function durableCopy(from: string, to: string): Promise<number> {
  const args = [`if=${from}`, `of=${to}`, 'bs=1M', 'conv=fsync'];
  return (await measureProcess('dd', args, { sample: false })).seconds;
}

function phaseCells(phases: readonly WriterPhase[]): string[] {
  const of = (value: (phase: WriterPhase) => number, digits: number): string =>
    figure(median(phases.map(value)), digits);
  return [
    of(({ commits, seconds }) => commits / seconds, 0),
    of(({ p50Ms }) => p50Ms, 3),
    of(({ p99Ms }) => p99Ms, 3),
    figure(Math.max(...phases.map(({ maxMs }) => maxMs)), 1),
    String(phases.reduce((sum, { busyErrors }) => sum + busyErrors, 0)),
  ];
}

function syncCells(pairs: readonly Pair[]): string[] {
  return [
    figure(median(pairs.map(({ alone, during }) => during.p99Ms / alone.p99Ms)), 2),
    String(pairs.reduce((sum, { syncs }) => sum + syncs, 0)),
    figure(median(pairs.map(({ syncSeconds }) => syncSeconds)), 2),
  ];
}

/** The median of the ratios to what was beside `dd`, round by round. */
function ratioOf(pairs: readonly Pair[], dd: readonly Pair[]): string {
  const ratios = pairs.map(({ during }, round) => during.p99Ms / (dd[round]?.during.p99Ms ?? NaN));
  return figure(median(ratios), 2);
}

export class Writer {
  readonly #child: ChildProcess;

  static async start(path: string, journal: string, rows: number): Promise<Writer> {
    const program = join(import.meta.dirname, 'writer-process.ts');
    const child = fork(program, [path, journal, String(rows)]);
    await answer(child);
    return new Writer(child);
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  begin(perSecond: number | undefined): void {
    this.#send({ type: 'start', perSecond });
  }

  async finish(): Promise<WriterPhase> {
    this.#send({ type: 'stop' });
    return (await answer(this.#child)) as WriterPhase;
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.disconnect();
    await ended;
  }

  #send(request: WriterRequest): void {
    this.#child.send(request);
  }
}

/** The next message; rejects if the process ends instead. */
async function answer(child: ChildProcess): Promise<unknown> {
  if (child.exitCode !== null) throw new Error(`the writer ended with status ${child.exitCode}`);
  const { promise, resolve, reject } = Promise.withResolvers<unknown>();
  const onExit = (status: number | null): void => reject(new Error(`the writer ended with status ${status}`));
  child.once('message', resolve).once('exit', onExit);
  try {
    return await promise;
  } finally {
    child.off('exit', onExit);
  }
}
