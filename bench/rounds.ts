import { setTimeout as delay } from 'node:timers/promises';
import type { BenchCase } from './data.ts';
import { measureProcess, median } from './measure.ts';
import type { Measured } from './measure.ts';
import type { Route } from './route.ts';
import { settle } from './settle.ts';
import { assertSamePages, freshTarget } from './target.ts';
import type { Tool } from './tools.ts';

/** The last line that `sqlsync --json` writes, as far as the report uses it. */
export interface SyncSummary {
  type: 'summary';
  pageCount: number;
  pagesTransferred: number;
  bytesSent: number;
  bytesReceived: number;
  snapshotHeldMs: number;
  quick: boolean;
}

export interface SyncRun extends Measured {
  summary: SyncSummary;
  /** From the moment that the near side learned that its SSH channel is open to its exit. */
  openSeconds: number | undefined;
  /** Both directions, SSH's own bytes included. */
  linkBytes: number | undefined;
}

export interface ToolRun extends Measured {
  /** Both directions: what passed the link, or else what the tool says of itself. */
  wireBytes: number | undefined;
}

export interface Round {
  sync: SyncRun;
  /** By the names of the tools. */
  tools: Record<string, ToolRun>;
}

export interface CaseResult {
  benchCase: BenchCase;
  rounds: readonly Round[];
}

export interface RoundOptions {
  exe: string;
  syncArgs: readonly string[];
  route: Route;
  runs: number;
  tools: readonly Tool[];
  /** The number of rounds in which the other tools run too; by default all. */
  toolRuns?: number;
}

/** All rounds of one case. In each, every tool runs once, and sqlsync on a fresh copy of the replica. */
export async function runCase(benchCase: BenchCase, options: RoundOptions): Promise<CaseResult> {
  const rounds: Round[] = [];
  for (let number = 0; number < options.runs; number++) {
    const round: Partial<Round> & Pick<Round, 'tools'> = { tools: {} };
    const tools = number < (options.toolRuns ?? options.runs) ? options.tools : [];
    const measurements = [
      async () => void (round.sync = await measureSync(benchCase, options, number === 0)),
      ...tools.map((tool) => async () => {
        round.tools[tool.name] = await measureTool(benchCase, tool, options.route);
      }),
    ];
    // Every other round in the opposite order, so that a drift of the machine favours nobody.
    if (number % 2 === 1) measurements.reverse();
    for (const measurement of measurements) await measurement();
    rounds.push(round as Round);
    console.error(describeRound(benchCase.name, number, round as Round));
  }
  return { benchCase, rounds };
}

/** From this age of the last change on, the quick check trusts a file. */
export const STAMPED_AFTER_MS = 3100;

/** `verify` proves afterwards that the replica is right. */
export async function measureSync(
  { origin, replica, isKnown }: Pick<BenchCase, 'origin' | 'replica' | 'isKnown'>,
  { exe, syncArgs, route }: Pick<RoundOptions, 'exe' | 'syncArgs' | 'route'>,
  verify: boolean,
): Promise<SyncRun> {
  const { far, link } = route;
  const target = freshTarget(replica);
  const args = [exe, route.location(origin), target, '--json', ...route.syncOptions, ...syncArgs];
  if (replica !== undefined) args.push('--overwrite');
  if (isKnown) {
    await delay(STAMPED_AFTER_MS);
    await measureProcess(process.execPath, args);
  }
  settle(replica === undefined ? [origin] : [origin, target]);
  far?.forget();
  link?.reset();
  const measured = await measureProcess(process.execPath, args, { alsoSample: far?.pidFile });
  const summary = parseSummary(measured.stdout);
  if (isKnown && !summary.quick && !syncArgs.includes('--full'))
    throw new Error('the quick check compared all pages');
  if (verify) assertSamePages(origin, target);
  const openedAtMs = far && far.startedAtMs + (link?.options.rttMs ?? 0) / 2;
  return {
    ...measured,
    cpuSeconds: measured.cpuSeconds + ((await far?.cpuSeconds()) ?? 0),
    summary,
    openSeconds: openedAtMs && (measured.endedAtMs - openedAtMs) / 1000,
    linkBytes: link && link.carried.toFar + link.carried.toNear,
  };
}

async function measureTool({ origin, replica }: BenchCase, tool: Tool, route: Route): Promise<ToolRun> {
  const { command, updates, wireBytes } = tool;
  const target = freshTarget(updates ? replica : undefined);
  settle(updates && replica !== undefined ? [origin, target] : [origin]);
  const { link } = route;
  link?.reset();
  const [program, ...args] = command(origin, target, route);
  const measured = await measureProcess(program, args);
  const carried = link && link.carried.toFar + link.carried.toNear;
  return { ...measured, wireBytes: carried ?? wireBytes?.(measured.stdout) };
}

function parseSummary(stdout: string): SyncSummary {
  const last = stdout.trimEnd().split('\n').at(-1) ?? '';
  const summary = JSON.parse(last) as SyncSummary;
  if (summary.type !== 'summary') throw new Error(`expected a summary as the last line, not ${last}`);
  return summary;
}

function describeRound(name: string, number: number, { sync, tools }: Round): string {
  const others = Object.entries(tools).map(([tool, { seconds }]) => `, ${tool} ${seconds.toFixed(2)} s`);
  return `${name} ${number + 1}: sqlsync ${sync.seconds.toFixed(2)} s${others.join('')}`;
}

/** The median over the rounds in which the value is known; undefined if it is known in none. */
export function medianOf(
  rounds: readonly Round[],
  value: (round: Round) => number | undefined,
): number | undefined {
  const known = rounds.map(value).filter((each) => each !== undefined);
  return known.length === 0 ? undefined : median(known);
}
