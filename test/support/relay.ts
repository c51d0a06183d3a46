import { FrameDecoder } from '../../protocol/decode.ts';
import { FrameEncoder } from '../../protocol/encode.ts';
import type { Message } from '../../protocol/messages.ts';
import { PREAMBLE } from '../../protocol/version.ts';
import { crc32 } from 'node:zlib';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { encodeFrame } from './frames.ts';

/** The direction of a message. */
export type Direction = 'toNear' | 'toFar';

export interface Passing {
  readonly direction: Direction;
  /** The number of this message in its direction, from 1. */
  readonly index: number;
  readonly message: Message;
}

/**
 * The fate of a message: the messages and bytes that are sent in its place (messages become valid frames,
 * bytes go as they are), or 'cut': the receiver sees a clean end of the stream, and everything that its
 * sender says from then on is lost.
 */
export type Verdict = readonly (Message | Uint8Array)[] | 'cut';

export interface Relay {
  readonly near: Transport;
  readonly far: Transport;
  /** Every message that came to the relay, as `toFar open`. */
  readonly seen: string[];
}

/**
 * A connection in memory with a relay in between that may drop, change and invent messages:
 *
 *     near agent ◄──► near ◄── decide() ──► far ◄──► far agent
 */
export function relay(decide: (passing: Passing) => Verdict = ({ message }) => [message]): Relay {
  const [near, nearEnd] = memoryTransportPair();
  const [farEnd, far] = memoryTransportPair();
  const seen: string[] = [];
  relayDirection('toFar', nearEnd, farEnd, decide, seen);
  relayDirection('toNear', farEnd, nearEnd, decide, seen);
  // Nobody waits for the exit status of a process that does not exist.
  const exited = Promise.resolve({ status: null, signal: null, stderr: '' });
  return { near: { ...near, exited }, far: { ...far, exited }, seen };
}

function relayDirection(
  direction: Direction,
  from: Transport,
  to: Transport,
  decide: (passing: Passing) => Verdict,
  seen: string[],
): void {
  const decoder = new FrameDecoder(crc32);
  const encoder = new FrameEncoder(crc32);
  let index = 0;
  let open = true;
  const end = (): void => {
    open = false;
    to.output.end();
  };
  const pass = (message: Message): void => {
    index++;
    seen.push(`${direction} ${message.type}`);
    if (!open) return;
    const verdict = decide({ direction, index, message });
    if (verdict === 'cut') return end();
    for (const part of verdict)
      to.output.write(part instanceof Uint8Array ? part : encodeFrame(encoder, part));
  };
  to.output.write(new TextEncoder().encode(PREAMBLE));
  from.input.on('data', (bytes: Uint8Array) => {
    decoder.push(bytes);
    for (let next = decoder.next(); next !== undefined; next = decoder.next()) pass(next);
  });
  from.input.on('end', () => open && end());
}
