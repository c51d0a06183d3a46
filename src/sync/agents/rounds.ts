import { SqlsyncError } from '../../errors.ts';
import type { SnapshotLimits } from '../request/snapshot-limit.ts';

/** After so many rounds in a row without fewer missing pages than the best one, the run gives up. */
const MAX_ROUNDS_WITHOUT_PROGRESS = 3;

/** The state of a round when the origin ended it. */
export interface RoundFigures {
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
  /** Pages not yet known to be right: not compared, or known to differ and not received. */
  readonly pagesMissing: number;
  /** Pages that arrived, and how many of them as deltas. */
  readonly pagesTransferred: number;
  readonly pagesDelta: number;
}

/** The origin ended the round at one of the limits. */
export class RoundOverError extends Error {
  readonly round: RoundFigures;

  constructor(round: RoundFigures) {
    super('the snapshot has come to its limit');
    this.name = 'RoundOverError';
    this.round = round;
  }
}

/**
 * The rounds of one run that reached a limit. They end: except for a few in a row, each must leave fewer pages missing
 * than every one before, or the run gives up.
 */
export class Rounds {
  /** The number of rounds that reached a limit. */
  count = 0;
  longestSnapshotMs = 0;
  largestWalGrowthBytes = 0;
  pagesTransferred = 0;
  pagesDelta = 0;
  readonly #limits: SnapshotLimits;
  #fewestMissing = Infinity;
  #withoutProgress = 0;

  constructor(limits: SnapshotLimits) {
    this.#limits = limits;
  }

  /** Throws SNAPSHOT_LIMIT if another round would make no sense. */
  add(round: RoundFigures): void {
    this.count++;
    this.received(round);
    this.held(round);
    if (round.pagesMissing < this.#fewestMissing) {
      this.#fewestMissing = round.pagesMissing;
      this.#withoutProgress = 0;
    } else if (++this.#withoutProgress >= MAX_ROUNDS_WITHOUT_PROGRESS) throw this.#stalled(round);
  }

  /** Counts what a snapshot without a commit brought, whether or not the next one continues from it. */
  received({ pagesTransferred, pagesDelta }: Pick<RoundFigures, 'pagesTransferred' | 'pagesDelta'>): void {
    this.pagesTransferred += pagesTransferred;
    this.pagesDelta += pagesDelta;
  }

  /** Records a snapshot, also one that reached no limit. */
  held({ snapshotHeldMs, walGrowthBytes }: Pick<RoundFigures, 'snapshotHeldMs' | 'walGrowthBytes'>): void {
    this.longestSnapshotMs = Math.max(this.longestSnapshotMs, snapshotHeldMs);
    this.largestWalGrowthBytes = Math.max(this.largestWalGrowthBytes, walGrowthBytes);
  }

  #stalled(round: RoundFigures): SqlsyncError {
    const { maxSnapshotMs, maxWalGrowthBytes } = this.#limits;
    const limits = [
      ...(maxSnapshotMs > 0 ? [`${maxSnapshotMs / 1000} s`] : []),
      ...(maxWalGrowthBytes > 0 ? [`${maxWalGrowthBytes} bytes of WAL`] : []),
    ].join(' or ');
    const ended = `round ${this.count} ended after ${round.snapshotHeldMs / 1000} s and ${round.walGrowthBytes} bytes of WAL (limit ${limits})`;
    return new SqlsyncError(
      'SNAPSHOT_LIMIT',
      round.pagesTransferred === 0
        ? `A round is too short: ${ended} before a page was sent`
        : `The rounds make no progress: ${ended} with ${round.pagesMissing} pages missing, and the best one before with ${this.#fewestMissing}`,
      {
        hint: 'What has arrived is kept. Allow more with --max-snapshot or --max-wal-growth, or run sqlsync again when programs write less.',
      },
    );
  }
}
