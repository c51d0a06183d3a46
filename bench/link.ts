/**
 * A slow line to a TCP server, in userspace: everything that passes takes half the round-trip time, and each direction
 * carries so many bits a second. By itself:
 *
 *     node bench/link.ts --to HOST:PORT [--listen PORT] [--rtt 100] [--mbit 50]
 *
 * No loss, no jitter, no TCP slow start: the same bytes at the same times always take the same time. A connection
 * takes one round trip to be there, as TCP's handshake does.
 */
import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { parseArgs } from 'node:util';

export interface LinkOptions {
  host: string;
  port: number;
  /** By default any free port, on the loopback interface. */
  listenPort?: number;
  /** The round-trip time: both ways together. */
  rttMs: number;
  /** The rate of each direction. */
  bitsPerSecond: number;
}

export interface Link {
  readonly port: number;
  readonly options: Readonly<LinkOptions>;
  /**
   * Bytes that came out at the far and at the near end, over all connections since the start or the last
   * `reset`.
   */
  readonly carried: { toFar: number; toNear: number };
  reset(): void;
  /** Ends all connections. */
  close(): Promise<void>;
}

/**
 * The link passes bytes on in pieces of at least this size, and each piece arrives on its own (at 50 Mbit/s
 * every 0.6 ms).
 */
const MIN_PIECE_BYTES = 4096;
/**
 * On faster lines a piece is what passes in this time: timers are no finer, and the line must not cost a
 * core.
 */
const PIECE_MS = 0.5;
/** The most that waits in each direction, as in a router's queue, beyond what is on the line at a time. */
const QUEUE_BYTES = 256 * 1024;

export async function startLink(options: LinkOptions): Promise<Link> {
  const carried = { toFar: 0, toNear: 0 };
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true, pauseOnConnect: true, allowHalfOpen: true }, (near) => {
    connect(near, options, carried, sockets);
  });
  server.listen(options.listenPort ?? 0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    options,
    carried,
    reset: () => void Object.assign(carried, { toFar: 0, toNear: 0 }),
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, 'close');
    },
  };
}

/**
 *     near        SYN ─────►                 the link reads what near sends from here on: 1 round trip
 *                 ◄───── SYN, ACK
 *                 ACK ─────►           far   the server accepts: 1.5 round trips
 */
function connect(near: Socket, options: LinkOptions, carried: Link['carried'], sockets: Set<Socket>): void {
  const { host, port, rttMs, bitsPerSecond } = options;
  sockets.add(near);
  const end = (): void => void near.destroy();
  near.on('error', end).once('close', () => sockets.delete(near));
  setTimeout(() => {
    if (near.destroyed) return;
    const far = createConnection({ host, port, noDelay: true, allowHalfOpen: true }, () => {
      const line = { delayMs: rttMs / 2, bytesPerMs: bitsPerSecond / 8000 };
      // Near's bytes could be on their way for half a round trip already.
      const toFar = new Direction(near, far, line, -rttMs / 2, (bytes) => (carried.toFar += bytes));
      const toNear = new Direction(far, near, line, 0, (bytes) => (carried.toNear += bytes));
      const over = (): void => {
        toFar.stop();
        toNear.stop();
        near.destroy();
        far.destroy();
      };
      for (const socket of [near, far]) socket.on('error', over);
      near.once('close', over);
      // The last thing that it sent is still on the line.
      far.once('close', () => toNear.finish(over));
    });
    sockets.add(far);
    far.on('error', end).once('close', () => sockets.delete(far));
    near.once('close', () => far.destroy());
  }, rttMs * 1.5);
}

/** `bytes` is undefined for the end of the stream. */
interface Piece {
  bytes: Uint8Array | undefined;
  arrivesAt: number;
}

/** One direction: a token bucket without a burst (bytes leave one after the other at the rate), then a delay line. */
class Direction {
  readonly #to: Socket;
  readonly #from: Socket;
  readonly #line: { delayMs: number; bytesPerMs: number };
  readonly #onCarried: (bytes: number) => void;
  readonly #queue: Piece[] = [];
  readonly #queuedBytesMax: number;
  #queuedBytes = 0;
  #freeAt = 0;
  /** Counts for the first bytes only: see `connect`. */
  #headStartMs: number;
  #timer: NodeJS.Timeout | undefined;
  #blocked = false;
  #stopped = false;
  #onFinished: (() => void) | undefined;

