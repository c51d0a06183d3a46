import type { StoreProgress } from '../../backup/types.ts';
import type { WarningKind } from '../../sync/request/announcements.ts';
import type { CopyProgress } from '../../sync/agents/page-copy.ts';
import { formatBytes, formatShare, formatTimeLeft } from './format.ts';
import type { Output } from './output.ts';
import { cutToColumns } from './wrap.ts';

/** The time between two updates of the line, in milliseconds. */
const INTERVAL_MS = 100;

/** A short sync should not flash a line that is gone before it can be read. */
const FIRST_AFTER_MS = 300;

/** The time between two progress events with `--json`, in milliseconds. */
const JSON_INTERVAL_MS = 1000;

const CLEAR_LINE = '\r\u001b[K';

type Activity = 'comparing' | 'copying' | 'committing';

/** The last line of the terminal, which is overwritten again and again. */
class StatusLine {
  readonly #output: Output;
  readonly #startedAt = performance.now();
  #shownAt = 0;
  #shown = false;

  constructor(output: Output) {
    this.#output = output;
    output.beforeWrite = () => this.clear();
  }

  /** True if it is time to show something: not at once, and not too often. */
  get isDue(): boolean {
    const now = performance.now();
    if (now - this.#startedAt < FIRST_AFTER_MS || now - this.#shownAt < INTERVAL_MS) return false;
    this.#shownAt = now;
    return true;
  }

  show(text: string): void {
    this.#shown = true;
    // 0 on a terminal that does not report its size.
    const columns = process.stderr.columns || 80;
    process.stderr.write(`${CLEAR_LINE}${cutToColumns(text, columns - 1)}`);
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
}

/** One line on the terminal with the progress of a sync, its speed and the remaining time. */
export class ProgressLine {
  readonly #line: StatusLine;
  #activity: Activity | undefined;
  #activityAt = 0;
  #doneAtStart = 0;
  #comparedAtStart = 0;

  constructor(output: Output) {
    this.#line = new StatusLine(output);
  }

  update(progress: CopyProgress): void {
    const activity = activityOf(progress);
    const now = performance.now();
    if (activity !== this.#activity) {
      this.#activity = activity;
      this.#activityAt = now;
      this.#doneAtStart = done(progress);
      this.#comparedAtStart = progress.pagesCompared;
    }
    if (this.#line.isDue) this.#line.show(this.#describe(progress, now));
  }

  clear(): void {
    this.#line.clear();
  }

  end(): void {
    this.#line.end();
  }

  #describe(progress: CopyProgress, now: number): string {
    const activity = activityOf(progress);
    if (activity === 'committing') return activity;
    const { pageSize } = progress;
    const pagesPerMs = (done(progress) - this.#doneAtStart) / Math.max(1, now - this.#activityAt);
    const rate = pagesPerMs > 0 ? `, ${formatBytes(pagesPerMs * 1000 * pageSize)}/s` : '';
    if (activity === 'copying' && progress.phase === 'compare') {
      const compared = formatShare(progress.pagesCompared, progress.pageCount);
      // Pages are copied while they are compared, so the pages not compared yet are what is left.
      const comparedPerMs =
        (progress.pagesCompared - this.#comparedAtStart) / Math.max(1, now - this.#activityAt);
      const timeLeft = leftAt(comparedPerMs, progress.pageCount - progress.pagesCompared);
      return `copying: ${formatBytes(done(progress) * pageSize)} copied, ${compared} compared${rate}${timeLeft}`;
    }
    const total = activity === 'comparing' ? progress.pageCount : progress.pagesWanted;
    const left = total - done(progress);
    const timeLeft = leftAt(pagesPerMs, left);
    const found = activity === 'comparing' ? `, ${progress.pagesWanted} differ` : '';
    return `${activity} ${formatShare(done(progress), total)} of ${formatBytes(total * pageSize)}${found}${rate}${timeLeft}`;
  }
}

function leftAt(pagesPerMs: number, pages: number): string {
  return pagesPerMs > 0 ? `, ${formatTimeLeft(pages / pagesPerMs)} left` : '';
}

/** Listeners of a running copy that show its progress to the user. */
export interface CopyListeners {
  onWarning(warning: string, kind: WarningKind): void;
  onNote(note: string): void;
  onProgress(progress: CopyProgress): void;
  /** Removes the progress line. */
  end(): void;
}

export function copyListeners(output: Output): CopyListeners {
  const { json } = output.options;
  const line = showsProgress(output) ? new ProgressLine(output) : undefined;
  let nextAt = 0;
  return {
    onWarning: (warning, kind) => output.warning(warning, kind),
    onNote: (note) => output.note(note),
    onProgress(progress) {
      line?.update(progress);
      if (!json || performance.now() < nextAt) return;
      nextAt = performance.now() + JSON_INTERVAL_MS;
      output.json({ type: 'progress', ...progress });
    },
    end: () => line?.end(),
  };
}

/** Listeners of work on a store. */
export interface StoreListeners {
  onProgress(progress: StoreProgress): void;
  /** Removes the line. */
  end(): void;
}

const STORE_PHASES = { read: 'reading', write: 'writing', delete: 'deleting' } as const;

export function storeListeners(output: Output): StoreListeners {
  const { json } = output.options;
  const line = showsProgress(output) ? new StatusLine(output) : undefined;
  let nextAt = 0;
  return {
    onProgress(progress) {
      const { phase, done: count, total } = progress;
      if (line?.isDue === true) line.show(`${STORE_PHASES[phase]} ${formatShare(count, total)} of ${total}`);
      if (!json || performance.now() < nextAt) return;
      nextAt = performance.now() + JSON_INTERVAL_MS;
      output.json({ type: 'progress', ...progress });
    },
    end: () => line?.end(),
  };
}

/** Listeners of a file that is sent whole. */
export interface TransferListeners {
  onProgress(sentBytes: number, sizeBytes: number): void;
  /** Removes the line. */
  end(): void;
}

export function transferListeners(output: Output): TransferListeners {
  const line = showsProgress(output) ? new StatusLine(output) : undefined;
  return {
    onProgress(sentBytes, sizeBytes) {
      if (line?.isDue === true)
        line.show(`sending ${formatShare(sentBytes, sizeBytes)} of ${formatBytes(sizeBytes)}`);
    },
    end: () => line?.end(),
  };
}

function showsProgress({ options }: Output): boolean {
  return process.stderr.isTTY && !options.json && options.verbosity !== 'quiet';
}

/** Pages arrive while others are still compared; from the first one on, they say more. */
function activityOf({ phase, pagesReceived }: CopyProgress): Activity {
  if (phase === 'commit') return 'committing';
  return phase === 'compare' && pagesReceived === 0 ? 'comparing' : 'copying';
}

function done(progress: CopyProgress): number {
  return activityOf(progress) === 'comparing' ? progress.pagesCompared : progress.pagesReceived;
}
