import { FRAME_HEADER_BYTES } from '../../protocol/limits.ts';
import { MESSAGES } from '../../protocol/messages.ts';
import type { MessageName } from '../../protocol/messages.ts';
import { PREAMBLE } from '../../protocol/version.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';
import type { Direction } from './relay.ts';

/** A frame on its way, as its bytes. */
export interface PassingFrame {
  readonly direction: Direction;
  /** The number of this frame in its direction; 0 is the preamble. */
  readonly index: number;
  readonly name: MessageName | 'preamble';
  readonly bytes: Buffer;
}

/** The result of a bad line for a frame. */
export interface LineVerdict {
  /** The bytes that arrive in place of the frame. */
  readonly arrives: readonly Uint8Array[];
  /** `ends`: the receiver sees a clean end of the stream after that; `silent`: nothing more comes, and no end. */
  readonly and?: 'ends' | 'silent';
}

/** Decides about each frame; the frames of that direction wait for its promise. */
export type BadLine = (frame: PassingFrame) => LineVerdict | Promise<LineVerdict>;

/**
 * A line that knows where frames begin and nothing else: unlike `relay()`, which makes valid frames of what it passes
 * on, it loses, repeats, cuts and damages the bytes themselves.
 *
 * A line that has tampered with a frame and then carries nothing for `quietMs` is cut, as by a router that gave up: both sides may be waiting for the bytes that it swallowed, or for the rest of a frame whose length was damaged.
 */
export class FrameLine {
  readonly near: Transport;
  readonly far: Transport;
  /** True once the line was cut after it had gone quiet. */
  gaveUp = false;
  readonly #line: BadLine;
  readonly #quietMs: number;
  readonly #ends: Transport[];
  #quiet: NodeJS.Timeout | undefined;
  #tampered = false;

  constructor(line: BadLine, quietMs: number) {
    const [near, nearEnd] = memoryTransportPair();
    const [farEnd, far] = memoryTransportPair();
    // Nobody waits for the exit status of a process that does not exist.
    const exited = Promise.resolve({ status: null, signal: null, stderr: '' });
    this.near = { ...near, exited };
    this.far = { ...far, exited };
    this.#line = line;
    this.#quietMs = quietMs;
    this.#ends = [nearEnd, farEnd];
    void this.#carry('toFar', nearEnd, farEnd);
    void this.#carry('toNear', farEnd, nearEnd);
  }

  /** No timer and no stream of the line is left. */
  close(): void {
    clearTimeout(this.#quiet);
    for (const end of this.#ends) end.terminate();
  }

  async #carry(direction: Direction, from: Transport, to: Transport): Promise<void> {
    let index = 0;
    let state: LineVerdict['and'];
    try {
      for await (const frame of framesOf(from)) {
        if (state !== undefined) continue;
        this.#heard();
        const verdict = await this.#line({ direction, index: index++, ...frame });
        for (const bytes of verdict.arrives) if (!to.output.destroyed) to.output.write(bytes);
        if (verdict.arrives[0] !== frame.bytes && verdict.and === undefined) {
          this.#tampered = true;
          this.#heard();
        }
        state = verdict.and;
        if (state === 'ends') to.output.end();
      }
    } catch {
      // The side that spoke is gone in the middle of a frame; the other sees the end of the stream.
    }
    if (state === undefined) to.output.end();
  }

  #heard(): void {
    clearTimeout(this.#quiet);
    if (!this.#tampered) return;
    this.#quiet = setTimeout(() => {
      this.gaveUp = true;
      for (const end of this.#ends) end.output.end();
    }, this.#quietMs);
  }
}

/** The stream of one side in pieces: the preamble, then each frame as soon as it is complete. */
async function* framesOf(from: Transport): AsyncGenerator<{ name: PassingFrame['name']; bytes: Buffer }> {
  let held = Buffer.alloc(0);
  let preambleSeen = false;
  for await (const chunk of from.input as AsyncIterable<Buffer>) {
    held = Buffer.concat([held, chunk]);
    for (;;) {
      const length = preambleSeen ? frameBytes(held) : PREAMBLE.length;
      if (length === undefined || held.length < length) break;
      const bytes = held.subarray(0, length);
      yield { name: preambleSeen ? nameOfFrame(bytes) : 'preamble', bytes };
      held = held.subarray(length);
      preambleSeen = true;
    }
  }
}

function frameBytes(held: Buffer): number | undefined {
  return held.length < FRAME_HEADER_BYTES ? undefined : FRAME_HEADER_BYTES + held.readUInt32LE(0);
}

function nameOfFrame(frame: Buffer): MessageName {
  const names = Object.keys(MESSAGES) as MessageName[];
  return names.find((name) => MESSAGES[name].code === frame[4]) as MessageName;
}
