import { finished } from 'node:stream/promises';
import { setImmediate as nextTick, setTimeout as delay } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { FrameDecoder, ProtocolViolation } from '../../../protocol/decode.ts';
import { FrameEncoder, message } from '../../../protocol/encode.ts';
import type { Message, MessageName, MessageOf } from '../../../protocol/messages.ts';
import { isLegal } from '../../../protocol/states.ts';
import type { State } from '../../../protocol/states.ts';
import {
  MIN_PROTOCOL_VERSION,
  negotiateVersion,
  PREAMBLE,
  PROTOCOL_VERSION,
} from '../../../protocol/version.ts';
import { SqlsyncError } from '../../errors.ts';
import type { Transport } from '../../transport/transport.ts';
import {
  lostError,
  overdueError,
  protocolError,
  silentError,
  ungreetedError,
  versionError,
} from './connection-error.ts';
import { Deadline } from './deadline.ts';
import { GreetingWatch } from './greeting-watch.ts';
import { Heartbeat } from './heartbeat.ts';
import { joinSmallPieces } from './join-pieces.ts';
import type { OutgoingPiece } from './join-pieces.ts';
import { MAX_TIMER_MS, farIdleTimeoutMs, farMaxTimeMs } from './peer-limits.ts';
import { ownAgentError, peerError } from './peer-error.ts';
import type { ConnectionOptions, PeerLimits } from './peer-limits.ts';
import { PROGRAM } from '../program.ts';

/** Bytes that may wait undecoded; beyond this the peer has to wait. */
const MAX_BUFFERED_BYTES = 16 * 1024 * 1024;

/** Collects frames up to this size before it hands them to the transport. */
const WRITE_BATCH_BYTES = 64 * 1024;

/** How long a far process that closed its output may take to report its exit status. */
const EXIT_STATUS_WAIT_MS = 2000;

/**
 * Messages over a transport. Checks which message may come in which state, turns a peer's `error` into a SqlsyncError,
 * and counts bytes. The end of the stream is always an error here: only a message can end a conversation well.
 */
