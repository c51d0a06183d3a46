import { MAX_OUTSTANDING_PAGE_BYTES } from '../../../protocol/limits.ts';

/** Bytes of whole pages that are compressed before the first judgement, so that a small change stays small. */
const FIRST_BYTES = 32 * 1024 * 1024;

/** A judgement covers so many bytes of whole pages. */
const MEASURED_BYTES = 16 * 1024 * 1024;

/** What was under way when the way changed still passes in the old way, so it is not measured. */
const SETTLING_BYTES = MAX_OUTSTANDING_PAGE_BYTES;

/** A sender that works for less of the time waits for the line: compression then costs nothing. */
const BUSY_SHARE = 1 / 3;

/** How much faster pages have to pass uncompressed in a trial. Later they only must not become slower. */
const TRIAL_GAIN = 1.1;

/** Judgements between two trials, doubled after each that failed. */
const TRIAL_PAUSE_MIN = 4;
const TRIAL_PAUSE_MAX = 64;

/**
 * Decides batch by batch whether whole pages are compressed, by how fast they pass between the two agents.
 *
 *     zstd ── the sender is busy: a trial ──► none ── no faster than zstd was ──► zstd, a pause before the next trial
 *
 * The rate counts all that may bound it: the line, the other agent, and this process. A sender that mostly waits makes no
 * trial, so that a slow line carries compressed pages only.
 */
export class CompressionChoice {
  readonly #now: () => number;
  #mode: 'zstd' | 'none' = 'zstd';
  /** Bytes sent since the last judgement. */
  #bytes = 0;
  #measuredFrom = SETTLING_BYTES;
  #measuredTo = FIRST_BYTES;
  #since = 0;
  #busyMs = 0;
  #startedAt = 0;
  /** Bytes per millisecond, when pages were last compressed. */
  #zstdRate = 0;
  #isTrial = true;
  #judgementsToTrial = 0;
  #trialPause = TRIAL_PAUSE_MIN;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /** How to send the next whole pages, which are `bytes` long. Call `end` when they are ready to be sent. */
  begin(bytes: number): 'zstd' | 'none' {
    this.#startedAt = this.#now();
    const isMeasured = this.#bytes >= this.#measuredFrom;
    const elapsedMs = this.#startedAt - this.#since;
    const isLate = this.#mode === 'none' && elapsedMs * this.#zstdRate > MEASURED_BYTES;
    if (isMeasured && (isLate || this.#bytes >= this.#measuredTo)) this.#judge(elapsedMs);
    if (this.#bytes <= this.#measuredFrom) {
      this.#since = this.#startedAt;
      this.#busyMs = 0;
    }
    this.#bytes += bytes;
    return this.#mode;
  }

  end(): void {
    this.#busyMs += this.#now() - this.#startedAt;
  }

  #judge(elapsedMs: number): void {
    const rate = (this.#bytes - this.#measuredFrom) / Math.max(1, elapsedMs);
    if (this.#mode === 'zstd') {
      this.#zstdRate = rate;
      this.#judgementsToTrial--;
      const isDue = this.#judgementsToTrial <= 0 && this.#busyMs > elapsedMs * BUSY_SHARE;
      return this.#enter(isDue ? 'none' : 'zstd', isDue);
    }
    if (rate > this.#zstdRate * (this.#isTrial ? TRIAL_GAIN : 1)) {
      this.#trialPause = TRIAL_PAUSE_MIN;
      return this.#enter('none', false);
    }
    this.#judgementsToTrial = this.#trialPause;
    this.#trialPause = Math.min(this.#trialPause * 2, TRIAL_PAUSE_MAX);
    return this.#enter('zstd', false);
  }

  #enter(mode: 'zstd' | 'none', isTrial: boolean): void {
    const isChange = mode !== this.#mode;
    this.#mode = mode;
    this.#isTrial = isTrial;
    this.#bytes = 0;
    this.#measuredFrom = isChange ? SETTLING_BYTES : 0;
    this.#measuredTo = this.#measuredFrom + MEASURED_BYTES;
  }
}
