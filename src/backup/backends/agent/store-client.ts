import { setTimeout as delay } from 'node:timers/promises';
import { message } from '../../../../protocol/encode.ts';
import { MAX_FILE_PART_BYTES, MAX_STORE_FILE_BYTES } from '../../../../protocol/limits.ts';
import type { Message, MessageOf } from '../../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError, toSqlsyncError } from '../../../errors.ts';
import type { Connection } from '../../../sync/link/connection.ts';
import type { ByteRange, StoredFile, StoreFolder } from '../backend.ts';
import type { Login } from '../remote/kept-connection.ts';

/** A request that the agent answered with a failure. `code` is that of the error of its system, if there is one. */
export class StoreRefused extends Error {
  readonly code: string | undefined;
  readonly hint: string | undefined;
  /** The agent has no such file. */
  readonly isMissing: boolean;

  constructor({ message: text, systemCode, hint, isMissing }: MessageOf<'fileFailed'>) {
    super(sanitizeText(text, 2000));
    this.code = /^E[A-Z0-9]{1,20}$/.test(systemCode) ? systemCode : undefined;
    this.hint = hint === '' ? undefined : `Its advice: ${sanitizeText(hint)}`;
    this.isMissing = isMissing;
  }
}

export interface StoreList {
  readonly files: readonly StoredFile[];
  /** The time by the clock of the files' times, in ms since 1970. */
  readonly nowMs: number;
}

type Answer = Extract<
  Message,
  { type: 'filePart' | 'fileDone' | 'fileDigest' | 'filesListed' | 'fileFailed' }
>;

interface Request {
  readonly id: number;
  /** Takes an answer; returns true if it was the last one. Throws SqlsyncError PROTOCOL. */
  take(answer: Answer): boolean;
  reject(error: unknown): void;
}

/** The rest of a file, however long it is. */
const TO_THE_END = Number.MAX_SAFE_INTEGER;

/** How long an agent may take to end after `close`. */
const CLOSE_WAIT_MS = 5000;

/**
 * Sends requests to an agent that serves a store. Any number of requests may be under way; the agent answers them in
 * order. Requests throw StoreRefused, and SqlsyncError if the connection is lost.
 */
export class StoreClient implements Login<StoreClient> {
  /** There was a store when the connection was made. */
  readonly isThere: boolean;
  /** The time there, in ms since 1970, when the connection was made. */
  readonly nowMs: number;
  readonly #connection: Connection;
  /** The oldest first. */
  readonly #waiting: Request[] = [];
  #sending: Promise<void> = Promise.resolve();
  #nextId = 0;
  #lost: unknown;

  /** Opens the store at `path`. Throws SqlsyncError. */
  static async open(connection: Connection, path: string): Promise<StoreClient> {
    const { idleTimeoutMs, maxTimeMs } = connection;
    connection.send(message('openStore', { path, idleTimeoutMs, maxTimeMs }));
    try {
      const opened = await connection.receiveOnly('storeOpened');
      connection.expect('usingStore');
      return new StoreClient(connection, opened);
    } catch (error) {
      connection.end();
      connection.transport.terminate();
      throw connection.state === 'openingStore' ? olderAgent(error) : error;
    }
  }

  private constructor(connection: Connection, { isThere, nowMs }: MessageOf<'storeOpened'>) {
    this.#connection = connection;
    this.isThere = isThere;
    this.nowMs = nowMs;
    void this.#receiveAll();
  }

  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  run<T>(_bytes: number, work: (client: this) => Promise<T>): Promise<T> {
    return work(this);
  }

  close(): void {
    if (this.isLost) return;
    this.#lost = new SqlsyncError('CONNECTION_LOST', 'The connection was closed');
    const { transport } = this.#connection;
    this.#connection.send(message('close', {}));
    this.#connection.end();
    const late = delay(CLOSE_WAIT_MS, undefined, { ref: false });
    void Promise.race([transport.exited, late]).then(() => transport.terminate());
  }

