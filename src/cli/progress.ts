import type { CopyProgress } from '../sync/page-copy.ts';
import { formatBytes, formatDuration, formatShare } from './format.ts';
import type { Output } from './output.ts';

/** Between two updates of the line, in milliseconds. */
const INTERVAL_MS = 100;

/** A short sync should not flash a line that nobody can read. */
const FIRST_AFTER_MS = 300;

const CLEAR_LINE = '\r\u001b[K';

/** One line on the terminal that tells how far a sync is, how fast it goes and how long it will still take. */
export class ProgressLine {
  readonly #output: Output;
  readonly #startedAt = performance.now();
  #phase: CopyProgress['phase'] | undefined;
  #phaseAt = 0;
  #doneAtPhase = 0;
  #shownAt = 0;
  #shown = false;

  constructor(output: Output) {
    this.#output = output;
    output.beforeWrite = () => this.clear();
  }

  update(progress: CopyProgress): void {
    const { pageSize } = progress;
    const now = performance.now();
    if (progress.phase !== this.#phase) {
      this.#phase = progress.phase;
      this.#phaseAt = now;
      this.#doneAtPhase = done(progress);
    }
    if (now - this.#startedAt < FIRST_AFTER_MS || now - this.#shownAt < INTERVAL_MS) return;
    this.#shownAt = now;
    this.#show(this.#describe(progress, pageSize, now));
  }

  clear(): void {
    if (!this.#shown) return;
    this.#shown = false;
    process.stderr.write(CLEAR_LINE);
  }

  /** Detaches from the output. */
  end(): void {
    this.clear();
    this.#output.beforeWrite = () => {};
  }

  #describe(progress: CopyProgress, pageSize: number, now: number): string {
    if (progress.phase === 'commit') return 'committing';
    const total = progress.phase === 'compare' ? progress.pageCount : progress.pagesWanted;
    const pagesPerMs = (done(progress) - this.#doneAtPhase) / Math.max(1, now - this.#phaseAt);
    const left = total - done(progress);
    const rate = `${formatBytes(pagesPerMs * 1000 * pageSize)}/s`;
    const timeLeft = pagesPerMs > 0 ? `, ${formatDuration(left / pagesPerMs)} left` : '';
    const what = progress.phase === 'compare' ? 'comparing' : 'copying';
    const found = progress.phase === 'compare' ? `, ${progress.pagesWanted} differ` : '';
    return `${what} ${formatShare(done(progress), total)} of ${formatBytes(total * pageSize)}${found}, ${rate}${timeLeft}`;
  }

  #show(text: string): void {
    this.#shown = true;
    const columns = process.stderr.columns ?? 80;
    process.stderr.write(`${CLEAR_LINE}${text.slice(0, columns - 1)}`);
  }
}

function done(progress: CopyProgress): number {
  return progress.phase === 'compare' ? progress.pagesCompared : progress.pagesReceived;
}
