import type { Server, Socket } from 'node:net';
import { createServer } from 'node:net';
import { Questions } from './questions.ts';
import { TurnQueue, QUEUE_TIMES } from './turn-queue.ts';
import type { QueueSocket } from './queue-socket.ts';
import {
  encodeFrame,
  FrameReader,
  monotonicUs,
  REPLIES,
  REQUESTS,
  TELLS_OF_WRITES,
  WIRE_VERSION,
} from './wire.ts';
import type { Frame, Reply, Request } from './wire.ts';

/** Further processes on one database retry without queueing. */
const MEMBERS_MAX = 1000;
/** A member that does not read is dropped when this much waits for it. */
const UNREAD_BYTES_MAX = 4096;
/** The same of an observer, which gets the texts of many members at once. */
const UNTOLD_BYTES_MAX = 1024 * 1024;
/** The most frames of one member between two ticks; the busiest member needs some hundred. */
const FRAMES_PER_TICK_MAX = 10_000;
const TICK_MS = QUEUE_TIMES.askMs;

export interface CoordinatorOptions {
  /**
   * How long the members of the previous coordinator have to come back, so that the first of them is first again, in
   * milliseconds; 0 without a previous one.
   */
  readonly returnMs?: number;
  /** Called when there is more than one member. */
  readonly onCompany?: () => void;
  /** Called when it has failed and closed. */
  readonly onFailure?: () => void;
}

interface Member {
  readonly socket: Socket;
  readonly reader: FrameReader<Request>;
  /** Unknown until its first frame. */
  role: 'unknown' | 'member' | 'observer' | 'listener';
  /** True if it answers `describe`. */
  describes: boolean;
  /** True if it answers `listened`. */
  tellsOfWrites: boolean;
  /** Names it to an observer. */
  readonly number: number;
  framesInTick: number;
}

