/** How often to look at the -wal file. */
const WAL_INTERVAL_MS = 50;

/** Node.js turns a longer timer into one of 1 ms. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The limits that end a round of a copy in rounds; 0 means no limit. */
export interface SnapshotLimits {
  /** How long the origin's read transaction may be open. */
  readonly maxSnapshotMs: number;
  /** How much the origin's -wal file may grow meanwhile. */
  readonly maxWalGrowthBytes: number;
}

export const NO_SNAPSHOT_LIMITS: SnapshotLimits = { maxSnapshotMs: 0, maxWalGrowthBytes: 0 };

export function hasLimits({ maxSnapshotMs, maxWalGrowthBytes }: SnapshotLimits): boolean {
  return maxSnapshotMs > 0 || maxWalGrowthBytes > 0;
}

/**
 * Calls `onOver` once when `snapshot` reaches one of its limits, even if no question comes meanwhile, or `onFailure`
 * with the error of a look at it. Returns a function that ends the watch.
 */
export function watchSnapshot(
  snapshot: { readonly heldMs: number; readonly walGrowthBytes: number },
  { maxSnapshotMs, maxWalGrowthBytes }: SnapshotLimits,
  { onOver, onFailure }: { onOver: () => void; onFailure: (error: unknown) => void },
): () => void {
  let age: NodeJS.Timeout | undefined;
  let growth: NodeJS.Timeout | undefined;
  const stop = (): void => {
    clearTimeout(age);
    clearInterval(growth);
  };
  const over = (): void => {
    stop();
    try {
      onOver();
    } catch (error) {
      onFailure(error);
    }
  };
  if (maxSnapshotMs > 0) {
    age = setTimeout(over, Math.min(Math.max(0, maxSnapshotMs - snapshot.heldMs), MAX_TIMER_MS));
  }
  if (maxWalGrowthBytes > 0) {
    growth = setInterval(() => {
      try {
        if (snapshot.walGrowthBytes >= maxWalGrowthBytes) over();
      } catch (error) {
        stop();
        onFailure(error);
      }
    }, WAL_INTERVAL_MS);
  }
  return stop;
}
