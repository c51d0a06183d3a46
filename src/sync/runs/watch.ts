import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { LONG_LIST_SHARE } from '../../doctor/collect/lock-looks.ts';
import { nowOnSteadyClock, readersOf, walOf, WatchLooks } from '../../doctor/collect/watch-looks.ts';
import type { Facts } from '../../doctor/facts.ts';
import type { WatchLine, WatchLook } from '../../doctor/watch/log.ts';
import { WatchSampler } from '../../doctor/watch/sampler.ts';
import { parseLocation } from '../../transport/location.ts';
import { withExamination } from './examine.ts';
import type { RunOptions } from './run-options.ts';

export interface WatchOptions extends RunOptions {
  /** The time between two samples, in milliseconds. */
  readonly intervalMs: number;
  /** Ends the watch well. */
  readonly until: AbortSignal;
  readonly onLine: (line: WatchLine) => void;
}

/** The pause between two looks at a database on this host. */
const LOOK_PAUSE_MS = 25;

/** Looks at a database of another host in one message: fewer could not tell who waits. */
const REMOTE_LOOKS = 4;

/** A busy machine delays a look by less; Ctrl-Z and a suspended machine delay it by more. */
const LEAST_GAP_MS = 1000;

/** All that a look at another host collects takes at most one of so many parts of a core there. */
const REMOTE_SHARE = 10;

/** Looks take at most one of so many parts of the time, unless the pauses would be longer than {@link MOST_PAUSE_MS}. */
const LOOKS_SHARE = 100;
const MOST_PAUSE_MS = 10_000;
/** The shortest of so many looks shows what one costs: others were interrupted. */
const COSTS_KEPT = 5;

interface Source {
  readonly path: string;
  readonly host: string;
  /** The pause between two looks, in milliseconds, if one costs `lookMs` where the database is. */
  pauseAfter(lookMs: number): number;
  look(): Promise<WatchLook> | WatchLook;
  process(pid: number): { readonly command: string; readonly startedAtMs: number | undefined };
  /** What the looks so far could not see, one sentence each. */
  unseen(): readonly string[];
}

/** Watches `database` until `until` aborts, and reports each interval. Throws SqlsyncError. */
export async function watchDatabase(database: string, options: WatchOptions): Promise<void> {
  const location = parseLocation(database);
  if (location.kind === 'local') {
    const looks = new WatchLooks(location.path);
    const source: Source = {
      path: location.path,
      host: hostname(),
      pauseAfter(lookMs) {
        const pauseMs = Math.min(LOOK_PAUSE_MS, options.intervalMs);
        const { longListMs } = looks;
        return longListMs > 0
          ? pauseAfter(longListMs, pauseMs, LONG_LIST_SHARE)
          : pauseAfter(lookMs, pauseMs, LOOKS_SHARE);
      },
      look: () => looks.look(),
      process: (pid) => looks.process(pid),
      unseen: () => looks.limits,
    };
    return watch(source, options);
  }
  const examination = withExamination(database, { ...options, signal: options.until }, (examine) => {
    let facts: Facts | undefined;
    return watch(
      {
        path: location.path,
        host: location.host,
        // The time of a look here is that of its messages.
        pauseAfter: () => pauseAfter(facts?.busyMs ?? 0, options.intervalMs, REMOTE_SHARE),
        async look() {
          facts = await examine({ looks: REMOTE_LOOKS });
          return lookOf(facts);
        },
        process(pid) {
          const found = facts?.processes.find((process) => process.pid === pid);
          return { command: found?.command ?? '', startedAtMs: found?.startedAtMs };
        },
        unseen: () => facts?.unseen ?? [],
      },
      options,
    );
  });
  return unlessOver(examination, options.until);
}

async function watch(source: Source, { intervalMs, until, onLine }: WatchOptions): Promise<void> {
  const { path, host } = source;
  // The first look finds what is refused, before a record is begun.
  let look = await source.look();
  onLine({ type: 'watch', format: 1, path, host, atMs: look.atMs, unseen: source.unseen() });
  const sampler = new WatchSampler(LEAST_GAP_MS);
  const known = new Map<number, number | undefined>();
  let before = new Set<number>();
  let sampledAtMs = performance.now();
  let pauseMs = 0;
  const costs: number[] = [];
  while (!until.aborted) {
    sampler.look(look, pauseMs);
    const now = pidsOf(look);
    for (const pid of now) {
      // A process that comes back may be another one with the same number.
      if (before.has(pid)) continue;
      const { command, startedAtMs } = source.process(pid);
      if (known.has(pid) && (startedAtMs === undefined || known.get(pid) === startedAtMs)) continue;
      known.set(pid, startedAtMs);
      onLine({ type: 'process', pid, command, startedAtMs });
    }
    before = now;
    if (performance.now() - sampledAtMs >= intervalMs) {
      sampledAtMs = performance.now();
      const sample = sampler.sample();
      if (sample !== undefined) onLine(sample);
    }
    pauseMs = source.pauseAfter(costs.length === 0 ? 0 : Math.min(...costs));
    await delay(pauseMs, undefined, { signal: until }).catch(() => {});
    if (until.aborted) break;
    const beganMs = performance.now();
    const next = await unlessOver(source.look(), until);
    if (next === undefined) break;
    look = next;
    costs.push(performance.now() - beganMs);
    if (costs.length > COSTS_KEPT) costs.shift();
  }
  const rest = sampler.sample();
  if (rest !== undefined) onLine(rest);
}

function pidsOf({ writer, waiting, readers }: WatchLook): Set<number> {
  return new Set([...(writer === undefined ? [] : [writer]), ...waiting, ...readers.map(({ pid }) => pid)]);
}

/** Undefined if `until` aborts meanwhile, which makes the conversation with another host fail. */
async function unlessOver<T>(work: Promise<T> | T, until: AbortSignal): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (!until.aborted) throw error;
    return undefined;
  }
}

/** The pause after a look that costs `lookMs`, in milliseconds: at least `pauseMs`, and `share` times the look. */
export function pauseAfter(lookMs: number, pauseMs: number, share: number): number {
  return Math.max(pauseMs, Math.min(lookMs * share, MOST_PAUSE_MS));
}

/** The facts of several looks, as one. */
function lookOf({ locks, wal, header, processes }: Facts): WatchLook {
  const held = (names: readonly string[]): number[] =>
    locks.filter(({ name }) => names.includes(name)).map(({ pid }) => pid);
  const [writer] = held(['WRITE', 'RESERVED', 'PENDING', 'EXCLUSIVE']);
  const waiting = processes.filter(({ isNapping }) => isNapping).map(({ pid }) => pid);
  const { state } = wal;
  return {
    atMs: nowOnSteadyClock(),
    ...(writer === undefined ? {} : { writer }),
    waiting: writer === undefined ? [] : waiting.filter((pid) => pid !== writer),
    readers: readersOf(locks, { isWal: header?.isWal === true, wal: state }).filter(
      ({ pid }) => pid !== writer,
    ),
    ...(state === undefined ? {} : { wal: walOf(state) }),
    ...(header === undefined || header.isWal ? {} : { changes: header.changes }),
    walBytes: wal.file?.bytes ?? 0,
    pageSize: header?.pageSize ?? 4096,
  };
}
