import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { Random } from '../../fixtures/random.ts';
import { FrameDecoder } from '../../protocol/decode.ts';
import type { Message, MessageName } from '../../protocol/messages.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { PREAMBLE_BYTES } from '../protocol/oracle.ts';
import { detached } from '../support/frames.ts';
import { looseFrame, mutateBytes, mutateFields } from './mutate.ts';

/** An agent under attack; resolves at its end, however it ends. */
export type Victim = (transport: Transport) => Promise<unknown>;

export interface HostileOptions {
  /** Probability with which a message is mutated. */
  readonly mutationRate: number;
  /** These messages pass unchanged, so that the conversation gets to the later ones. */
  readonly spared: ReadonlySet<MessageName>;
}

/** Runs one session; throws if it found a fault. */
export type Attack = (random: Random) => Promise<{ readonly mutated: number; readonly how: string }>;

/** How a session ended. */
export interface SessionEnd {
  readonly failure: SqlsyncError | undefined;
  /** Mutated messages that the victim took from its connection, including the one that ended it. */
  readonly mutated: number;
}

/** Longer than any of these sessions takes by a thousand times. */
const HANG_MS = 30_000;

/** A conversation in which nothing moves for so long waits for a message that the mutations took away. */
const QUIET_MS = 15;

/** Messages that each connection has given to its agent, or refused, so far. */
const taken = new WeakMap<Transport, number>();

/** Counts the messages that agents take; the rest of a stream that ended at its third message proves nothing. */
export function countTaken(): void {
  const poll = Object.getOwnPropertyDescriptor(Connection.prototype, 'poll')?.value as Connection['poll'];
  const count = (transport: Transport): void => void taken.set(transport, (taken.get(transport) ?? 0) + 1);
  Connection.prototype.poll = function (this: Connection): Message | undefined {
    try {
      const next = poll.call(this);
      if (next !== undefined) count(this.transport);
      return next;
    } catch (error) {
      count(this.transport);
      throw error;
    }
  };
}

/** A hostile peer with a script: it sends the messages of `script`, each perhaps mutated, and listens to nothing. */
export async function runScript(
  victim: Victim,
  script: readonly Message[],
  random: Random,
  options: HostileOptions,
): Promise<SessionEnd> {
  const [here, there] = pairWithoutExit();
  const line = new HostileLine(here, random, options);
  const ended = ending(victim(there));
  here.input.resume();
  for (const next of script) line.say(next);
  return line.finish(ended, there, 'at once');
}

/** A hostile peer in the middle: `honest` answers `victim`, and its messages are mutated on the way. */
export async function runBetween(
  victim: Victim,
  honest: Victim,
  random: Random,
  options: HostileOptions,
): Promise<SessionEnd> {
  const [toVictim, victimEnd] = pairWithoutExit();
  const [toHonest, honestEnd] = pairWithoutExit();
  const line = new HostileLine(toVictim, random, options);
  const ended = ending(victim(victimEnd));
  const peer = ending(honest(honestEnd));
  const decoder = new FrameDecoder(crc32);
  const corpus: Message[] = [];
  toHonest.input.on('data', (bytes: Uint8Array) => {
    decoder.push(bytes);
    for (let next = decoder.next(); next !== undefined; next = decoder.next()) {
      corpus.push(detached(next));
      line.say(next, corpus);
    }
  });
  toVictim.input.on('data', (bytes: Uint8Array) => {
    line.touch();
    if (!toHonest.output.destroyed) toHonest.output.write(bytes);
  });
  const end = await line.finish(ended, victimEnd);
  toHonest.terminate();
  await settled(peer, 'the honest peer');
  return end;
}

/** Nobody waits for the exit status of a process that does not exist. */
function pairWithoutExit(): [Transport, Transport] {
  const exited = Promise.resolve({ status: null, signal: null, stderr: '' });
  const [near, far] = memoryTransportPair();
  return [
    { ...near, exited },
    { ...far, exited },
  ];
}

/** The attacker's messages, with the numbers and checksums that make them pass for frames. */
class HostileLine {
  readonly #transport: Transport;
  readonly #random: Random;
  readonly #options: HostileOptions;
  /** For each frame, whether it is a mutated one. */
  readonly #frames: boolean[] = [];
  #activity = 0;
  #over = false;

  constructor(transport: Transport, random: Random, options: HostileOptions) {
    this.#transport = transport;
    this.#random = random;
    this.#options = options;
    transport.output.write(PREAMBLE_BYTES);
  }

  touch(): void {
    this.#activity++;
  }

  /** Sends the message, or another one; `replay` holds the earlier messages. */
  say(message: Message, replay?: readonly Message[]): void {
    this.touch();
    const random = this.#random;
    const { spared, mutationRate } = this.#options;
    if (spared.has(message.type) || !random.chance(mutationRate)) return this.#send(message, false);
    const how = random.integer(0, 9);
    if (how === 0) return; // Left out.
    if (how === 1) this.#send(message, true); // Sent twice.
    if (how === 2 && replay !== undefined) this.#send(random.pick(replay), true);
    if (how === 3) this.#send(mutateFields(random, message), true);
    if (how <= 3) return this.#send(message, how === 0);
    if (how <= 8) return this.#send(mutateFields(random, message), true);
    this.#write(mutateBytes(random, looseFrame(message, this.#frames.length)), true);
  }

  /** Ends the stream, by default when the victim waits for us. Fails if the victim goes on after that. */
  async finish(
    ended: Promise<SqlsyncError | undefined>,
    victimEnd: Transport,
    when?: 'at once',
  ): Promise<SessionEnd> {
    let failure: SqlsyncError | 'waiting' | undefined = 'waiting';
    for (let before = -1; when === undefined && failure === 'waiting' && before !== this.#activity;) {
      before = this.#activity;
      failure = await Promise.race([ended, delay(QUIET_MS, 'waiting' as const)]);
    }
    this.#over = true;
    this.#transport.output.end();
    failure = await settled(ended, 'the victim');
    this.#transport.terminate();
    if (failure?.code === 'INTERNAL') throw new Error('a bug was met', { cause: failure });
    const frames = this.#frames.slice(0, taken.get(victimEnd) ?? 0);
    return { failure, mutated: frames.filter(Boolean).length };
  }

  #send(message: Message, mutated: boolean): void {
    this.#write(looseFrame(message, this.#frames.length), mutated);
  }

  #write(frame: Uint8Array, mutated: boolean): void {
    if (this.#over || this.#transport.output.destroyed) return;
    this.#frames.push(mutated);
    this.#transport.output.write(frame);
  }
}

function ending(work: Promise<unknown>): Promise<SqlsyncError | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => {
      if (error instanceof SqlsyncError) return error;
      throw new Error('it ended with what is no SqlsyncError', { cause: error });
    },
  );
}

async function settled<T>(work: Promise<T>, who: string): Promise<T> {
  const timer = new AbortController();
  try {
    const hung = delay(HANG_MS, undefined, { signal: timer.signal }).then((): never =>
      assert.fail(`${who} hangs`),
    );
    return await Promise.race([work, hung]);
  } finally {
    timer.abort();
  }
}
