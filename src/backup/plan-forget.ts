import { formatCalendarTime } from './calendar-time.ts';
import { applyRetention } from './retention.ts';
import type { RetentionPolicy } from './retention.ts';
import type { StoreSnapshot } from './types.ts';

/** What a policy says of the snapshots of one database (host and path); both lists newest first. */
export interface ForgetGroup {
  readonly host: string;
  readonly path: string;
  /** With the rules that keep each: `daily snapshot`, `within 7d`, `has tags [release]`. */
  readonly keep: readonly { readonly snapshot: StoreSnapshot; readonly reasons: readonly string[] }[];
  readonly remove: readonly StoreSnapshot[];
}

/**
 * Says which snapshots `policy` keeps, and why; forgets nothing. Each database is taken by itself. Days and weeks are those of this
 * machine's clock: a store records none of the origin's.
 *
 * Throws SqlsyncError USAGE for a policy that is empty, or that would leave a database without any snapshot.
 */
export function planForget(snapshots: readonly StoreSnapshot[], policy: RetentionPolicy): ForgetGroup[] {
  const dated = snapshots.map((snapshot) => {
    const { id, host, path, tags } = snapshot;
    return { id, host, path, tags, time: formatCalendarTime(snapshot.time), snapshot };
  });
  return applyRetention(dated, policy).map(({ host, path, keep, remove }) => ({
    host,
    path,
    keep: keep.map((each) => ({ snapshot: each.snapshot.snapshot, reasons: each.reasons })),
    remove: remove.map(({ snapshot }) => snapshot),
  }));
}
