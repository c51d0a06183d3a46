import { Readable, Writable } from 'node:stream';
import { SqlsyncError } from '../errors.ts';
import type { Transport, TransportExit } from './transport.ts';

/** A command that takes more without an answer is there. */
const MAX_WRITTEN_BYTES = 8 * 1024 * 1024;

type Settle = (error?: Error | null) => void;

/**
 * The transport `first`, or the one of `next` where the far shell finds no command for `first`: that shows after bytes
 * were written and before one came, so what was written goes to `next` again.
 *
 *     undecided ── a byte comes from first ──────────────── first
 *        └──────── REMOTE_EXE_NOT_FOUND ── next ── byte ── next, and `onNext` is called
 *                                            └──── REMOTE_EXE_NOT_FOUND: the error of first
 */
export function withFallback(
  first: Transport,
  next: () => Promise<Transport>,
  onNext: () => void,
): Transport {
  return new Fallback(first, next, onNext).transport;
}

class Fallback {
  readonly transport: Transport;
  readonly #next: () => Promise<Transport>;
  readonly #onNext: () => void;
  readonly #input: Readable;
  readonly #output: Writable;
  readonly #exited = Promise.withResolvers<TransportExit>();
  #current: Transport;
  /** What was written; undefined once it is decided which transport it is. */
  #written: Buffer[] | undefined = [];
  #writtenBytes = 0;
  /** The error of the first transport, once the next one takes its place. */
  #missing: Error | undefined;
  /** The last chunk, where the first transport did not take it. */
  #refused: { readonly settle: Settle; readonly error: Error } | undefined;

  constructor(first: Transport, next: () => Promise<Transport>, onNext: () => void) {
    this.#next = next;
    this.#onNext = onNext;
    this.#current = first;
    this.#input = new Readable({
      highWaterMark: 64 * 1024,
      read: () => void this.#current.input.resume(),
      destroy: (error, callback) => {
        this.#current.input.destroy();
        callback(error);
      },
    });
    this.#output = new Writable({
      highWaterMark: first.output.writableHighWaterMark,
      write: (chunk: Buffer, _encoding, settle) => this.#write([chunk], settle),
      writev: (chunks, settle) =>
        this.#write(
          chunks.map(({ chunk }) => chunk as Buffer),
          settle,
        ),
      final: (settle) => {
        this.#current.output.end();
        settle();
      },
      destroy: (error, settle) => {
        // Once it is finished, the other one may still have bytes to pass on.
        if (!this.#output.writableFinished) this.#current.output.destroy();
        settle(error);
      },
    });
    // A reader or a writer gets the error; without one (yet) it must not crash the process.
    this.#input.on('error', () => {});
    this.#output.on('error', () => {});
    this.#follow(first);
    this.transport = {
      description: first.description,
      input: this.#input,
      output: this.#output,
      ...(first.freeChunk === undefined ? {} : { freeChunk: first.freeChunk }),
      exited: this.#exited.promise,
      terminate: () => this.#terminate(),
    };
  }

  #follow(transport: Transport): void {
    const { input, output } = transport;
    input.on('data', (chunk: Buffer) => {
      if (this.#written !== undefined && this.#missing !== undefined) this.#onNext();
      this.#decide();
      if (!this.#input.destroyed && !this.#input.push(chunk)) input.pause();
    });
    input.on('end', () => {
      this.#decide();
      this.#input.push(null);
    });
    input.on('error', (error: Error) => this.#onError(error));
    input.on('close', () => {
      if (input.errored === null && !input.readableEnded) this.#input.destroy();
    });
    output.on('close', () => {
      // A transport that is gone takes no more, even if nothing is being written.
      if (this.#written === undefined && !output.writableFinished) this.#output.destroy();
    });
  }

  /** The present transport is the one, whatever becomes of it. */
  #decide(): void {
    if (this.#written === undefined) return;
    this.#written = undefined;
    const { output, exited } = this.#current;
    void exited.then((exit) => this.#exited.resolve(exit));
    this.#refused?.settle(this.#refused.error);
    if (output.destroyed && !output.writableFinished) this.#output.destroy();
  }

  #onError(error: Error): void {
    const isMissing = error instanceof SqlsyncError && error.code === 'REMOTE_EXE_NOT_FOUND';
    if (!isMissing || this.#written === undefined) return this.#fail(error);
    if (this.#missing !== undefined) return this.#fail(this.#missing);
    this.#missing = error;
    void this.#startNext(error);
  }

  #fail(error: Error): void {
    this.#decide();
    this.#input.destroy(error);
  }

  async #startNext(missing: Error): Promise<void> {
    let transport: Transport;
    try {
      transport = await this.#next();
    } catch {
      return this.#fail(missing);
    }
    if (this.#written === undefined) return transport.terminate();
    this.#current = transport;
    this.#follow(transport);
    for (const chunk of this.#written) transport.output.write(chunk);
    this.#refused?.settle();
    this.#refused = undefined;
    if (this.#output.writableFinished) transport.output.end();
    else if (this.#output.destroyed) transport.output.destroy();
  }

  #write(chunks: readonly Buffer[], settle: Settle): void {
    const { output } = this.#current;
    this.#keep(chunks);
    const settled = (error?: Error | null): void => {
      // The next transport has taken what the first one did not, or will, if there is one.
      if (output !== this.#current.output) settle();
      else if (error && this.#written !== undefined) this.#refused = { settle, error };
      else settle(error);
    };
    if (chunks.length > 1) output.cork();
    for (const [at, chunk] of chunks.entries())
      output.write(chunk, at === chunks.length - 1 ? settled : undefined);
    if (chunks.length > 1) output.uncork();
  }

  #keep(chunks: readonly Buffer[]): void {
    if (this.#written === undefined) return;
    for (const chunk of chunks) {
      this.#writtenBytes += chunk.length;
      this.#written.push(chunk);
    }
    if (this.#writtenBytes > MAX_WRITTEN_BYTES) this.#decide();
  }

  #terminate(): void {
    this.#decide();
    this.#current.terminate();
    this.#input.destroy();
    this.#output.destroy();
  }
}
