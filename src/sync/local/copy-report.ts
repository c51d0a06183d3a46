import type { PageSource } from '../../pages/page-source.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import type { CopyProgress } from '../agents/page-copy.ts';

const PROGRESS_INTERVAL_MS = 100;

/** Reports the progress of a copy that this process makes without agents, in the form in which an agent reports it. */
export class CopyReport {
  readonly #source: PageSource;
  readonly #onProgress: ((progress: CopyProgress) => void) | undefined;
  #nextAt = 0;

  constructor(source: PageSource, onProgress: ((progress: CopyProgress) => void) | undefined) {
    this.#source = source;
    this.#onProgress = onProgress;
  }

  /** These pages were copied. */
  run(first: PageNumber, bytes: Uint8Array): void {
    if (performance.now() < this.#nextAt) return;
    this.#nextAt = performance.now() + PROGRESS_INTERVAL_MS;
    this.#report('transfer', first - 1 + bytes.length / this.#source.pageSize);
  }

  /** All pages were copied; they become durable next. */
  end(): void {
    this.#report('commit', this.#source.pageCount);
  }

  #report(phase: CopyProgress['phase'], pagesReceived: number): void {
    const { pageSize, pageCount } = this.#source;
    this.#onProgress?.({
      phase,
      pageSize,
      pageCount,
      pagesCompared: 0,
      pagesWanted: pageCount,
      pagesReceived,
    });
  }
}
