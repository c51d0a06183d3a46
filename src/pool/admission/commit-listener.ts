import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { QueueSocket } from './queue-socket.ts';
import { encodeFrame, FrameReader, REPLIES, REQUESTS, WIRE_VERSION } from './wire.ts';
import type { Reply } from './wire.ts';

/** A coordinator that has gone is replaced within some of these, in milliseconds. */
const AGAIN_MIN_MS = 20;
/** How often to look for a queue, in milliseconds: there is one once a process has opened the database by its pools. */
const AGAIN_MAX_MS = 1000;

/**
 * Hears from the queue of a database that a process may have committed through its pools. It takes no part in the
 * queue, and no writer waits for it. Never keeps the process alive.
 */
export class CommitListener {
  readonly databasePath: string;
  readonly #onWrite: () => void;
  #socket: Socket | undefined;
  #again: NodeJS.Timeout | undefined;
  #againMs = AGAIN_MIN_MS;
  #isClosed = false;

  /** @param onWrite Also called when the connection to the queue begins or ends, since it misses what happens between. */
  constructor(databasePath: string, onWrite: () => void) {
    this.databasePath = databasePath;
    this.#onWrite = onWrite;
    this.#connect();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#again);
    this.#socket?.destroy();
  }

  #connect(): void {
    try {
      const queueSocket = new QueueSocket(this.databasePath);
      if (queueSocket.state !== 'socket') return this.#connectLater();
      this.#socket = queueSocket.connect((path) => connect({ path })).unref();
    } catch {
      return this.#connectLater(); // the database may come back
    }
    this.#listen(this.#socket);
  }

  #listen(socket: Socket): void {
    const frames = new FrameReader<Reply>(REPLIES);
    let hasHeard = false;
    socket.once('connect', () => socket.write(encodeFrame(REQUESTS.listen, WIRE_VERSION)));
    socket.on('data', (chunk: Buffer) => {
      const read = frames.read(chunk);
      if (read?.every(({ type }) => type === 'wrote') !== true) return socket.destroy();
      if (read.length === 0) return undefined;
      hasHeard = true;
      return this.#tell();
    });
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      if (hasHeard) this.#againMs = AGAIN_MIN_MS;
      if (hasHeard) this.#tell();
      this.#connectLater();
    });
  }

  #connectLater(): void {
    if (this.#isClosed) return;
    this.#again = setTimeout(() => this.#connect(), this.#againMs).unref();
    this.#againMs = Math.min(2 * this.#againMs, AGAIN_MAX_MS);
  }

  #tell(): void {
    if (!this.#isClosed) this.#onWrite();
  }
}
