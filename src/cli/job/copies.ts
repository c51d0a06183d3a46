import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import type { CopyFigures } from './metrics.ts';

export type CopyLabels = Readonly<Record<string, string>>;

/** One item of a job: a sync, or the backup of one database. */
export interface Copy {
  readonly labels: CopyLabels;
  readonly exitStatus: number;
  readonly durationMs: number;
  /** undefined if it failed. */
  readonly figures: CopyFigures | undefined;
}

/** The copies of one run of a job. The metrics list every expected copy, even if the run ended before it. */
export class Copies {
  #expected: readonly CopyLabels[];
  readonly #done: Copy[] = [];

  /** What a run means of which some copies failed: a status of its own, or the highest of all. */
  readonly #partial: 'partial' | 'highest';

  constructor(expected: readonly CopyLabels[], partial: 'partial' | 'highest' = 'partial') {
    this.#expected = expected;
    this.#partial = partial;
  }

  /** Replaces the expected copies once the run knows them better. */
  expect(labels: readonly CopyLabels[]): void {
    this.#expected = labels;
  }

  report(copy: Copy): void {
    this.#done.push(copy);
  }

  /** The exit status of a run that was completed. */
  get exitStatus(): number {
    if (this.#partial === 'highest')
      return Math.max(EXIT_OK, ...this.#done.map(({ exitStatus }) => exitStatus));
    const failed = this.#done.filter(({ exitStatus }) => exitStatus !== EXIT_OK);
    if (failed.length > 0 && failed.length < this.#done.length) return exitStatusOf('BACKUP_PARTIAL');
    return failed[0]?.exitStatus ?? EXIT_OK;
  }

  get done(): readonly Copy[] {
    return this.#done;
  }

  /**
   * All copies of a run that ended with an error after `durationMs`: those that were not made, and those that were,
   * with the exit status of the run.
   */
  endedBy(exitStatus: number, durationMs: number): Copy[] {
    const made = this.#done.map((copy) => (copy.exitStatus === EXIT_OK ? { ...copy, exitStatus } : copy));
    const reported = new Set(this.#done.map(({ labels }) => JSON.stringify(labels)));
    const missing = this.#expected.filter((labels) => !reported.has(JSON.stringify(labels)));
    return [...made, ...missing.map((labels) => ({ labels, exitStatus, durationMs, figures: undefined }))];
  }
}