export class Connection {
  readonly transport: Transport;
  /** What the peer may send next; the driver of the conversation sets it. */
  state: State = 'greeting';
  bytesSent = 0;
  bytesReceived = 0;
  /** Other connections of this event loop: what blocks it makes all of them silent. */
  siblings: ReadonlySet<Connection> = new Set();
  /** The answer for a peer that asks how long the run may take, in milliseconds; 0 means no limit. */
  readonly maxTimeMs: number;
  readonly #greeting = new GreetingWatch();
  readonly #over = new AbortController();
  readonly #heartbeat: Heartbeat;
  readonly #deadline = new Deadline((limitMs) =>
    this.#onFailure(overdueError(this.transport.description, limitMs)),
  );
  /** What each side last said about a silence to come. */
  #isBusy = false;
  #isPeerBusy = false;
  readonly #options: ConnectionOptions;
  readonly #encoder = new FrameEncoder(crc32);
  readonly #decoder: FrameDecoder;
  /** The state to go to once the peer's hello has come. */
  #stateAfterHello: State;
  #outgoing: OutgoingPiece[] = [];
  #outgoingBytes = 0;
  #flushScheduled = false;
  #ended = false;
  #failure: Error | undefined;
  /** Those that wait for something to happen. */
  #waiting: (() => void)[] = [];

  /** Greets the peer at once; the first message includes the check of the peer's greeting. */
  constructor(transport: Transport, state: State, options: ConnectionOptions) {
    this.transport = transport;
    this.#options = options;
    this.#decoder = new FrameDecoder(crc32, transport.freeChunk);
    this.maxTimeMs = options.maxTimeMs ?? 0;
    this.#stateAfterHello = state;
    this.#heartbeat = new Heartbeat(
      {
        sendSign: () => this.#sendSign(),
        isListening: () => !transport.input.isPaused(),
        isPeerBusy: () => this.#isPeerBusy,
        onLost: (silentMs, why) =>
          this.#onFailure(
            why === 'silent'
              ? silentError(transport.description, silentMs)
              : ungreetedError(transport.description, silentMs, this.#greeting.received),
          ),
      },
      options.idleTimeoutMs,
      options.greetingTimeoutMs,
    );
    transport.input.on('data', (bytes: Uint8Array) => this.#onData(bytes));
    transport.input.on('end', () => this.#onEnd());
    transport.input.on('close', () => this.#onEnd());
    transport.input.on('error', (error: Error) => this.#onFailure(error));
    // A lost peer also shows at the input, with a better message.
    transport.output.on('error', () => this.#onEnd());
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (options.signal?.aborted === true) this.#onAbort();
    this.#queue(new TextEncoder().encode(PREAMBLE));
    this.send(
      message('hello', { minVersion: MIN_PROTOCOL_VERSION, maxVersion: PROTOCOL_VERSION, program: PROGRAM }),
    );
  }

  /** Aborts when no more can come from the peer, or this side gave up. */
  get over(): AbortSignal {
    return this.#over.signal;
  }

  /** Silence of the peer, in milliseconds, after which it counts as lost; 0 means no limit. */
  get idleTimeoutMs(): number {
    return this.#heartbeat.limitMs;
  }

  set idleTimeoutMs(limitMs: number) {
    this.#heartbeat.limitMs = limitMs;
  }

  /** Adopts the peer's limits of patience for both sides; `own` is the most that this side allows. */
  agree(peer: PeerLimits, own: { readonly maxTimeMs?: number | undefined } = {}): void {
    this.idleTimeoutMs = farIdleTimeoutMs(peer.idleTimeoutMs);
    this.#deadline.start(farMaxTimeMs(peer.maxTimeMs, own.maxTimeMs ?? 0));
  }

  /** Runs what waits for a change of a database: the time that one database may take begins anew after it. */
  async untimed<T>(work: () => Promise<T>): Promise<T> {
    this.#deadline.stop();
    const result = await work();
    this.#deadline.start();
    return result;
  }

  /**
   * Runs what may block this process, such as opening a database that SQLite has to recover. First tells the peer to
   * expect silence.
   */
  async whileBusy<T>(work: () => T | Promise<T>): Promise<T> {
    this.#isBusy = true;
    for (const each of new Set([this, ...this.siblings])) each.#sendSign(true);
    this.#flush();
    await nextTick(); // a transport may need a turn to pass it on
    try {
      return await work();
    } finally {
      this.#isBusy = false;
    }
  }

  /** Sets what the peer may send, in force once its hello has come. */
  expect(state: State): void {
    if (this.state === 'greeting') this.#stateAfterHello = state;
    else this.state = state;
  }

  /** `onSent` runs when the transport has taken the message, so that the memory of its bytes can be used again. */
  send(outgoing: Message, onSent?: () => void): void {
    const pieces = this.#encoder.encode(outgoing);
    for (const [i, piece] of pieces.entries())
      this.#queue(piece, i === pieces.length - 1 ? onSent : undefined);
  }

  /** Resolves when the transport has taken what was sent, so that only a little waits in memory. */
  async drained(): Promise<void> {
    this.#flush();
    const { output } = this.transport;
    while (output.writableNeedDrain && !output.destroyed && this.#failure === undefined && !this.#ended) {
      await this.#activity(() => output.once('drain', this.stir));
      output.off('drain', this.stir);
    }
  }

  /** The next message, if one is already complete. Throws SqlsyncError. */
  poll(): Message | undefined {
    if (this.#failure !== undefined) throw this.#failure;
    for (;;) {
      const next = this.#decode();
      if (next === undefined) return undefined;
      this.#checkLegal(next.type); // the state may be another than when its header came
      if (next.type === 'error')
        throw this.#options.isPeerOurs === true ? ownAgentError(next) : peerError(next);
      this.#isPeerBusy = next.type === 'alive' && next.busy;
      if (next.type === 'alive') continue;
      if (next.type !== 'hello') return next;
      this.#greeted(next);
    }
  }

  /** The next message. Throws SqlsyncError: CONNECTION_LOST, TIMEOUT, INTERRUPTED, PROTOCOL*, or the peer's error. */
  async receive(): Promise<Message> {
    this.#flush();
    for (;;) {
      const next = this.poll();
      if (next !== undefined) return next;
      if (this.#ended) {
        const lost = await this.#connectionLost();
        // A message that was still on its way when our output broke says more than the loss.
        const last = this.poll();
        if (last !== undefined) return last;
        throw lost;
      }
      await this.#activity();
    }
  }

  /** The next message if it comes within this many milliseconds, and before a `stir` finds it over. Throws as `receive`. */
  async receiveWithin(ms: number, isOver?: () => boolean): Promise<Message | undefined> {
    this.#flush();
    const end = performance.now() + ms;
    for (;;) {
      const next = this.poll();
      if (next !== undefined || this.#ended) return next ?? this.receive();
      const left = end - performance.now();
      if (left <= 0 || isOver?.() === true) return undefined;
      let timer: NodeJS.Timeout | undefined;
      await this.#activity(() => (timer = setTimeout(this.stir, Math.min(left, MAX_TIMER_MS))));
      clearTimeout(timer);
    }
  }

  /** The next message, which must be of this kind. */
  async receiveOnly<N extends MessageName>(name: N): Promise<MessageOf<N>> {
    const next = await this.receive();
    if (next.type === name) return next as MessageOf<N>;
    throw new SqlsyncError('PROTOCOL', `The other side sent ${next.type} where ${name} was due`);
  }

  /** Tells the peer why this side gives up, if it still listens. */
  sendError(error: SqlsyncError): void {
    this.send(
      message('error', {
        errorCode: error.code,
        message: error.message.slice(0, 4000),
        hint: (error.hint ?? '').slice(0, 4000),
      }),
    );
    this.#flush();
  }

  /** Makes every further look at the connection throw `error`, for failures beside the conversation. */
  fail(error: SqlsyncError): void {
    this.#onFailure(error);
  }

  /** Ends this side's output after everything that was sent. */
  end(): void {
    this.#heartbeat.stop();
    this.#deadline.stop();
    this.#flush();
    this.transport.output.end();
  }

  /** Stops listening to the abort signal, so that nothing can interrupt a finished run any more. */
  detach(): void {
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
  }

  #queue(bytes: Uint8Array, onSent?: () => void): void {
    this.#outgoing.push({ bytes, onSent });
    this.#outgoingBytes += bytes.length;
    this.bytesSent += bytes.length;
    this.#heartbeat.onSent();
    if (this.#outgoingBytes >= WRITE_BATCH_BYTES) this.#flush();
    else if (!this.#flushScheduled) {
      this.#flushScheduled = true;
      setImmediate(() => this.#flush());
    }
  }

  #flush(): void {
    this.#flushScheduled = false;
    if (this.#outgoing.length === 0) return;
    const { output } = this.transport;
    const pieces = this.#outgoing;
    this.#outgoing = [];
    this.#outgoingBytes = 0;
    if (output.destroyed || output.writableEnded) return;
    const joined = joinSmallPieces(pieces);
    // One system call if the transport supports it, and no copy of page batches.
    if (joined.length > 1) output.cork();
    for (const { bytes, onSent } of joined) output.write(bytes, onSent && ((error) => error || onSent()));
    if (joined.length > 1) output.uncork();
  }

  #decode(): Message | undefined {
    try {
      const next = this.#decoder.next((type) => this.#checkLegal(type));
      if (this.#decoder.bufferedBytes < MAX_BUFFERED_BYTES && this.transport.input.isPaused()) {
        this.transport.input.resume();
      }
      return next;
    } catch (error) {
      if (!(error instanceof ProtocolViolation)) throw error;
      throw protocolError(error);
    }
  }

  #checkLegal(type: MessageName): void {
    if (isLegal(this.state, type)) return;
    throw new SqlsyncError('PROTOCOL', `The other side sent ${type} in state ${this.state}`, {
      hint: 'Nothing was changed. Check that both sides have the same version of sqlsync.',
    });
  }

  #greeted(hello: MessageOf<'hello'>): void {
    const own = { min: MIN_PROTOCOL_VERSION, max: PROTOCOL_VERSION };
    if (negotiateVersion(own, { min: hello.minVersion, max: hello.maxVersion }) === undefined) {
      throw versionError(hello);
    }
    this.state = this.#stateAfterHello;
  }

  #onData(bytes: Uint8Array): void {
    this.bytesReceived += bytes.length;
    this.#heartbeat.onReceived();
    if (this.#greeting.add(bytes)) this.#heartbeat.onGreeted();
    this.#decoder.push(bytes);
    if (this.#decoder.bufferedBytes >= MAX_BUFFERED_BYTES) this.transport.input.pause();
    this.stir();
  }

  #onEnd(): void {
    this.#ended = true;
    this.#heartbeat.stop();
    this.stir();
    this.#over.abort();
  }

  #onFailure(error: Error): void {
    this.#heartbeat.stop();
    const text = `The connection to ${this.transport.description} broke: ${error.message}`;
    this.#failure ??=
      error instanceof SqlsyncError ? error : new SqlsyncError('CONNECTION_LOST', text, { cause: error });
    this.stir();
    this.#over.abort();
  }

  readonly #onAbort = (): void => {
    this.#onFailure(
      new SqlsyncError('INTERRUPTED', 'Interrupted', {
        hint: 'Run sqlsync again: it continues from what has arrived.',
      }),
    );
  };

  /** Lets what waits look again. */
  readonly stir = (): void => {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  };

  /** Waits for data, the end, a failure, or the event for which `arm` arms `stir`. */
  async #activity(arm?: () => void): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#waiting.push(resolve);
      arm?.();
    });
  }

  /** Data that waits to be sent is sign enough, once it gets through. */
  #sendSign(busy = this.#isBusy): void {
    if (this.#ended || this.transport.output.writableNeedDrain) return;
    this.send(message('alive', { busy }));
  }

  async #connectionLost(): Promise<SqlsyncError> {
    const { exited, description, input } = this.transport;
    const inputEnd = finished(input, { writable: false }).catch(() => {}); // its error is #failure
    const [exit] = await Promise.race([
      Promise.all([exited, inputEnd]),
      delay(EXIT_STATUS_WAIT_MS, [], { ref: false }),
    ]);
    if (this.#failure instanceof SqlsyncError) return this.#failure;
    return lostError(description, exit);
  }
}

/** Decodes the fields of a message; an invalid value is the peer's fault. Throws SqlsyncError PROTOCOL. */
export function decodePeerData<T>(decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    if (error instanceof ProtocolViolation) throw protocolError(error);
    throw error;
  }
}
