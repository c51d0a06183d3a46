/** The time that one database may take; it may be stopped, and begin anew. */
export class Deadline {
  readonly #onOver: (limitMs: number) => void;
  #limitMs = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(onOver: (limitMs: number) => void) {
    this.#onOver = onOver;
  }

  /** Begins anew, with a limit in milliseconds or the last one; 0 means no limit. */
  start(limitMs: number = this.#limitMs): void {
    this.stop();
    this.#limitMs = limitMs;
    if (limitMs > 0) this.#timer = setTimeout(() => this.#onOver(limitMs), limitMs).unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
