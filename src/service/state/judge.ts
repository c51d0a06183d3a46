import type { EntryState, Failure, ServiceState, TargetState } from './state.ts';

/** Whether a service answers: `silent` is one that has its lock or socket, and does not. */
export type ServiceLife = 'runs' | 'silent' | 'none';

/** How a copy stands against its schedule; `gone` is a database that is not there any more. */
export type Level = 'fine' | 'late' | 'failing' | 'gone';

export interface TargetStatus {
  /** Of the database and its target, also where names look alike. */
  readonly id: string;
  readonly origin: string;
  readonly target: string;
  readonly kind: TargetState['kind'];
  readonly schedule: string;
  readonly level: Level;
  /** A sentence if it is not fine. */
  readonly why: string | undefined;
  readonly isRunning: boolean;
  /** True while the replica shows every change. */
  readonly isFollowing: boolean;
  readonly lastSuccessAtMs: number | undefined;
  /** How old the copy is, at most: the time since the start of the last run that succeeded. */
  readonly lagMs: number | undefined;
  readonly nextRunAtMs: number | undefined;
  readonly moved: TargetState['moved'];
  readonly provenAtMs: number | undefined;
  readonly snapshot: string | undefined;
  readonly sizeBytes: number | undefined;
  /** Since the oldest size that is kept. */
  readonly growthBytes: number | undefined;
  readonly sizes: TargetState['sizes'];
}

export interface Status {
  readonly level: 'fine' | 'late' | 'failing';
  readonly config: string;
  readonly isServiceRunning: boolean;
  readonly serviceStartedAtMs: number;
  readonly atMs: number;
  readonly configFailure: Failure | undefined;
  /** Patterns and watched folders. */
  readonly entries: readonly EntryState[];
  /** What is wrong with no single target, a sentence each. */
  readonly troubles: readonly string[];
  readonly targets: readonly TargetStatus[];
}

/** How late a copy may be without being late: a run takes time, and waits for others. */
const GRACE_MS = 5 * 60_000;

/** How old the last sign of life of a service may be for it and its followers to count as alive. */
const LIFE_GRACE_MS = 3 * 60_000;

/** How much longer than the last run the one under way may take, times. */
const LONGEST_RUN = 2;

/** How far a time may be ahead before the clock must have gone back. */
const CLOCK_SLACK_MS = 60_000;

/** The exit status of each level, for monitoring. */
export const LEVEL_STATUS = { fine: 0, late: 1, failing: 2 } as const;

/** What the state says at this moment. Pure. */
export function judgeState(state: ServiceState, life: ServiceLife, nowMs: number): Status {
  const isServiceRunning = life === 'runs';
  const { configFailure, entries = [] } = state;
  const targets = Object.entries(state.targets)
    .map(([id, target]) => judgeTarget(id, target, isServiceRunning ? nowMs : state.aliveAtMs, nowMs))
    .toSorted((a, b) => compare(a.origin, b.origin) || compare(a.target, b.target));
  const lost = lossOf(state, life, nowMs);
  const has = (level: Level): boolean => [...targets, ...entries].some((each) => each.level === level);
  const isNothing = !isServiceRunning && targets.length === 0;
  const isLate = has('late') || configFailure !== undefined || lost.length > 0 || isNothing;
  return {
    level: has('failing') ? 'failing' : isLate ? 'late' : 'fine',
    config: state.config,
    isServiceRunning,
    serviceStartedAtMs: state.startedAtMs,
    atMs: nowMs,
    configFailure,
    entries,
    troubles: [
      ...lost,
      ...entries.flatMap(({ entry, why }) => (why === undefined ? [] : `${entry}: ${why}`)),
    ],
    targets,
  };
}

function lossOf({ isRunning, aliveAtMs }: ServiceState, life: ServiceLife, nowMs: number): string[] {
  if (life === 'silent') return ['The service does not answer.'];
  const isLost = life === 'none' && isRunning && nowMs - aliveAtMs > LIFE_GRACE_MS;
  return isLost ? ['The service was killed, and does not run.'] : [];
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function judgeTarget(id: string, state: TargetState, aliveAtMs: number, nowMs: number): TargetStatus {
  const { origin, target, kind, schedule, sizes, moved, snapshot, provenAtMs } = state;
  const [level, why] = levelOf(state, aliveAtMs, nowMs);
  const first = sizes[0];
  const last = sizes.at(-1);
  const isCurrent = kind === 'follow' && state.isFollowing && level === 'fine';
  return {
    id,
    origin,
    target,
    kind,
    schedule,
    level,
    why,
    isRunning: state.runningSinceMs !== undefined,
    isFollowing: isCurrent,
    lastSuccessAtMs: state.successAtMs,
    lagMs: isCurrent
      ? 0
      : state.successAtMs === undefined
        ? undefined
        : Math.max(0, nowMs - state.successAtMs),
    nextRunAtMs: state.isGone ? undefined : state.dueAtMs,
    moved,
    provenAtMs,
    snapshot,
    sizeBytes: last?.[1],
    growthBytes: first === undefined || last === undefined ? undefined : last[1] - first[1],
    sizes,
  };
}

function levelOf(state: TargetState, aliveAtMs: number, nowMs: number): [Level, string | undefined] {
  const { failure, proofFailure } = state;
  if (state.isGone) return ['gone', 'The database is not there any more; its last copy is kept.'];
  if ((state.successAtMs ?? 0) > nowMs + CLOCK_SLACK_MS)
    return ['late', 'The last copy is from the future: the clock was ahead, and was put back since.'];
  if (failure !== undefined) return ['failing', `${failure.message} [${failure.code}]`];
  if (proofFailure !== undefined)
    return [
      'failing',
      `The copy could not be proven restorable: ${proofFailure.message} [${proofFailure.code}]`,
    ];
  if (state.kind === 'follow') {
    const lastSign = state.isFollowing ? aliveAtMs : Math.max(state.successAtMs ?? 0, state.sinceAtMs);
    const isLate = nowMs - lastSign > (state.lateAfterMs ?? LIFE_GRACE_MS);
    return isLate ? ['late', 'Nothing follows the database.'] : ['fine', undefined];
  }
  // Stays at the moment that was missed until a run has succeeded or failed.
  const runMs = state.runningSinceMs === undefined ? 0 : LONGEST_RUN * (state.moved?.durationMs ?? 0);
  const isLate = nowMs - (state.dueAtMs ?? nowMs) > (state.lateAfterMs ?? GRACE_MS + runMs);
  return isLate ? ['late', 'A copy was due, and is not there.'] : ['fine', undefined];
}
