/** The sections that copy databases: local, start-up, over SSH, and over a slow line. */
import { CASE_NAMES, prepareCase } from './data.ts';
import type { BenchCase, BenchData, CaseName } from './data.ts';
import { median } from './measure.ts';
import { caseList, comparisonTable, syncTable } from './report.ts';
import { LOCAL_ROUTE, sshRoute } from './route.ts';
import type { LinkSettings, Route } from './route.ts';
import { figure } from './results.ts';
import { measureSync, medianOf, runCase } from './rounds.ts';
import type { CaseResult, RoundOptions, SyncRun } from './rounds.ts';
import { toolsNamed } from './tools.ts';
import type { Tool, ToolName } from './tools.ts';

export interface CopyOptions {
  data: BenchData;
  /** By default those of the section. */
  cases: readonly CaseName[] | undefined;
  runs: number;
  exe: string;
  syncArgs: readonly string[];
  /** By default those that make sense in the section. */
  tools: readonly ToolName[] | undefined;
  /** The other tools of the user, which run in every case. */
  peers: readonly Tool[];
}

function toolsOf({ tools, peers }: CopyOptions, usual: readonly ToolName[]): Tool[] {
  return [...toolsNamed(tools ?? usual), ...peers];
}

/** A database of 1 MB: what a sync costs before it copies anything. */
const SMALL_ROWS = 3500;
const START_CASES = ['untouched', 'identical', 'update1pct', 'new'] as const;

/** What a person would send over a slow line; a whole database takes as long as its bytes do. */
const LINK_CASES = ['identical', 'update364', 'update1pct', 'insert1pct', 'delete1pct'] as const;
const LINK: LinkSettings = { rttMs: 100, bitsPerSecond: 50e6 };
const LINK_RUNS_MAX = 3;
/** The case whose round trips the report counts. */
const ROUND_TRIP_CASE = 'update364';
const ROUND_TRIPS_TARGET = 6;
/** Long enough that a few tenths of a second of other work, more or less, are a fraction of a round trip. */
const LONG_FACTOR = 5;

export async function localSection(options: CopyOptions): Promise<string> {
  const tools = toolsOf(options, ['backup', 'vacuum-into', 'dd', 'rsync']);
  const { cases = CASE_NAMES, data } = options;
  const results = await runAll(cases, data, { ...options, route: LOCAL_ROUTE, tools });
  return `${describeRounds(options)}${COLUMNS}
The targets are for 1.05 GB.

${syncTable(
  results,
  tools.some(({ name }) => name === 'backup'),
)}

The same beside other tools. \`.backup\`, \`VACUUM INTO\` and \`dd\` write a new file, whatever changed; rsync, with \`--no-whole-file\`,
updates a copy of the replica, and is not safe while the origin is written to.

${comparisonTable(results, tools)}

${caseList(results)}`;
}

export async function startSection(options: CopyOptions): Promise<string> {
  const tools = toolsOf({ ...options, tools: undefined }, ['backup']);
  const data = { rows: SMALL_ROWS, seed: options.data.seed };
  const results = await runAll(START_CASES, data, { ...options, route: LOCAL_ROUTE, tools });
  return `Medians of ${options.runs} rounds, ${SMALL_ROWS.toLocaleString('en')} rows. The targets are 0.13 s for **untouched**, 0.17 s for the others.

${syncTable(results, false)}

${comparisonTable(results, tools)}`;
}

export async function sshSection(options: CopyOptions): Promise<string> {
  const { cases = CASE_NAMES, data } = options;
  const tools = toolsOf(options, ['rsync']);
  return withRoute(sshRoute(options.exe), async (route) => {
    const results = await runAll(cases, data, { ...options, route, tools });
    return `${describeRounds(options)}${COLUMNS}
A pull from a real sshd; the two ends share the machine, and the CPU time of sshd is not counted.

${syncTable(results, false)}

Beside \`rsync -z --inplace --no-whole-file\` over the same sshd, with the \`ssh\` of OpenSSH.

${comparisonTable(results, tools)}`;
  });
}

export async function linkSection(options: CopyOptions): Promise<string> {
  const { data } = options;
  const tools = toolsOf(options, ['rsync']);
  const cases = options.cases ?? LINK_CASES;
  const runs = Math.min(options.runs, LINK_RUNS_MAX);
  return withRoute(sshRoute(options.exe, LINK), async (route) => {
    const limits = { ...options, route, tools, runs, toolRuns: 1 };
    const results = await runAll(cases, data, limits);
    const { rttMs, bitsPerSecond } = LINK;
    const roundTrips = results.find(({ benchCase }) => benchCase.name === ROUND_TRIP_CASE);
    const login = loginSeconds(results).toFixed(1);
    return `${describeRounds({ data, runs })}A pull from a real sshd through bench/link.ts: ${rttMs} ms round trip, ${bitsPerSecond / 1e6} Mbit/s in each direction. Starting sqlsync and logging in
takes about ${login} s of each run. The wire is what passed the line, SSH's own bytes included. rsync (\`-z --inplace --no-whole-file\`) ran
in the first round only: its time is that of its bytes.

${comparisonTable(results, tools)}
${roundTrips === undefined ? '' : await countRoundTrips(roundTrips, options)}`;
  });
}

