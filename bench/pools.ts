/**
 * The pools beside better-sqlite3 as it comes, with a busy timeout of 5 s and a connection for each writer; both in
 * the same run. `node bench/pools.ts [--cases collide,tiny,…] [--seconds 5]` measures without writing RESULTS.md.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { median } from './measure.ts';
import { beside, besideSyncs, play, withDatabase } from './pools/cast.ts';
import type { ImportKind, ImportOutcome, ReadOutcome, Scenario, WriteOutcome } from './pools/child.ts';
import type { Kind } from './pools/writers.ts';
import { countWrites } from './pools/writers.ts';
import { figure, table } from './results.ts';

export interface PoolsOptions {
  exe: string;
  /** How long each measurement is, in seconds; undefined: 15, and 60 beside the sync loop. */
  seconds?: number | undefined;
  cases?: readonly PoolsCase[] | undefined;
}

export const POOLS_CASES = ['collide', 'tiny', 'alone', 'loop', 'bulk', 'readers', 'synced'] as const;
export type PoolsCase = (typeof POOLS_CASES)[number];

const CASES: Record<PoolsCase, (options: PoolsOptions) => Promise<string>> = {
  collide: collideCase,
  tiny: tinyCase,
  alone: aloneCase,
  loop: loopCase,
  bulk: bulkCase,
  readers: readersCase,
  synced: syncedCase,
};

const KINDS: readonly Kind[] = ['plain', 'pools'];
const ROUNDS = 3;
const FOREIGN_HOLD_MS = 600;
const IMPORT_ITEMS = 400_000;
const IMPORT_BUDGET_MS = 1000;

export async function poolsSection(options: PoolsOptions): Promise<string> {
  const parts: string[] = [];
  for (const name of POOLS_CASES) {
    if (options.cases?.includes(name) !== false) parts.push(await CASES[name](options));
  }
  return `"plain" is better-sqlite3 with a busy timeout of 5 s and a connection for each writer, "pools" is \`openDatabase\` as it comes.
A write adds 1 to the writer's own row; acknowledged writes are counted in the database at the end of each measurement, and no
measurement is kept where the two differ. Worst is the longest time from a call to its commit; errors are those that the caller sees.

${parts.join('\n\n')}`;
}

async function collideCase(options: PoolsOptions): Promise<string> {
  const rows = await processRows(options, { processes: 16, holdMs: 10 });
  return `**16 processes, transactions of 10 ms.** Targets: no error, least ÷ most ≥ 0.8, worst ≤ 0.5 s, ≥ 0.95 of plain.

${rows}`;
}

async function tinyCase(options: PoolsOptions): Promise<string> {
  const rows = await processRows(options, { processes: 8, holdMs: 0 });
  return `**8 processes, a single statement at a time, as fast as it goes.** Targets: ≥ 0.8 of plain, worst ≤ 0.2 s.

${rows}`;
}

async function processRows(
  { seconds = 15 }: PoolsOptions,
  { processes, holdMs }: { processes: number; holdMs: number },
): Promise<string> {
  const rows: string[][] = [];
  const totals: number[] = [];
  for (const kind of KINDS) {
    const outcomes = await writeAll(
      Array.from({ length: processes }, (_, first) => ({
        kind,
        first,
        count: 1,
        holdMs,
        ms: seconds * 1000,
      })),
    );
    const commits = outcomes.map((outcome) => outcome.commits);
    const [least, most] = [Math.min(...commits), Math.max(...commits)];
    totals.push(sum(commits));
    rows.push([
      kind,
      figure(sum(commits) / seconds, 0),
      figure(sum(commits) / (totals[0] as number), 2),
      String(least),
      String(most),
      figure(least / most, 2),
      figure(Math.max(...outcomes.map(({ worstMs }) => worstMs)), 0),
      errorsOf(outcomes),
    ]);
  }
  return table(['', 'commits/s', 'of plain', 'least', 'most', 'ratio', 'worst ms', 'errors'], rows);
}

async function aloneCase({ seconds = 15 }: PoolsOptions): Promise<string> {
  const perSecond: Record<Kind, number[]> = { plain: [], pools: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const kind of KINDS) {
      const ms = (seconds * 1000) / ROUNDS;
      const outcomes = await writeAll([{ kind, first: 0, count: 1, holdMs: 0, ms }]);
      perSecond[kind].push((sum(outcomes.map(({ commits }) => commits)) * 1000) / ms);
    }
  }
  const ratios = perSecond.pools.map((value, round) => value / (perSecond.plain[round] as number));
  return `**One process alone, one writer, a single statement at a time.** Medians of ${ROUNDS} rounds. Target: ≥ 0.9 of plain.

${table(
  ['', 'commits/s', 'of plain'],
  KINDS.map((kind) => [
    kind,
    figure(median(perSecond[kind]), 0),
    figure(kind === 'plain' ? 1 : median(ratios), 2),
  ]),
)}`;
}

async function loopCase({ seconds = 15 }: PoolsOptions): Promise<string> {
  const rows: string[][] = [];
  for (const kind of KINDS) {
    const write = { kind, first: 0, count: 200, holdMs: 0, ms: seconds * 1000 };
    const outcomes = await writeAll([write], FOREIGN_HOLD_MS);
    const [outcome] = outcomes as [WriteOutcome];
    rows.push([
      kind,
      figure(outcome.loopP99Ms, 1),
      figure(outcome.loopMaxMs, 0),
      figure(outcome.commits / seconds, 0),
      figure(outcome.worstMs, 0),
      errorsOf(outcomes),
    ]);
  }
  return `**200 writers in one process, while another program holds the lock for ${FOREIGN_HOLD_MS} ms at a time.** Target: event-loop delay p99 ≤ 20 ms.

${table(['', 'loop p99 ms', 'loop max ms', 'commits/s', 'worst ms', 'errors'], rows)}`;
}

