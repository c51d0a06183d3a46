/** The longest pause between signs of life. */
const MAX_INTERVAL_MS = 5000;

/** Ticks per limit of silence: so many signs may go missing before the peer counts as lost. */
const TICKS_PER_LIMIT = 12;

/** How much more patient an agent is after the peer said that its work may block it. */
export const PATIENCE_FACTOR = 10;

/** A floor for rounded intervals, and for unreasonably small limits. */
const MIN_INTERVAL_MS = 10;

export interface HeartbeatLine {
  /** Sends a sign of life. */
  sendSign(): void;
  /** False while this side does not read: then the silence is its own doing. */
  isListening(): boolean;
  /** True if the peer may be silent for {@link PATIENCE_FACTOR} times as long. */
  isPeerBusy(): boolean;
  /** The peer was silent, or did not greet, for `silentMs` milliseconds; called once. */
  onLost(silentMs: number, why: 'silent' | 'ungreeted'): void;
}

/**
 * Keeps both directions of a connection alive, and notices when the peer is not.
 *
 *     every tick:  nothing sent since the last one?      send a sign
 *                  nothing received since the last one?  one tick more of silence ──► enough of them: lost
 *                  not greeted yet?                      one tick more, whatever else came ──► the same
 *
 * It counts ticks and not time: a process that was stopped, suspended or blocked itself has one late tick, and does not
 * take that for silence of the peer.
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
  #ungreetedTicks = 0;
  /** How long the greeting may take, in milliseconds; undefined once it has come. */
  #greetingMs: number | undefined;

  /**
   * `limitMs` is the silence after which the peer is lost; 0 means no limit. Until `onGreeted`, `greetingMs` holds in
   * its place if given. It is not a limit of silence: a login shell may print something now and then.
   */
  constructor(line: HeartbeatLine, limitMs: number, greetingMs?: number) {
    this.#line = line;
    this.#greetingMs = greetingMs;
    this.limitMs = limitMs;
  }

  get limitMs(): number {
    return this.#limitMs;
  }

  set limitMs(limitMs: number) {
    this.#limitMs = limitMs;
    if (this.#stopped) return;
    clearInterval(this.#timer);
    const limits = [limitMs, this.#greetingMs ?? 0].filter((ms) => ms > 0);
    const wanted = Math.ceil(Math.min(...limits, Infinity) / TICKS_PER_LIMIT);
    this.#intervalMs = Math.min(Math.max(wanted, MIN_INTERVAL_MS), MAX_INTERVAL_MS);
    this.#silentTicks = 0;
    this.#timer = setInterval(() => this.#tick(), this.#intervalMs);
  }

  /** The peer has greeted. */
  onGreeted(): void {
    if (this.#greetingMs === undefined) return;
    this.#greetingMs = undefined;
    this.limitMs = this.#limitMs;
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
    if (this.#greetingMs !== undefined) return this.#tickUngreeted(this.#greetingMs);
    if (this.#limitMs === 0) return;
    const silentMs = this.#silentTicks * this.#intervalMs;
    if (silentMs < this.#limitMs * (this.#line.isPeerBusy() ? PATIENCE_FACTOR : 1)) return;
    this.stop();
    this.#line.onLost(silentMs, 'silent');
  }

  #tickUngreeted(greetingMs: number): void {
    this.#ungreetedTicks++;
    const waitedMs = this.#ungreetedTicks * this.#intervalMs;
    if (greetingMs === 0 || waitedMs < greetingMs) return;
    this.stop();
    this.#line.onLost(waitedMs, 'ungreeted');
  }
}
