import { SqlsyncError } from '../../errors.ts';
import type { SnapshotLimits } from './snapshot-limit.ts';

/** Rounds that may pass without coming nearer to the end than the best one before. */
const MAX_ROUNDS_WITHOUT_PROGRESS = 3;

/** A round as it was when the origin ended it. */
export interface RoundFigures {
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
  /** Pages that were not yet known to be right: not compared, or known to differ and not received. */
  readonly pagesMissing: number;
  /** Pages that arrived, and those of them that came as deltas. */
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
 * The rounds of one run that came to a limit. They end: each has to leave fewer pages missing than any before it, but
 * for a few in a row, or it is given up.
 */
export class Rounds {
  /** All that came to a limit. */
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

  /** Counts what came of a snapshot that was not committed, whether or not the next one goes on from it. */
  received({ pagesTransferred, pagesDelta }: Pick<RoundFigures, 'pagesTransferred' | 'pagesDelta'>): void {
    this.pagesTransferred += pagesTransferred;
    this.pagesDelta += pagesDelta;
  }

  /** Takes note of a snapshot, also of one that came to no limit. */
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
        ? `The comparison alone takes longer than a round may: ${ended} before a page was sent`
        : `The rounds come no nearer to their end: ${ended} with ${round.pagesMissing} pages missing, the best before it with ${this.#fewestMissing}`,
      {
        hint: 'What has arrived is kept. Allow more with --max-snapshot or --max-wal-growth, or run it again when less is written.',
      },
    );
  }
}