/** Listens at the socket of a queue and coordinates the queue, in the event loop that created it. */
export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #server: Server;
  readonly #members = new Set<Member>();
  /** Those who want to know of commits. */
  readonly #listeners = new Set<Member>();
  readonly #queue: TurnQueue<Member>;
  readonly #questions = new Questions<Member>((observer) => observer.socket.end());
  #greeted = 0;
  #admitted = 0;
  /** How many members come back; 0 if unknown. */
  #expected = 0;
  #ticking: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** The caller holds the lock. Throws if there can be no socket. */
  constructor(queueSocket: QueueSocket, options: CoordinatorOptions = {}) {
    this.#options = options;
    const { returnMs = 0 } = options;
    this.#queue = new TurnQueue<Member>(
      {
        granted: (member, turn, othersWait) => this.#send(member, 'granted', turn, othersWait),
        wanted: (member, turn) => this.#send(member, 'wanted', turn),
        contended: (contended) => this.#tell(contended),
      },
      QUEUE_TIMES,
      monotonicUs() + returnMs * 1000,
    );
    this.#server = createServer((socket) => this.#admit(socket));
    this.#server.maxConnections = MEMBERS_MAX;
    this.#server.on('error', () => this.#fail());
    // Exclusive, for workers of node:cluster: otherwise the primary would bind, later and elsewhere.
    queueSocket.makeSocket((path) => void this.#server.listen({ path, exclusive: true }));
    this.#server.unref();
    if (returnMs > 0) setTimeout(() => this.#queue.open(monotonicUs()), returnMs).unref();
  }

  /** How many members are in the queue, or could be. */
  get members(): number {
    return this.#greeted;
  }

  /** This many members come back; do not wait for more. */
  expect(members: number): void {
    this.#expected = members;
    this.#openWhenComplete();
  }

  /** Disconnects every member; the socket's name stays. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearInterval(this.#ticking);
    this.#server.close();
    for (const { socket } of this.#members) socket.destroy();
  }

  #fail(): void {
    this.close();
    this.#options.onFailure?.();
  }

  #admit(socket: Socket): void {
    const member: Member = {
      socket,
      reader: new FrameReader<Request>(REQUESTS),
      role: 'unknown',
      describes: false,
      tellsOfWrites: false,
      number: ++this.#admitted,
      framesInTick: 0,
    };
    this.#members.add(member);
    socket.unref();
    socket.on('data', (chunk: Buffer) => {
      const frames = member.reader.read(chunk);
      if (frames === undefined || !frames.every((frame) => this.#take(member, frame))) socket.destroy();
    });
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      this.#members.delete(member);
      if (member.role === 'member') this.#greeted--;
      if (!this.#isClosed) this.#left(member);
      this.#questions.remove(member);
      if (!this.#isClosed) this.#queue.remove(member, monotonicUs());
    });
  }

  /** Returns false if a member cannot send this frame. */
  #take(member: Member, frame: Frame<Request>): boolean {
    const { type, number, flag, timeUs } = frame;
    if (member.socket.destroyed) return true;
    const nowUs = monotonicUs();
    this.#keepTicking();
    // Observers decide how many answers there are.
    const isAnswer = type === 'tell' && this.#questions.observerOf(number, member) !== undefined;
    if (!isAnswer && ++member.framesInTick > FRAMES_PER_TICK_MAX) return false;
    const isFirst = type === 'hello' || type === 'observe' || type === 'listen';
    if (isFirst ? member.role !== 'unknown' : member.role !== 'member') return false;
    if (isFirst && number !== WIRE_VERSION) return false;
    switch (type) {
      case 'hello':
        member.describes = flag;
        member.tellsOfWrites = timeUs === TELLS_OF_WRITES;
        this.#greet(member);
        break;
      case 'observe':
        this.#ask(member);
        break;
      case 'tell':
        this.#passOn(member, frame);
        break;
      case 'listen':
        this.#listen(member);
        break;
      case 'wrote':
        this.#tellListeners();
        break;
      case 'enter':
        this.#queue.enter(member, number, { sinceUs: timeUs, holding: flag }, nowUs);
        break;
      case 'leave':
        this.#queue.leave(member, number, nowUs);
        break;
      case 'here':
        this.#queue.here(member, number, nowUs);
        break;
      case 'ask':
        this.#send(member, 'answer', 0);
        break;
    }
    return true;
  }

  #greet(member: Member): void {
    member.role = 'member';
    this.#greeted++;
    this.#send(member, 'state', 0, this.#queue.isContended);
    if (this.#listeners.size > 0 && member.tellsOfWrites) this.#send(member, 'listened', 0, true);
    this.#openWhenComplete();
    if (this.#greeted > 1) this.#options.onCompany?.();
  }

  /** What was committed before it listened counts as news: it may have looked earlier. */
  #listen(listener: Member): void {
    listener.role = 'listener';
    this.#listeners.add(listener);
    if (this.#listeners.size === 1) this.#askForWrites(true);
    this.#tellListeners();
  }

  #askForWrites(isListened: boolean): void {
    for (const member of this.#members)
      if (member.tellsOfWrites) this.#send(member, 'listened', 0, isListened);
  }

  /** A listener that reads nothing has earlier news before it, which will do. */
  #tellListeners(): void {
    for (const { socket } of this.#listeners)
      if (socket.writable && socket.writableLength === 0) socket.write(encodeFrame(REPLIES.wrote, 0));
  }

  /** A member may have gone before it could tell of its last commit. */
  #left(member: Member): void {
    if (member.role === 'member') this.#tellListeners();
    if (this.#listeners.delete(member) && this.#listeners.size === 0) this.#askForWrites(false);
  }

  #ask(observer: Member): void {
    observer.role = 'observer';
    const members = [...this.#members].filter(({ role, describes }) => role === 'member' && describes);
    const question = this.#questions.ask(observer, members);
    for (const member of members) this.#send(member, 'describe', question);
  }

  /** The answer to an observer that has gone is dropped. */
  #passOn(member: Member, { number: question, flag, timeUs }: Frame<Request>): void {
    const socket = this.#questions.observerOf(question, member)?.socket;
    if (socket === undefined) return;
    if (socket.writableLength > UNTOLD_BYTES_MAX) socket.destroy();
    else if (socket.writable) socket.write(encodeFrame(REPLIES.told, member.number, flag, timeUs));
    this.#questions.told(question, member, flag);
  }

  #openWhenComplete(): void {
    if (this.#expected === 0 || this.#greeted < this.#expected) return;
    this.#expected = 0;
    // The last member's request is on its way: it comes after the greeting.
    setTimeout(() => this.#queue.open(monotonicUs()), 1).unref();
  }

  #send(member: Member, reply: Reply, turn: number, flag = false): void {
    const { socket } = member;
    if (socket.writableLength > UNREAD_BYTES_MAX) socket.destroy();
    else if (socket.writable) socket.write(encodeFrame(REPLIES[reply], turn, flag));
  }

  #tell(contended: boolean): void {
    for (const member of this.#members) {
      if (member.role === 'member') this.#send(member, 'state', 0, contended);
    }
  }

  /** Ticks only while there is something to watch: in calm times there is no timer. */
  #keepTicking(): void {
    this.#ticking ??= setInterval(() => this.#tick(), TICK_MS).unref();
  }

  #tick(): void {
    this.#queue.tick(monotonicUs());
    for (const member of this.#members) member.framesInTick = 0;
    if (this.#queue.isContended) return;
    clearInterval(this.#ticking);
    this.#ticking = undefined;
  }
}
