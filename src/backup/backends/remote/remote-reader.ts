import { MessageChannel, receiveMessageOnPort, Worker } from 'node:worker_threads';
import type { MessagePort } from 'node:worker_threads';
import { errorFromData, SqlsyncError } from '../../../errors.ts';
import { awaitThread } from '../../../sqlite/thread-life.ts';
import { missingFile, unavailable } from '../../store-error.ts';
import type { ByteRange, LocalFiles } from '../backend.ts';
import { CELLS } from './read-thread-messages.ts';
import type { RemotePlace, ReadThreadStart, ToRead, WasRead } from './read-thread-messages.ts';
import { addRequests } from './request-counts.ts';

/** Bytes that are kept or on their way, and the parts that they are in. */
const MAX_BYTES: number = 48 * 1024 * 1024;
const MAX_PARTS = 256;

/** How many files' readers are remembered. */
const MAX_COURSES = 1000;

/** What one request reads at most. */
const PIECE_BYTES: number = 2 * 1024 * 1024;

/** How far to read ahead of a reader that goes through a file: it begins with the least, and doubles. */
const AHEAD_BYTES = { least: 1024 * 1024, most: 16 * 1024 * 1024 };

/** Reads that are no further apart than this count as going through the file. */
const NEAR_BYTES: number = 2 * 1024 * 1024;

/** Longer than all attempts at a request take; and the time for a thread to start. */
const TIMEOUT_MS: number = 20 * 60 * 1000;
const START_TIMEOUT_MS = 30_000;

/** How often to look whether a thread has started. */
const START_LOOK_MS = 20;

/** After so long a wait, a signal ends the process at once: its handler could not run before the wait is over. */
const PATIENCE_MS = 5000;

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** A part of a file, read or on its way. */
interface Part {
  readonly id: number;
  readonly name: string;
  readonly offset: number;
  readonly length: number;
  /** True if the caller plans what is read: see `plan`. */
  readonly isPlanned: boolean;
  /** Fewer than `length` if the file ends before. */
  bytes: Uint8Array | undefined;
  /** True once something was read of it. */
  isUsed: boolean;
  error: SqlsyncError | undefined;
}

/** Where a reader is in a file. */
interface Course {
  next: number;
  aheadBytes: number;
  /** Up to where parts were requested. */
  requested: number;
  /** The length of the file; Infinity if unknown. */
  fileBytes: number;
}

/**
 * Reads a store elsewhere without giving up control: another thread sends the requests, and this one waits for it. It
 * reads ahead of a reader that goes through a file, several requests at once, since each takes a round trip.
 *
 *     this thread    getNow(a) ........ │ work │ getNow(b) │ work │
 *     its thread     └► a ──────────────┘        └ is here already
 *                       b (ahead) ──────────┘
 */
export class RemoteReader implements LocalFiles {
  readonly #place: RemotePlace;
  readonly #program: URL;
  #thread: { readonly port: MessagePort; readonly cells: Int32Array } | undefined;
  /** The least recently used first. */
  readonly #parts = new Map<number, Part>();
  readonly #underWay = new Map<number, Part>();
  #bytes = 0;
  readonly #courses = new Map<string, Course>();
  /** How far ahead the last reader that went through a file was read. */
  #lastAheadBytes: number = AHEAD_BYTES.least;
  #nextId = 1;

