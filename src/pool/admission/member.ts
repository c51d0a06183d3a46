import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { systemErrorCode } from '../../errors.ts';
import { LocalCoordinator } from './local-coordinator.ts';
import { QueueSocket } from './queue-socket.ts';
import { encodeText } from './texts.ts';
import { encodeFrame, FrameReader, REPLIES, REQUESTS, TELLS_OF_WRITES, WIRE_VERSION } from './wire.ts';
import type { Frame, Reply, Request } from './wire.ts';

/** An application that has just opened its database has more urgent work. */
const JOIN_AFTER_MS = 10;
const REJOIN_MIN_MS = 1;
const REJOIN_MAX_MS = 1000;
/** Nobody listens there: then this process may take the lock and coordinate. Any other error is permanent. */
const NOBODY_THERE: ReadonlySet<string | undefined> = new Set(['ENOENT', 'ECONNREFUSED']);
/** Commits of this time are told together, in milliseconds. */
const TELL_AFTER_MS = 5;

/** After this, news that could not be sent is tried again. */
const RETELL_AFTER_MS = 100;
const TRY_AGAIN: ReadonlySet<string | undefined> = new Set(['EAGAIN', 'ECONNRESET', 'EPIPE', 'CLOSED']);

export interface MemberEvents {
  /** The member is in the queue of a coordinator, which knows nothing of it yet. */
  joined(): void;
  /** A sign of life from the coordinator. */
  heard(): void;
  granted(turn: number, othersWait: boolean): void;
  wanted(turn: number): void;
  /** What this process does with the database, for an observer. */
  describe(): string;
}

/**
 * The connection of a process to the queue of a database. If no process coordinates, one that notices begins to:
 *
 *     connect ── somebody listens ──────────────► joined ── the coordinator is gone ──┐
 *      ▲  └──── nobody ── lock ── mine ── listen ──┐                                  │
 *      └────────────────────┴── another's, wait ◄──┴──────────────────────────────────┘
 */
export class QueueMember {
  readonly #events: MemberEvents;
  #queueSocket: QueueSocket | undefined;
  #localCoordinator: LocalCoordinator | undefined;
  #socket: Socket | undefined;
  #isJoined = false;
  #isContended = false;
  #isUnavailable = false;
  #isClosed = false;
  #attempts = 0;
  /** True if somebody wants to know of commits. */
  #isListened = false;
  #telling: NodeJS.Timeout | undefined;
  #nextJoin: NodeJS.Timeout | undefined;

  constructor(databasePath: string, events: MemberEvents) {
    this.#events = events;
    try {
      this.#queueSocket = new QueueSocket(databasePath);
      this.#joinAfter(JOIN_AFTER_MS);
    } catch {
      this.#isUnavailable = true;
    }
  }

  /** True if a writer must enter the queue first. While one coordinator follows another, this stays the same. */
  get isContended(): boolean {
    return this.#isContended;
  }

  /** True if there is no queue here, nor will there be one. */
  get isUnavailable(): boolean {
    return this.#isUnavailable;
  }

