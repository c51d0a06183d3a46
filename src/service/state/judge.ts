import type { Failure, ServiceState, TargetState } from './state.ts';

/** How a copy stands against its schedule; `gone` is a database that is not there any more. */
export type Level = 'fine' | 'late' | 'failing' | 'gone';

export interface TargetStatus {
  readonly origin: string;
  readonly target: string;
  readonly kind: TargetState['kind'];
  readonly schedule: string;
  readonly level: Level;
  /** A sentence if it is not fine. */
  readonly why: string | undefined;
  readonly isRunning: boolean;
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
  readonly targets: readonly TargetStatus[];
}

/** How late a copy may be without being late: a run takes time, and waits for others. */
const GRACE_MS = 5 * 60_000;

/** How old the last sign of life of a service may be for its followers to count as alive. */
const FOLLOW_GRACE_MS = 3 * 60_000;

/** The exit status of each level, for monitoring. */
export const LEVEL_STATUS = { fine: 0, late: 1, failing: 2 } as const;

/** What the state says at this moment. Pure. */
export function judgeState(state: ServiceState, isServiceRunning: boolean, nowMs: number): Status {
  const targets = Object.values(state.targets)
    .map((target) => judgeTarget(target, isServiceRunning ? nowMs : state.aliveAtMs, nowMs))
    .toSorted((a, b) => compare(a.origin, b.origin) || compare(a.target, b.target));
  const has = (level: Level): boolean => targets.some((target) => target.level === level);
  const isLate =
    has('late') || state.configFailure !== undefined || (!isServiceRunning && targets.length === 0);
  return {
    level: has('failing') ? 'failing' : isLate ? 'late' : 'fine',
    config: state.config,
    isServiceRunning,
    serviceStartedAtMs: state.startedAtMs,
    atMs: nowMs,
    configFailure: state.configFailure,
    targets,
  };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

function judgeTarget(state: TargetState, aliveAtMs: number, nowMs: number): TargetStatus {
  const { origin, target, kind, schedule, sizes, moved, snapshot, provenAtMs } = state;
  const [level, why] = levelOf(state, aliveAtMs, nowMs);
  const first = sizes[0];
  const last = sizes.at(-1);
  const isCurrent = kind === 'follow' && state.isFollowing && level === 'fine';
  return {
    origin,
    target,
    kind,
    schedule,
    level,
    why,
    isRunning: state.runningSinceMs !== undefined,
    lastSuccessAtMs: state.successAtMs,
    lagMs: isCurrent
      ? 0
      : state.successAtMs === undefined
        ? undefined
        : Math.max(0, nowMs - state.successAtMs),
    nextRunAtMs: state.dueAtMs,
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
  if (failure !== undefined) return ['failing', `${failure.message} [${failure.code}]`];
  if (proofFailure !== undefined)
    return [
      'failing',
      `The copy could not be proven restorable: ${proofFailure.message} [${proofFailure.code}]`,
    ];
  if (state.kind === 'follow') {
    const lastSign = state.isFollowing ? aliveAtMs : Math.max(state.successAtMs ?? 0, state.sinceAtMs);
    const isLate = nowMs - lastSign > (state.lateAfterMs ?? FOLLOW_GRACE_MS);
    return isLate ? ['late', 'Nothing follows the database.'] : ['fine', undefined];
  }
  // Stays at the moment that was missed until a run has succeeded or failed.
  const isLate = nowMs - (state.dueAtMs ?? nowMs) > (state.lateAfterMs ?? GRACE_MS);
  return isLate ? ['late', 'A copy was due, and is not there.'] : ['fine', undefined];
}
