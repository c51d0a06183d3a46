/** Signs of life at least this often. */
const MAX_INTERVAL_MS = 5000;

/** Signs that may go missing, and more, before the peer counts as lost. */
const TICKS_PER_LIMIT = 12;

/** How much more patient an agent is while the peer opens a database or commits, which may block its process. */
export const PATIENCE_FACTOR = 10;

/** Of intervals that are rounded, and of limits that nobody means. */
const MIN_INTERVAL_MS = 10;

export interface HeartbeatLine {
  /** Sends a sign of life. */
  sendSign(): void;
  /** False while this side does not take what comes: then silence is its own doing. */
  isListening(): boolean;
  /** True where the peer may be silent for {@link PATIENCE_FACTOR} times as long. */
  isPeerBusy(): boolean;
  /** The peer was silent for `silentMs` milliseconds; called once. */
  onLost(silentMs: number): void;
}

/**
 * Keeps both directions of a connection alive, and notices when the peer is not.
 *
 *     every tick:  nothing sent since the last one?      send a sign
 *                  nothing received since the last one?  one tick more of silence ──► enough of them: lost
 *
 * Silence is counted in ticks and not in time: a process that was stopped, suspended or blocked itself has one tick
 * late, and not a peer that was silent meanwhile.
 */
export class Heartbeat {
  readonly #line: HeartbeatLine;
  #limitMs = 0;
  #intervalMs = MAX_INTERVAL_MS;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #sent = false;
  #received = false;
  #silentTicks = 0;

  /** `limitMs` is the silence after which the peer is lost; 0 is for ever. */
  constructor(line: HeartbeatLine, limitMs: number) {
    this.#line = line;
    this.limitMs = limitMs;
  }

  get limitMs(): number {
    return this.#limitMs;
  }

  set limitMs(limitMs: number) {
    this.#limitMs = limitMs;
    if (this.#stopped) return;
    clearInterval(this.#timer);
    const wanted = limitMs === 0 ? MAX_INTERVAL_MS : Math.ceil(limitMs / TICKS_PER_LIMIT);
    this.#intervalMs = Math.min(Math.max(wanted, MIN_INTERVAL_MS), MAX_INTERVAL_MS);
    this.#silentTicks = 0;
    this.#timer = setInterval(() => this.#tick(), this.#intervalMs);
  }

  onSent(): void {
    this.#sent = true;
  }

  onReceived(): void {
    this.#received = true;
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
  }

  #tick(): void {
    if (!this.#sent) this.#line.sendSign();
    this.#sent = false;
    this.#silentTicks = this.#received || !this.#line.isListening() ? 0 : this.#silentTicks + 1;
    this.#received = false;
    if (this.#limitMs === 0) return;
    const silentMs = this.#silentTicks * this.#intervalMs;
    if (silentMs < this.#limitMs * (this.#line.isPeerBusy() ? PATIENCE_FACTOR : 1)) return;
    this.stop();
    this.#line.onLost(silentMs);
  }
}