/** From the start of the process to the open channel. */
function loginSeconds(results: readonly CaseResult[]): number {
  const runs = results.flatMap(({ rounds }) => rounds.map(({ sync }) => sync));
  return median(runs.map((sync) => sync.seconds - (sync.openSeconds ?? 0)));
}

/**
 * The times on the line itself do not show whether a run waits for a round trip or for work. On a line
 * several times as long, everything but the round trips takes the same time.
 */
async function countRoundTrips({ benchCase, rounds }: CaseResult, options: CopyOptions): Promise<string> {
  const long: LinkSettings = { ...LINK, rttMs: LINK.rttMs * LONG_FACTOR };
  const longRuns = await withRoute(sshRoute(options.exe, long), async (route) => {
    await warmUp(options, route);
    const runs: SyncRun[] = [];
    while (runs.length < rounds.length) {
      runs.push(await measureSync(benchCase, { ...options, route }, false));
      console.error(`${benchCase.name} at ${long.rttMs} ms: ${runs.at(-1)?.openSeconds?.toFixed(2)} s`);
    }
    return runs;
  });
  const open = (runs: readonly SyncRun[]): number => median(runs.map(({ openSeconds }) => openSeconds ?? 0));
  const shortRuns = rounds.map(({ sync }) => sync);
  const bytes = median(shortRuns.map(({ linkBytes }) => linkBytes ?? 0));
  const bytesSeconds = (bytes * 8) / LINK.bitsPerSecond;
  const perTrip = LINK.rttMs / 1000;
  const inAll = (open(shortRuns) - bytesSeconds) / perTrip;
  const waited = (open(longRuns) - open(shortRuns)) / ((long.rttMs - LINK.rttMs) / 1000);
  return `
Round trips of **${benchCase.name}**, from the open SSH channel to the end of the process (target: at most ${ROUND_TRIPS_TARGET}):

- At ${LINK.rttMs} ms that took ${figure(open(shortRuns), 2)} s, of which its ${(bytes / 1e3).toFixed(0)} kB take ${figure(bytesSeconds, 2)} s; the rest, with starting the far agent
  and reading both databases, is ${figure(inAll, 1)} round trips.
- At ${long.rttMs} ms it took ${figure(open(longRuns), 2)} s. So ${figure(waited, 1)} round trips are waited for one after the other.
`;
}

/** A line on which the whole database takes about as long as the disk: between two servers in one place. */
const FAST_LINK: LinkSettings = { rttMs: 1, bitsPerSecond: 1e9 };

/** The first copy that everybody makes: to a new file, here, over SSH, and over a fast line. */
export async function firstSection(options: CopyOptions): Promise<string> {
  const first = { ...options, cases: ['new'] as const };
  const remote = toolsOf(options, ['rsync', 'rsync-plain']);
  const local = await runFirst(first, Promise.resolve(LOCAL_ROUTE), toolsOf(options, ['backup', 'dd']));
  const ssh = await runFirst(first, sshRoute(options.exe), remote);
  const link = await runFirst(first, sshRoute(options.exe, FAST_LINK), remote);
  const { rttMs, bitsPerSecond } = FAST_LINK;
  const [{ rounds } = { rounds: [] }] = link.results;
  const ofBytes = medianOf(
    rounds,
    ({ sync }) => sync.seconds / (((sync.linkBytes ?? NaN) * 8) / bitsPerSecond),
  );
  return `${describeRounds(options)}
Local:

${local.text}

Over a real sshd on the loopback interface; \`rsync\` is with \`-z\`:

${ssh.text}

Through bench/link.ts, ${rttMs} ms round trip and ${bitsPerSecond / 1e9} Gbit/s in each direction:

${link.text}

There sqlsync takes ${figure(ofBytes, 2)} times as long as its bytes take on the line.`;
}

async function runFirst(
  options: CopyOptions,
  route: Promise<Route>,
  tools: readonly Tool[],
): Promise<{ results: CaseResult[]; text: string }> {
  return withRoute(route, async (open) => {
    const results = await runAll(['new'], options.data, { ...options, route: open, tools });
    return { results, text: comparisonTable(results, tools) };
  });
}

async function withRoute<T>(opening: Promise<Route>, work: (route: Route) => Promise<T>): Promise<T> {
  const route = await opening;
  try {
    return await work(route);
  } finally {
    await route.close();
  }
}

async function runAll(
  names: readonly CaseName[],
  data: BenchData,
  options: RoundOptions,
): Promise<CaseResult[]> {
  await warmUp(options, options.route);
  const results: CaseResult[] = [];
  for (const name of names) results.push(await runCase(prepareCase(name, data), options));
  return results;
}

/** The first run fills the compile cache of Node.js, on either host. */
async function warmUp(options: Pick<RoundOptions, 'exe' | 'syncArgs'>, route: Route): Promise<void> {
  const small: BenchCase = prepareCase('identical', { rows: SMALL_ROWS, seed: 1 });
  await measureSync(small, { ...options, route }, false);
}

function describeRounds({ runs, data }: Pick<CopyOptions, 'runs' | 'data'>): string {
  return `Medians of ${runs} rounds, ${data.rows.toLocaleString('en')} rows. In each round every tool runs once, sqlsync on a fresh copy of the replica.\n`;
}

const COLUMNS = `CPU is user and system time of both agents, wire all bytes of the protocol in both directions, snapshot how long the origin's read
transaction was open; the last two are the peaks of resident memory of the near agent (the process that the user starts, here the
replica's) and of the far one.`;
