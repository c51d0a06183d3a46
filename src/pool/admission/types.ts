/**
 * The queue for the writer's place among the processes that have one database open. It is a courtesy: SQLite's lock
 * decides, and programs that do not queue still work, by retrying.
 */
export interface Admission {
  /** True if no other process is known to queue: just try. Costs nanoseconds. */
  readonly isCalm: boolean;
  /**
   * Waits for this process's turn, first come, first served among the processes. One at a time: leave the previous turn
   * first. Rejects with the reason of `signal` when that aborts, and with CLOSED at {@link close}.
   */
  enter(signal?: AbortSignal): Promise<Turn>;
  /** Tells those who listen, a moment later, that this process may have committed. Costs nanoseconds if nobody does. */
  wrote(): void;
  close(): Promise<void>;
}

export interface Turn {
  /** True once others wait and this turn's time is used up: leave after the current transaction. */
  readonly isOver: boolean;
  leave(): void;
}