  /** @param program - the module of the thread; it gets `place`. */
  constructor(place: RemotePlace, program: URL) {
    this.#place = place;
    this.#program = program;
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    if (range === undefined) return this.#wait(this.#request(name, 0, Infinity));
    if (!this.#isPlanned(name, range)) this.#follow(name, range);
    const { offset, length } = range;
    const into = new Uint8Array(length);
    for (let filled = 0; filled < length;) {
      const at = offset + filled;
      const part = this.#partAt(name, at) ?? this.#request(name, at, Math.min(length - filled, PIECE_BYTES));
      const bytes = this.#wait(part);
      part.isUsed = true;
      const from = at - part.offset;
      const some = bytes.subarray(from, from + length - filled);
      into.set(some, filled);
      filled += some.length;
      if (from + some.length >= bytes.length && bytes.length < part.length) return into.slice(0, filled);
    }
    return into;
  }

  expect(name: string, range: ByteRange, fileBytes?: number): boolean {
    const { offset, length } = range;
    // A reader that goes on in another file will go through that too.
    if (!this.#courses.has(name) && !this.#isPlanned(name, range)) this.#follow(name, range, fileBytes);
    const part = this.#partAt(name, offset) ?? this.#request(name, offset, length);
    this.#collect();
    return part.bytes !== undefined && part.offset + part.length >= offset + length;
  }

  plan(name: string, { offset, length }: ByteRange): void {
    this.#request(name, offset, length, true);
    this.#collect();
  }

  /** True for a range that a caller planned to read. */
  #isPlanned(name: string, { offset, length }: ByteRange): boolean {
    const part = this.#partAt(name, offset);
    return part?.isPlanned === true && offset + length <= part.offset + part.length;
  }

  /** Requests what a reader that goes through the file will want next. */
  #follow(name: string, { offset, length }: ByteRange, fileBytes: number = Infinity): void {
    const end = offset + length;
    let course = this.#courses.get(name);
    const isNear =
      course !== undefined && offset >= course.next - NEAR_BYTES && offset <= course.next + NEAR_BYTES;
    if (course === undefined || !isNear) {
      // A reader of a file's beginning probably goes on as it did in the file before.
      if (offset >= NEAR_BYTES) this.#lastAheadBytes = AHEAD_BYTES.least;
      const aheadBytes = this.#lastAheadBytes;
      course = { next: end, aheadBytes, requested: offset, fileBytes: course?.fileBytes ?? fileBytes };
      this.#courses.delete(name);
      this.#courses.set(name, course);
      if (this.#courses.size > MAX_COURSES) this.#courses.delete(this.#courses.keys().next().value as string);
      if (aheadBytes === AHEAD_BYTES.least) return;
    } else if (end <= course.next) {
      return;
    }
    course.next = Math.max(course.next, end);
    // In large steps: the next request leaves while half of what is ahead has not been used.
    if (course.requested - end > course.aheadBytes / 2) return;
    const until = Math.min(end + course.aheadBytes, course.fileBytes);
    for (let at = Math.max(course.requested, offset); at < until;) {
      const known = this.#partAt(name, at);
      if (known?.bytes !== undefined && known.bytes.length < known.length) break;
      const part = known ?? this.#request(name, at, Math.min(PIECE_BYTES, until - at));
      at = part.offset + part.length;
      course.requested = at;
    }
    course.aheadBytes = Math.min(AHEAD_BYTES.most, course.aheadBytes * 2);
    this.#lastAheadBytes = course.aheadBytes;
  }

  /** The latest one, since two may overlap. */
  #partAt(name: string, offset: number): Part | undefined {
    let found: Part | undefined;
    for (const part of this.#parts.values())
      if (part.name === name && offset >= part.offset && offset < part.offset + part.length) found = part;
    if (found === undefined) return undefined;
    this.#parts.delete(found.id);
    this.#parts.set(found.id, found);
    return found;
  }

  #request(name: string, offset: number, length: number, isPlanned: boolean = false): Part {
    const id = this.#nextId++;
    const place = { id, name, offset, length, isPlanned };
    const part: Part = { ...place, bytes: undefined, isUsed: false, error: undefined };
    const range = length === Infinity ? undefined : { offset, length };
    const message: ToRead = { id: part.id, name, range };
    const { port } = this.#running();
    port.postMessage(message);
    this.#underWay.set(part.id, part);
    if (range === undefined) return part;
    this.#parts.set(part.id, part);
    this.#bytes += length;
    this.#makeRoomFor(part);
    return part;
  }

  /** Drops what was used before what was read ahead, and each in the order of its last use. */
  #makeRoomFor(part: Part): void {
    for (const isUsed of [true, false]) {
      for (const oldest of this.#parts.values()) {
        if (this.#bytes <= MAX_BYTES && this.#parts.size <= MAX_PARTS) return;
        if (oldest !== part && oldest.isUsed === isUsed) this.#drop(oldest);
      }
    }
  }

