import { Readable, Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type { Transport } from './transport.ts';

/** What may pass at once after a pause. Also bounds a piece, so that the other side never waits long in silence. */
const BURST_S = 0.1;

/**
 * The same transport, limited to `bytesPerS` each way, averaged over more than a tenth of a second. Faster data waits
 * on the other side, behind what the medium holds (for SSH a window of 2 MiB).
 */
export function limitRate(transport: Transport, bytesPerS: number): Transport {
  return rateLimit(bytesPerS)(transport);
}

/** As `limitRate`, for several transports at the same time: the rate is that of all together. */
export function rateLimit(bytesPerS: number): (transport: Transport) => Transport {
  const [received, sent] = [new TokenBucket(bytesPerS), new TokenBucket(bytesPerS)];
  return (transport) => throttled(transport, received, sent);
}

function throttled(transport: Transport, received: TokenBucket, sent: TokenBucket): Transport {
  const input = limitInput(transport.input, received);
  const output = limitOutput(transport.output, sent);
  return {
    description: transport.description,
    input,
    output,
    exited: transport.exited,
    terminate: () => {
      transport.terminate();
      input.destroy();
      output.destroy();
    },
  };
}

/** Tokens are bytes: they arrive at the rate, and the bucket keeps at most a burst of them. */
class TokenBucket {
  readonly pieceBytes: number;
  readonly #bytesPerMs: number;
  /** When everything that was taken is paid for, in ms of `performance.now()`. */
  #paidAt = 0;

  constructor(bytesPerS: number) {
    this.#bytesPerMs = bytesPerS / 1000;
    this.pieceBytes = Math.max(1, Math.floor(bytesPerS * BURST_S));
  }

  /** Resolves when `byteCount` bytes may pass. */
  async take(byteCount: number): Promise<void> {
    const now = performance.now();
    this.#paidAt = Math.max(this.#paidAt, now - BURST_S * 1000) + byteCount / this.#bytesPerMs;
    if (this.#paidAt > now) await delay(this.#paidAt - now);
  }
}

function* pieces(chunk: Buffer, pieceBytes: number): Generator<Buffer> {
  for (let offset = 0; offset < chunk.length; offset += pieceBytes) {
    yield chunk.subarray(offset, offset + pieceBytes);
  }
}

function limitInput(source: Readable, bucket: TokenBucket): Readable {
  async function* limited(): AsyncGenerator<Buffer> {
    for await (const chunk of source as AsyncIterable<Buffer>) {
      for (const piece of pieces(chunk, bucket.pieceBytes)) {
        await bucket.take(piece.length);
        yield piece;
      }
    }
  }
  const input = Readable.from(limited(), { objectMode: false, highWaterMark: bucket.pieceBytes });
  // A reader gets the error; without a reader (yet) it must not crash the process.
  input.on('error', () => {});
  return input;
}

function limitOutput(sink: Writable, bucket: TokenBucket): Writable {
  const write = async (chunk: Buffer): Promise<void> => {
    for (const piece of pieces(chunk, bucket.pieceBytes)) {
      await bucket.take(piece.length);
      await new Promise<void>((resolve, reject) => {
        sink.write(piece, (error) => (error ? reject(error) : resolve()));
      });
    }
  };
  const output = new Writable({
    highWaterMark: sink.writableHighWaterMark,
    write: (chunk: Buffer, _encoding, callback) => void settle(write(chunk), callback),
    final: (callback) => {
      sink.end();
      callback();
    },
    destroy: (error, callback) => {
      sink.destroy();
      callback(error);
    },
  });
  // A transport that is gone takes no more, even if nothing is being written.
  sink.on('close', () => !sink.writableFinished && output.destroy());
  output.on('error', () => {}); // a writer gets it in its callback; `input` reports it to all others
  return output;
}

async function settle(work: Promise<void>, callback: (error?: Error | null) => void): Promise<void> {
  let fault: Error | null = null;
  try {
    await work;
  } catch (error) {
    fault = error instanceof Error ? error : new Error(String(error));
  }
  callback(fault);
}
