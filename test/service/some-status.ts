import type { Status, TargetStatus } from '../../src/service/state/judge.ts';

export const NOW = 1_800_000_000_000;

/** A replica that is fine. */
export function targetOf(target: Partial<TargetStatus>): TargetStatus {
  return {
    id: '0123456789abcdef',
    origin: '/srv/a.db',
    target: '/copies/a.db',
    kind: 'replica',
    schedule: '15m',
    level: 'fine',
    why: undefined,
    isRunning: false,
    isFollowing: false,
    lastSuccessAtMs: NOW - 60_000,
    lagMs: 60_000,
    nextRunAtMs: NOW + 60_000,
    moved: { bytes: 100, pagesChanged: 3, durationMs: 20 },
    provenAtMs: undefined,
    snapshot: undefined,
    sizeBytes: 8192,
    growthBytes: 4096,
    sizes: [
      [1, 4096],
      [2, 8192],
    ],
    ...target,
  };
}

export function statusOf(targets: readonly TargetStatus[], level: Status['level'] = 'fine'): Status {
  return {
    level,
    config: '/etc/sqlsync.yaml',
    isServiceRunning: true,
    serviceStartedAtMs: NOW - 1000,
    atMs: NOW,
    configFailure: undefined,
    entries: [],
    troubles: [],
    targets,
  };
}