  #drop(part: Part): void {
    if (this.#parts.delete(part.id)) this.#bytes -= part.length;
  }

  /** Throws SqlsyncError STORE_FILE_MISSING, STORE_UNAVAILABLE. */
  #wait(part: Part): Uint8Array {
    while (part.bytes === undefined && part.error === undefined) {
      const { cells } = this.#running();
      const seen = Atomics.load(cells, CELLS.done);
      this.#collect();
      if (!this.#underWay.has(part.id)) continue;
      if (!awaitAnswer(cells, seen)) this.#giveUp();
    }
    if (part.error === undefined) return part.bytes as Uint8Array;
    // A later read asks again.
    this.#drop(part);
    throw part.error;
  }

  #collect(): void {
    for (;;) {
      const received = this.#thread && receiveMessageOnPort(this.#thread.port);
      if (received === undefined) return;
      const message = received.message as WasRead;
      addRequests(message.requests);
      const part = this.#underWay.get(message.id);
      this.#underWay.delete(message.id);
      if (part === undefined) continue;
      if ('bytes' in message) part.bytes = message.bytes;
      else part.error = this.#errorOf(part.name, errorFromData(message.error));
    }
  }

  /** The class of an error is lost between threads. */
  #errorOf(name: string, error: Error): SqlsyncError {
    if (!(error instanceof SqlsyncError)) return unavailable(this.#place.address, `read ${name}`, error);
    return error.code === 'STORE_FILE_MISSING' ? missingFile(this.#place.address, name, error.cause) : error;
  }

  #running(): { readonly port: MessagePort; readonly cells: Int32Array } {
    return (this.#thread ??= startThread(this.#place, this.#program));
  }

  /** All that is under way fails; a later read starts another thread. */
  #giveUp(): void {
    const dead = new Error('the thread that reads has ended');
    for (const part of this.#underWay.values())
      part.error = unavailable(this.#place.address, `read ${part.name}`, dead);
    this.#underWay.clear();
    this.#thread?.port.close();
    this.#thread = undefined;
  }
}

/** Waits until there are other than `seen` answers; false if the thread has died, or takes too long. */
function awaitAnswer(cells: Int32Array, seen: number): boolean {
  const startedAtMs = performance.now();
  while (Atomics.load(cells, CELLS.thread) === 0) {
    if (performance.now() - startedAtMs > START_TIMEOUT_MS) return false;
    Atomics.wait(cells, CELLS.thread, 0, START_LOOK_MS);
  }
  const thread = Atomics.load(cells, CELLS.thread);
  return (
    awaitThread(cells, CELLS.done, seen, { thread, timeoutMs: PATIENCE_MS }) ||
    withUsualSignals(() => awaitThread(cells, CELLS.done, seen, { thread, timeoutMs: TIMEOUT_MS }))
  );
}

/** Runs `work`, which gives no control to handlers of signals, with the effect that signals have without handlers. */
function withUsualSignals<T>(work: () => T): T {
  const handlers = SIGNALS.map((name) => [name, process.rawListeners(name)] as const);
  for (const name of SIGNALS) process.removeAllListeners(name);
  try {
    return work();
  } finally {
    for (const [name, listeners] of handlers)
      for (const listener of listeners) process.on(name, listener as NodeJS.SignalsListener);
  }
}

function startThread(place: RemotePlace, program: URL): { port: MessagePort; cells: Int32Array } {
  const { port1, port2 } = new MessageChannel();
  const shared = new SharedArrayBuffer(4 * CELLS.count);
  const start: ReadThreadStart = { place, port: port2, shared };
  const worker = new Worker(program, {
    workerData: start,
    transferList: [port2],
    execArgv: [],
    name: 'sqlsync-store-read',
  });
  // A reader that waits for it finds that it has ended.
  worker.on('error', () => {});
  worker.unref();
  port1.unref();
  return { port: port1, cells: new Int32Array(shared) };
}
