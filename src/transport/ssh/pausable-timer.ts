/** A time limit that stands still while the user is asked. */
export class PausableTimer {
  #onEnd: (() => void) | undefined;
  #leftMs = 0;
  #startedAt = 0;
  #timer: NodeJS.Timeout | undefined;

  start(limitMs: number, onEnd: () => void): void {
    this.#leftMs = limitMs;
    this.#onEnd = onEnd;
    this.resume();
  }

  pause(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#leftMs = Math.max(0, this.#leftMs - (performance.now() - this.#startedAt));
  }

  /** No effect before `start` and after `stop`. */
  resume(): void {
    if (this.#onEnd === undefined || this.#timer !== undefined) return;
    this.#startedAt = performance.now();
    this.#timer = setTimeout(this.#onEnd, this.#leftMs);
  }

  stop(): void {
    this.pause();
    this.#onEnd = undefined;
  }
}