async function bulkCase({ seconds: limit = 15 }: PoolsOptions): Promise<string> {
  const items = limit < 15 ? IMPORT_ITEMS / 4 : IMPORT_ITEMS;
  const kinds: readonly ImportKind[] = ['plain one by one', 'plain at once', 'one by one', 'bulk'];
  const rows: string[][] = [];
  for (const kind of kinds) {
    const [outcome] = await withDatabase(1, (path) =>
      play<ImportOutcome>([{ type: 'import', kind, path, items, budgetMs: IMPORT_BUDGET_MS }]),
    );
    const { seconds, writes, p99Ms, maxMs } = outcome as ImportOutcome;
    rows.push([
      kind,
      figure(seconds, 2),
      figure(items / seconds, 0),
      String(writes),
      figure(p99Ms, 0),
      figure(maxMs, 0),
    ]);
  }
  return `**An import of ${items.toLocaleString('en')} rows with an index, and every 10 ms an interactive write beside it**, from when it was due. Targets: bulk
(budget ${IMPORT_BUDGET_MS} ms) ≥ 4 times faster than one transaction an item, the interactive p99 within the budget.

${table(['', 's', 'items/s', 'interactive writes', 'p99 ms', 'max ms'], rows)}`;
}

async function readersCase({ seconds = 15 }: PoolsOptions): Promise<string> {
  const rows: string[][] = [];
  for (const kind of KINDS) {
    for (const writers of [0, 200]) {
      const outcome = await withDatabase(200, (path) => {
        const lock: Scenario = { type: 'lock', path, holdMs: FOREIGN_HOLD_MS };
        const read: Scenario = { type: 'read', kind, path, writers, ms: (seconds * 1000) / 3 };
        return beside(lock, async () => (await play<ReadOutcome>([read]))[0] as ReadOutcome);
      });
      rows.push([
        `${kind}, ${writers} writers wait`,
        figure(outcome.reads / (seconds / 3), 0),
        figure(outcome.p50Ms, 3),
        figure(outcome.p99Ms, 3),
      ]);
    }
  }
  return `**Readers beside 200 writers that wait** for a program that holds the lock for ${FOREIGN_HOLD_MS} ms at a time: a read in each turn of the
event loop, from the end of the turn before. Target: p99 unchanged.

${table(['', 'reads/s', 'p50 ms', 'p99 ms'], rows)}`;
}

async function syncedCase({ exe, seconds = 60 }: PoolsOptions): Promise<string> {
  const rows: string[][] = [];
  for (const [processes, writers] of [
    [1, 200],
    [8, 25],
  ] as const) {
    await withDatabase(200, async (path) => {
      const replica = join(path, '..', 'replica.db');
      const scenarios = Array.from({ length: processes }, (_, index) => {
        const range = { first: index * writers, count: writers };
        return { type: 'write', kind: 'pools', path, ...range, holdMs: 0, ms: seconds * 1000 } as const;
      });
      const { value, syncs } = await besideSyncs(exe, path, replica, () => play<WriteOutcome>(scenarios));
      const acknowledged = sum(value.map(({ commits }) => commits));
      rows.push([
        `${processes} × ${writers}`,
        String(acknowledged),
        String(countWrites(path) - acknowledged),
        String(countWrites(replica) - acknowledged),
        figure(Math.max(...value.map(({ worstMs }) => worstMs)), 0),
        errorsOf(value),
        String(syncs),
      ]);
    });
  }
  return `**Beside a sync loop of the same file, ${seconds} s.** Targets: no error, no write lost or doubled, in the origin and in the replica
of the last sync.

${table(['processes × writers', 'acknowledged', 'lost or doubled', 'in the replica', 'worst ms', 'errors', 'syncs'], rows)}`;
}

type WriteScenario = Omit<Scenario & { type: 'write' }, 'type' | 'path'>;

/** Runs the writers on a new database, and checks that every write that was confirmed to them is there. */
async function writeAll(
  scenarios: readonly WriteScenario[],
  foreignHoldMs?: number,
): Promise<WriteOutcome[]> {
  const counters = sum(scenarios.map(({ count }) => count));
  return await withDatabase(counters, async (path) => {
    const lock: Scenario | undefined =
      foreignHoldMs === undefined ? undefined : { type: 'lock', path, holdMs: foreignHoldMs };
    const outcomes = await beside(lock, () =>
      play<WriteOutcome>(scenarios.map((scenario) => ({ type: 'write', path, ...scenario }))),
    );
    const acknowledged = sum(outcomes.map(({ commits }) => commits));
    const found = countWrites(path);
    if (found !== acknowledged)
      throw new Error(`${acknowledged} writes were acknowledged, ${found} are there`);
    return outcomes;
  });
}

function errorsOf(outcomes: readonly WriteOutcome[]): string {
  const busy = sum(outcomes.map(({ busyErrors }) => busyErrors));
  const others = outcomes.flatMap(({ otherErrors }) => otherErrors);
  return [String(busy + others.length), ...new Set(others)].join(' ');
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { cases: { type: 'string' }, seconds: { type: 'string' } } });
  const section = await poolsSection({
    exe: join(import.meta.dirname, '..', 'bin', 'sqlsync.js'),
    seconds: values.seconds === undefined ? undefined : Number(values.seconds),
    cases: values.cases?.split(',') as PoolsCase[] | undefined,
  });
  console.log(section);
}