  /** All of a file, or what it has of a range. The caller owns the bytes. */
  async get(name: string, range?: ByteRange): Promise<Uint8Array> {
    const { offset, length } = range ?? { offset: 0, length: TO_THE_END };
    const into = new Incoming(range?.length);
    await this.#ask<void>(
      (id) => this.#connection.send(message('getFile', { id, name, offset, length })),
      (answer) => {
        if (answer.type !== 'filePart') throw unexpected(answer);
        into.add(answer.data);
        return answer.isLast ? { done: undefined } : undefined;
      },
    );
    return into.take();
  }

  /** Resolves to true if the file did not exist. */
  put(name: string, pieces: readonly Uint8Array[], replace = false): Promise<boolean> {
    return this.#ask(async (id) => {
      this.#connection.send(message('putFile', { id, name, replace }));
      for (const data of partsOf(pieces)) {
        this.#connection.send(message('filePart', { id, isLast: false, data }));
        await this.#connection.drained();
      }
      this.#connection.send(message('filePart', { id, isLast: true, data: new Uint8Array(0) }));
    }, isCreated);
  }

  delete(name: string): Promise<boolean> {
    return this.#ask((id) => this.#connection.send(message('deleteFile', { id, name })), isCreated);
  }

  removeLeftovers(olderThanMs: number): Promise<boolean> {
    const leftovers = (id: number): Message => message('removeLeftovers', { id, olderThanMs });
    return this.#ask((id) => this.#connection.send(leftovers(id)), isCreated);
  }

  /** The SHA-256 of a file, in hexadecimal, and its length. */
  digest(name: string): Promise<{ hash: string; bytes: number }> {
    return this.#ask(
      (id) => this.#connection.send(message('digestFile', { id, name })),
      (answer) => {
        if (answer.type !== 'fileDigest') throw unexpected(answer);
        return { done: { hash: Buffer.from(answer.hash).toString('hex'), bytes: answer.bytes } };
      },
    );
  }

  list(folder: StoreFolder): Promise<StoreList> {
    const files: StoredFile[] = [];
    return this.#ask(
      (id) => this.#connection.send(message('listFiles', { id, folder })),
      (answer) => {
        if (answer.type !== 'filesListed') throw unexpected(answer);
        const { names, sizes, timesMs, nowMs, isLast } = answer;
        if (sizes.length !== names.length || timesMs.length !== names.length)
          throw new SqlsyncError('PROTOCOL', 'The other side sent a list with gaps');
        for (const [i, name] of names.entries()) {
          // No name may lead out of the folder.
          if (name === '' || name.startsWith('.') || /[/\0]/.test(name)) continue;
          files.push({ name, bytes: sizes[i] as number, modified: new Date(timesMs[i] as number) });
        }
        return isLast ? { done: { files, nowMs } } : undefined;
      },
    );
  }

  /** Sends one request after another, each whole. `take` returns the result with the last answer. */
  #ask<T>(
    send: (id: number) => void | Promise<void>,
    take: (answer: Answer) => { done: T } | undefined,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      const id = this.#nextId++ % 2 ** 32;
      const request: Request = {
        id,
        take: (answer) => {
          const result = take(answer);
          if (result !== undefined) resolve(result.done);
          return result !== undefined;
        },
        reject,
      };
      this.#sending = this.#sending
        .then(() => {
          if (this.isLost) return reject(this.#lost);
          this.#waiting.push(request);
          return send(id);
        })
        .catch((error: unknown) => this.#lose(error));
    });
  }

  async #receiveAll(): Promise<void> {
    try {
      for (;;) {
        const answer = (await this.#connection.receive()) as Answer;
        const [request] = this.#waiting;
        if (request === undefined || answer.id !== request.id)
          throw new SqlsyncError('PROTOCOL', `The other side sent ${answer.type} without a request`);
        if (answer.type === 'fileFailed') request.reject(new StoreRefused(answer));
        if (answer.type === 'fileFailed' || request.take(answer)) this.#waiting.shift();
      }
    } catch (error) {
      this.#lose(error);
    }
  }

  #lose(error: unknown): void {
    const wasLost = this.isLost;
    this.#lost ??= error;
    for (const request of this.#waiting.splice(0)) request.reject(this.#lost);
    if (wasLost) return;
    this.#connection.sendError(toSqlsyncError(error));
    this.#connection.end();
    this.#connection.transport.terminate();
  }
}

/** Collects the parts of a file. */
class Incoming {
  readonly #most: number;
  /** For a range whose length is known. */
  readonly #range: Uint8Array | undefined;
  readonly #parts: Uint8Array[] = [];
  #bytes = 0;

  constructor(length: number | undefined) {
    this.#most = length ?? MAX_STORE_FILE_BYTES;
    this.#range = length === undefined ? undefined : new Uint8Array(length);
  }

  /** The part is only valid now. Throws SqlsyncError PROTOCOL for more bytes than were asked for. */
  add(part: Uint8Array): void {
    if (this.#bytes + part.length > this.#most)
      throw new SqlsyncError('PROTOCOL', 'The other side sent more of a file than was asked for');
    if (this.#range === undefined) this.#parts.push(part.slice());
    else this.#range.set(part, this.#bytes);
    this.#bytes += part.length;
  }

  take(): Uint8Array {
    if (this.#range !== undefined)
      return this.#bytes < this.#range.length ? this.#range.slice(0, this.#bytes) : this.#range;
    const whole = new Uint8Array(this.#bytes);
    let filled = 0;
    for (const part of this.#parts) {
      whole.set(part, filled);
      filled += part.length;
    }
    return whole;
  }
}

function* partsOf(pieces: readonly Uint8Array[]): Generator<Uint8Array> {
  for (const piece of pieces)
    for (let at = 0; at < piece.length; at += MAX_FILE_PART_BYTES)
      yield piece.subarray(at, at + MAX_FILE_PART_BYTES);
}

function isCreated(answer: Answer): { done: boolean } {
  if (answer.type !== 'fileDone') throw unexpected(answer);
  return { done: answer.created };
}

function unexpected({ type }: Answer): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The other side sent ${type} as an answer to another request`);
}

/** An agent that greets well and then takes `openStore` for a violation is an older one. */
function olderAgent(error: unknown): unknown {
  if (!(error instanceof SqlsyncError) || error.code !== 'PROTOCOL') return error;
  return new SqlsyncError('PROTOCOL_VERSION', 'The sqlsync there is older, and serves no stores', {
    hint: 'Install this version there (`sqlsync setup --install HOST`), or use the store by SFTP: sftp:HOST:PATH.',
    cause: error,
  });
}
