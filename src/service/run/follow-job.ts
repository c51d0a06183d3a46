import { setTimeout as delay } from 'node:timers/promises';
import { follow } from '../../library/sync.ts';
import type { FollowOptions } from '../../sync/follow/follow.ts';
import { copyOptionsOf, remoteOptionsOf } from '../../cli/options/common-options.ts';
import { parseDuration } from '../../cli/options/quantities.ts';
import { camelCase } from '../../cli/options/command.ts';
import { REMOTE_DEFAULTS } from '../config/schema.ts';
import type { Job } from '../jobs/job.ts';
import { syncResult } from '../jobs/run-job.ts';
import { withoutSecrets } from '../state/state.ts';
import type { Failure } from '../state/state.ts';
import type { FollowerStarts } from './follower-starts.ts';
import type { TargetStates } from './target-states.ts';

interface FollowListeners {
  onFollowing(): void;
  /** Called for the first failure, and not again before it follows. */
  onFailed(failure: Failure): void;
  onWarning(text: string): void;
}

/** The pause before a follower that gave up is started again, in milliseconds. */
const PAUSE_MS = 60_000;

/** Keeps a replica following until `signal` aborts. Never rejects. */
export async function followJob(
  job: Job,
  states: TargetStates,
  starts: FollowerStarts,
  signal: AbortSignal,
  listeners: FollowListeners,
): Promise<void> {
  let isTold = false;
  let isFollowing = false;
  const fail = (error: unknown): void => {
    const failure = states.followsNoMore(job.id, error, Date.now());
    if (!isTold) listeners.onFailed(failure);
    isTold = true;
    isFollowing = false;
  };
  while (!signal.aborted) {
    try {
      if (job.error !== undefined) throw job.error;
      await starts.turn(signal);
      await follow({
        ...followOptions(job),
        signal,
        onStep(step) {
          states.follows(job.id, step.atMs - step.durationMs, syncResult(step));
          if (!isFollowing) listeners.onFollowing();
          isFollowing = true;
          isTold = false;
        },
        onFailure: ({ failure }) => fail(failure),
        onWarning: (text) => listeners.onWarning(withoutSecrets(`${job.target.place}: ${text}`)),
      });
    } catch (error) {
      if (signal.aborted) break;
      fail(error);
    }
    // Not all at the same moment, if a host of many went away. Also after one that ended without a reason.
    const pauseMs = PAUSE_MS * (0.5 + Math.random());
    await delay(pauseMs, undefined, { signal }).catch(() => {});
  }
  states.followerEnded(job.id);
}

/** The options of `sqlsync follow`, for the library. */
function followOptions({ origin, target }: Job): FollowOptions {
  const args = Object.fromEntries(
    Object.entries(target.options).map(([name, value]) => [camelCase(name), value]),
  );
  const { interval, compress } = args as { interval?: string; compress?: FollowOptions['compress'] };
  const given = { ...REMOTE_DEFAULTS, ...args } as unknown as Parameters<typeof remoteOptionsOf>[0];
  const { maxTimeMs: _maxTime, ...remote } = remoteOptionsOf({ ...given, maxTime: undefined });
  return {
    origin,
    replica: target.place,
    ...(compress === undefined ? {} : { compress }),
    ...(interval === undefined ? {} : { intervalMs: Math.max(10, parseDuration('interval', interval)) }),
    ...copyOptionsOf(args),
    ...remote,
  };
}