  /** Returns false if there is no coordinator to send it to. */
  send(request: Request, turn: number, flag = false, timeUs = 0): boolean {
    if (!this.#isJoined || this.#socket?.writable !== true) return false;
    this.#socket.write(encodeFrame(REQUESTS[request], turn, flag, timeUs));
    return true;
  }

  /** Tells the listeners a moment later that this process may have committed. */
  wrote(): void {
    if (!this.#isListened) return;
    this.#telling ??= setTimeout(() => this.#tellOfWrites(), TELL_AFTER_MS).unref();
  }

  joinNow(): void {
    if (this.#nextJoin === undefined || this.#attempts > 0) return;
    clearTimeout(this.#nextJoin);
    this.#join();
  }

  /** Resolves when everything of it is gone. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#nextJoin);
    clearTimeout(this.#telling);
    this.#socket?.destroy();
    await this.#localCoordinator?.close();
    this.#queueSocket?.close();
  }

  #joinAfter(delayMs: number): void {
    this.#nextJoin = setTimeout(() => this.#join(), delayMs).unref();
  }

  #join(): void {
    this.#nextJoin = undefined;
    const queueSocket = this.#queueSocket;
    if (this.#isClosed || queueSocket === undefined) return;
    try {
      const { state } = queueSocket;
      if (state === 'taken') return this.#giveUp();
      // An error of the lock, the folder or the path: trying again would not help.
      if (state === 'free') this.#coordinate(queueSocket);
      this.#connect(queueSocket);
    } catch {
      this.#giveUp();
    }
  }

  #coordinate(queueSocket: QueueSocket): void {
    // A coordinator of our own that cannot be found by its name any more.
    this.#localCoordinator?.closeNow();
    this.#localCoordinator = LocalCoordinator.tryOpen(queueSocket);
  }

  #connect(queueSocket: QueueSocket): void {
    const socket = queueSocket.connect((path) => connect({ path })).unref();
    const reader = new FrameReader<Reply>(REPLIES);
    let reason: string | undefined = 'CLOSED';
    this.#socket = socket;
    socket.once('connect', () =>
      socket.write(encodeFrame(REQUESTS.hello, WIRE_VERSION, true, TELLS_OF_WRITES)),
    );
    socket.on('data', (chunk: Buffer) => {
      const frames = reader.read(chunk);
      if (frames === undefined) socket.destroy();
      else for (const frame of frames) this.#take(frame);
    });
    socket.on('error', (error) => {
      reason = systemErrorCode(error);
      socket.destroy();
    });
    socket.once('close', () => this.#disconnected(reason));
  }

  #take({ type, number, flag }: Frame<Reply>): void {
    if (this.#isClosed) return;
    this.#events.heard();
    switch (type) {
      case 'state':
        this.#isContended = flag;
        if (this.#isJoined) return;
        this.#isJoined = true;
        this.#attempts = 0;
        this.#events.joined();
        break;
      case 'granted':
        this.#events.granted(number, flag);
        break;
      case 'wanted':
        this.#events.wanted(number);
        break;
      case 'describe':
        this.#socket?.write(encodeText(REQUESTS.tell, number, this.#events.describe()));
        break;
      case 'listened':
        this.#isListened = flag;
        // Of what it has committed before, nobody was told.
        if (flag) this.#tellOfWrites();
        break;
      case 'answer':
      case 'told':
      case 'wrote':
        break;
    }
  }

  /** While the coordinator reads nothing, the news waits: it must not pile up. */
  #tellOfWrites(): void {
    clearTimeout(this.#telling);
    this.#telling = undefined;
    if (this.#socket === undefined || this.#isClosed) return;
    if (this.#socket.writableLength === 0) this.send('wrote', 0);
    else this.#telling = setTimeout(() => this.#tellOfWrites(), RETELL_AFTER_MS).unref();
  }

  #disconnected(reason: string | undefined): void {
    this.#isJoined = false;
    this.#isListened = false;
    if (this.#isClosed) return;
    if (NOBODY_THERE.has(reason)) return this.#takeOver();
    if (!TRY_AGAIN.has(reason)) return this.#giveUp();
    this.#joinLater();
  }

  #takeOver(): void {
    const queueSocket = this.#queueSocket;
    if (queueSocket === undefined) return;
    try {
      this.#coordinate(queueSocket);
    } catch {
      return this.#giveUp();
    }
    if (this.#localCoordinator === undefined) this.#joinLater();
    else this.#join();
  }

  /** A coordinator that is about to listen does so within a millisecond; do not wait for one that never answers. */
  #joinLater(): void {
    const delayMs = Math.min(REJOIN_MIN_MS * 1.5 ** this.#attempts++, REJOIN_MAX_MS);
    this.#joinAfter(delayMs * (0.5 + Math.random()));
  }

  #giveUp(): void {
    this.#isUnavailable = true;
    this.#isContended = false;
  }
}
