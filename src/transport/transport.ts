import type { Readable, Writable } from 'node:stream';

/** How the far end of a transport ended, as far as the transport can tell. */
export interface TransportExit {
  /** Exit status of the far process; null if it was killed or did not report one. */
  status: number | null;
  signal: string | null;
  /** The last bytes that the far process wrote to its stderr, sanitized and cut; '' if it wrote none. */
  stderr: string;
}

/**
 * A byte stream to another agent.
 *
 * Contract: `input` yields the peer's bytes in order and ends when no more can come. **Its end does not mean success**
 * (a dropped SSH connection can end cleanly); only the protocol's own last message does. `output` takes bytes in order,
 * and applies backpressure through `write()`'s return value and 'drain'. A fault of the medium is an 'error' on `input`
 * (a SqlsyncError if the cause is known). `exited` settles once, never rejects, and settles soon after `terminate()`.
 */
export interface Transport {
  /** For messages to the user, such as `ssh deploy@db1` or `child process 4711`. */
  readonly description: string;
  readonly input: Readable;
  readonly output: Writable;
  /**
   * Frees a chunk that `input` gave and that its reader has no use for any more. Undefined if others may use the memory of
   * a chunk.
   */
  readonly freeChunk?: (chunk: Uint8Array) => void;
  readonly exited: Promise<TransportExit>;
  /**
   * Runs the same command once more over the same login; the new transport ends with this one. Undefined if that would
   * take another login. Throws SqlsyncError CONNECT_FAILED if the host refuses it, and CONNECTION_LOST.
   */
  readonly another?: () => Promise<Transport>;
  /** Ends the connection at once and releases everything (kills a child, closes a socket). Safe to call twice. */
  terminate(): void;
}

/** A login at a host, over which one command runs as often as it is asked to, each time in a channel of its own. */
export interface Login {
  /** Throws SqlsyncError CONNECT_FAILED if the host refuses a further channel, and CONNECTION_LOST. */
  run(): Promise<Transport>;
  /** Ends the connection at once, with all that runs over it. Safe to call twice. */
  close(): void;
}