  constructor(
    from: Socket,
    to: Socket,
    line: { delayMs: number; bytesPerMs: number },
    headStartMs: number,
    onCarried: (bytes: number) => void,
  ) {
    this.#from = from;
    this.#to = to;
    this.#line = line;
    this.#headStartMs = headStartMs;
    this.#onCarried = onCarried;
    this.#queuedBytesMax = line.bytesPerMs * line.delayMs + QUEUE_BYTES;
    from.on('data', (bytes) => this.#send(bytes));
    from.once('end', () => this.#enqueue(undefined, performance.now() + line.delayMs));
    to.on('drain', () => {
      this.#blocked = false;
      this.#deliver();
    });
    from.resume();
  }

  /** Calls back when all that was sent has arrived. */
  finish(callback: () => void): void {
    this.#onFinished = callback;
    if (this.#queue.length === 0) callback();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#queue.length = 0;
  }

  #send(bytes: Uint8Array): void {
    const { bytesPerMs, delayMs } = this.#line;
    const now = performance.now() + this.#headStartMs;
    this.#headStartMs = 0;
    const pieceBytes = Math.max(MIN_PIECE_BYTES, Math.floor(bytesPerMs * PIECE_MS));
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      const piece = bytes.subarray(at, at + pieceBytes);
      this.#freeAt = Math.max(this.#freeAt, now) + piece.length / bytesPerMs;
      this.#enqueue(piece, this.#freeAt + delayMs);
    }
    this.#queuedBytes += bytes.length;
    if (this.#queuedBytes > this.#queuedBytesMax) this.#from.pause();
  }

  #enqueue(bytes: Uint8Array | undefined, arrivesAt: number): void {
    // The end of the stream must not overtake the bytes before it.
    const last = this.#queue.at(-1);
    this.#queue.push({ bytes, arrivesAt: Math.max(arrivesAt, last?.arrivesAt ?? 0) });
    if (this.#queue.length === 1) this.#schedule();
  }

  #schedule(): void {
    const [next] = this.#queue;
    if (next === undefined || this.#stopped) return;
    clearTimeout(this.#timer);
    // setTimeout cuts to whole milliseconds; a piece must not come early.
    this.#timer = setTimeout(
      () => this.#deliver(),
      Math.max(0, Math.ceil(next.arrivesAt - performance.now())),
    );
  }

  #deliver(): void {
    if (this.#stopped) return;
    const now = performance.now();
    let delivered = 0;
    while (!this.#blocked) {
      const piece = this.#queue[delivered];
      if (piece === undefined || piece.arrivesAt > now) break;
      delivered++;
      this.#arrive(piece.bytes);
    }
    this.#queue.splice(0, delivered);
    if (this.#queuedBytes <= this.#queuedBytesMax) this.#from.resume();
    if (this.#queue.length === 0) this.#onFinished?.();
    else if (!this.#blocked) this.#schedule();
  }

  #arrive(bytes: Uint8Array | undefined): void {
    if (bytes === undefined) return void this.#to.end();
    this.#queuedBytes -= bytes.length;
    this.#onCarried(bytes.length);
    this.#blocked = !this.#to.write(bytes);
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      to: { type: 'string' },
      listen: { type: 'string', default: '0' },
      rtt: { type: 'string', default: '100' },
      mbit: { type: 'string', default: '50' },
    },
  });
  const target = /^(.+):(\d+)$/.exec(values.to ?? '');
  if (target === null) throw new Error('expected --to HOST:PORT');
  const link = await startLink({
    host: target[1] as string,
    port: Number(target[2]),
    listenPort: Number(values.listen),
    rttMs: Number(values.rtt),
    bitsPerSecond: Number(values.mbit) * 1e6,
  });
  console.log(`127.0.0.1:${link.port} → ${values.to}: ${values.rtt} ms round trip, ${values.mbit} Mbit/s`);
}

if (import.meta.main) await main();
