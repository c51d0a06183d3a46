import { lstatSync } from 'node:fs';
import { besideReplica, readOwnMark } from '../../beside/mark.ts';
import { resolveReplica } from '../../replica/replica-links.ts';
import type { QuickOptions } from '../quick/quick-check.ts';
import { QuickCheck } from '../quick/quick-check.ts';
import type { Look, Looker } from './look.ts';

/** A replica, and the origin as this host names it. */
export interface LikelyCopy {
  readonly replica: string;
  readonly originName: string;
  /** From a look at the origin. */
  readonly originStamp: Uint8Array;
}

/** What a comparison has to be, so that it counts. */
export type LastingComparison = Pick<QuickOptions, 'hash' | 'fullEveryMs'>;

/**
 * The quick check of one of many: a look at the replica, if it is an exact copy of the origin with this stamp. Undefined
 * if a sync has to find out, also if it has anything to do beside the replica. Changes nothing; never throws.
 */
export function lookAtKnownCopy(
  { replica, originName, originStamp }: LikelyCopy,
  how: LastingComparison,
  looker: Looker,
): Look | undefined {
  try {
    const replicaPath = resolveReplica(replica, false);
    const quick = new QuickCheck({ ...how, replicaPath, originName, full: false, check: false });
    if (originStamp.length === 0 || Buffer.compare(quick.originStamp, originStamp) !== 0) return undefined;
    if (readOwnMark(replicaPath)?.originName !== originName || hasLeftover(replicaPath)) return undefined;
    const look = looker.look(replicaPath);
    return quick.isCopy(look?.stamp) ? look : undefined;
  } catch {
    return undefined;
  }
}

function hasLeftover(path: string): boolean {
  return (['-part', '-spool', '-lock', '-mode'] as const).some(
    (suffix) => lstatSync(besideReplica(path, suffix), { throwIfNoEntry: false }) !== undefined,
  );
}
