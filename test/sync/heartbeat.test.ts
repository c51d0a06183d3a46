import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, mock, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { FrameEncoder, message } from '../../protocol/encode.ts';
import type { Message } from '../../protocol/messages.ts';
import { STATES } from '../../protocol/states.ts';
import type { State } from '../../protocol/states.ts';
import { PROTOCOL_VERSION } from '../../protocol/version.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { Heartbeat, PATIENCE_FACTOR } from '../../src/sync/link/heartbeat.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { PREAMBLE_BYTES } from '../protocol/oracle.ts';
import { relay } from '../support/relay.ts';
import { encodeFrame } from '../support/frames.ts';

const LIMIT_MS = 30_000;

/** A heartbeat under a clock that the test moves. */
function beating(context: TestContext, limitMs: number) {
  mock.timers.enable({ apis: ['setInterval'] });
  context.after(() => mock.timers.reset());
  const line = { signs: 0, lost: [] as number[], listens: true, busy: false };
  const heartbeat = new Heartbeat(
    {
      sendSign: () => void line.signs++,
      isListening: () => line.listens,
      isPeerBusy: () => line.busy,
      onLost: (silentMs) => void line.lost.push(silentMs),
    },
    limitMs,
  );
  context.after(() => heartbeat.stop());
  return { line, heartbeat, pass: (ms: number) => mock.timers.tick(ms) };
}

describe('a heartbeat', () => {
  test('a heartbeat gives a silent peer up after the limit, once', (context) => {
    const { line, pass } = beating(context, LIMIT_MS);
    pass(LIMIT_MS - 1);
    assert.deepEqual(line.lost, []);
    pass(1);
    assert.deepEqual(line.lost, [LIMIT_MS]);
    pass(10 * LIMIT_MS);
    assert.deepEqual(line.lost, [LIMIT_MS]);
  });

  test('a heartbeat gives nobody up with a limit of 0, and goes on to send signs', (context) => {
    const { line, pass } = beating(context, 0);
    pass(3_600_000);
    assert.deepEqual(line.lost, []);
    assert.equal(line.signs, 720);
  });

  test('a heartbeat sends signs only if nothing else was sent, several for each limit of the peer', (context) => {
    const { line, heartbeat, pass } = beating(context, LIMIT_MS);
    for (let i = 0; i < 100; i++) {
      heartbeat.onSent();
      heartbeat.onReceived();
      pass(2500);
    }
    assert.equal(line.signs, 0);
    pass(LIMIT_MS / 2);
    assert.ok(line.signs >= 3, `${line.signs} signs in half of the limit`);
  });

  test('a heartbeat begins to count anew with every byte', (context) => {
    const { line, heartbeat, pass } = beating(context, LIMIT_MS);
    for (let i = 0; i < 10; i++) {
      pass(LIMIT_MS * 0.9);
      heartbeat.onReceived();
    }
    assert.deepEqual(line.lost, []);
  });

  test('a heartbeat waits ten times as long for a peer that is busy', (context) => {
    const { line, pass } = beating(context, LIMIT_MS);
    line.busy = true;
    pass(LIMIT_MS * PATIENCE_FACTOR - 1);
    assert.deepEqual(line.lost, []);
    pass(1);
    assert.equal(line.lost.length, 1);
  });

  test('a heartbeat does not count the time in which this side takes nothing', (context) => {
    const { line, pass } = beating(context, LIMIT_MS);
    line.listens = false;
    pass(10 * LIMIT_MS);
    line.listens = true;
    pass(LIMIT_MS - 1);
    assert.deepEqual(line.lost, []);
    pass(2500);
    assert.equal(line.lost.length, 1);
  });
});

/** Blocks this process, as a slow disk would. */
function block(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

describe('a connection', () => {
  /**
   * Both ends of a connection, each in a state in which it waits for the other, with the bytes that passed
   * between them.
   */
  function pair(limitMs: number, nearState: State = 'driving', farState: State = 'serving') {
    const line = relay();
    const near = new Connection(line.near, nearState, { idleTimeoutMs: limitMs });
    const far = new Connection(line.far, farState, { idleTimeoutMs: limitMs });
    const end = (): void => {
      for (const { transport } of [near, far]) transport.terminate();
    };
    return { near, far, seen: line.seen, end };
  }

  test('a connection whose sides have nothing to say stays, by their signs of life', async () => {
    const { near, far, seen, end } = pair(480);
    const ends = Promise.all([assert.rejects(near.receive()), assert.rejects(far.receive())]);
    const signs = (): number => Math.min(...['toNear', 'toFar'].map((way) => count(seen, `${way} alive`)));
    while (signs() < 20) await delay(10); // Some 20 ticks; 12 ticks of silence would be the end.
    end();
    await ends;
  });

  test('a connection is not lost because this process was blocked for longer than the limit', async () => {
    const { near, far, seen, end } = pair(120);
    const ends = Promise.all([
      assert.rejects(near.receive(), { code: 'CONNECTION_LOST' }),
      far.receive().catch(() => {}),
    ]);
    for (let blocks = 0; blocks < 3; blocks++) {
      block(300);
      const before = seen.length;
      while (seen.length < before + 4) await delay(1);
    }
    far.transport.output.end();
    await ends;
    end();
  });

  test('a connection whose peer falls silent is TIMEOUT, and nobody waits any longer', async (context) => {
    const [nearEnd, farEnd] = memoryTransportPair();
    context.after(() => nearEnd.terminate());
    const near = new Connection(nearEnd, 'driving', { idleTimeoutMs: 120 });
    say(farEnd, [hello()]);
    await assert.rejects(near.receive(), { code: 'TIMEOUT', message: /has been silent for 0\.1 s/ });
  });

  test('a connection is patient with a peer that announced that it is busy, until its next message', async (context) => {
    const [nearEnd, farEnd] = memoryTransportPair();
    context.after(() => nearEnd.terminate());
    const near = new Connection(nearEnd, 'driving', { idleTimeoutMs: 120 });
    const write = say(farEnd, [hello(), message('alive', { busy: true })]);
    const signs = signsFrom(farEnd);
    const end = assert.rejects(near.receive(), { code: 'TIMEOUT' });
    await signs(30); // 300 ms.
    write(message('alive', { busy: false }));
    await end;
    assert.ok((await signs(0)) < 30 + 40, 'it went on to be patient');
  });

  test('a side tells its peer before it does work that may block it', async () => {
    const { near, far, seen, end } = pair(30_000);
    const ends = Promise.all([assert.rejects(far.receive()), assert.rejects(near.receive())]);
    const signs = await near.whileBusy(() => count(seen, 'toFar alive'));
    end();
    await ends;
    assert.equal(signs, 1);
  });

  for (const state of Object.keys(STATES) as State[]) {
    if (state === 'greeting') continue;
    test(`a connection takes signs of life in state ${state}, and waits on for a message`, async (context) => {
      const [nearEnd, farEnd] = memoryTransportPair();
      context.after(() => nearEnd.terminate());
      const near = new Connection(nearEnd, state, { idleTimeoutMs: 20_000 });
      const signs = [true, false, true].map((busy) => message('alive', { busy }));
      say(farEnd, [
        hello(),
        ...signs,
        message('error', { errorCode: 'BUSY', message: 'that is all', hint: '' }),
      ]);
      await assert.rejects(near.receive(), { code: 'BUSY' });
    });
  }

  test('a connection takes no sign of life before the greeting', async (context) => {
    const [nearEnd, farEnd] = memoryTransportPair();
    context.after(() => nearEnd.terminate());
    const near = new Connection(nearEnd, 'driving', { idleTimeoutMs: 20_000 });
    say(farEnd, [message('alive', { busy: true })]);
    await assert.rejects(near.receive(), { code: 'PROTOCOL', message: /alive in state greeting/ });
  });

  test('a connection keeps for the whole run the limit that the near side sent, or its own if that is shorter', async (context) => {
    for (const [theirs, own] of [
      [0, 30],
      [3_600_000, 30],
    ] as const) {
      const [, farEnd] = memoryTransportPair();
      context.after(() => farEnd.terminate());
      const far = new Connection(farEnd, 'serving', { idleTimeoutMs: 20_000 });
      const end = assert.rejects(far.receive(), { code: 'TIMEOUT', message: /not done after 0\.0 s/ });
      far.agree({ idleTimeoutMs: 0, maxTimeMs: theirs }, { maxTimeMs: own });
      const alive = setInterval(() => {}, 1000); // A limit alone does not keep a process alive.
      await end;
      clearInterval(alive);
    }
  });
});

function count(seen: readonly string[], what: string): number {
  return seen.filter((one) => one === what).length;
}

function hello(): Message {
  return message('hello', { minVersion: PROTOCOL_VERSION, maxVersion: PROTOCOL_VERSION, program: 'a peer' });
}

/** Sends these bytes, and returns a function that sends more. */
function say(transport: Transport, messages: readonly Message[]): (next: Message) => void {
  const encoder = new FrameEncoder(crc32);
  const write = (next: Message): void => void transport.output.write(encodeFrame(encoder, next));
  transport.output.write(PREAMBLE_BYTES);
  messages.forEach(write);
  return write;
}

/** Waits for so many pieces from the other side, and returns the number of pieces in all. */
function signsFrom(transport: Transport): (more: number) => Promise<number> {
  let seen = 0;
  transport.input.on('data', () => seen++);
  return async (more) => {
    for (const due = seen + more; seen < due;) await once(transport.input, 'data');
    return seen;
  };
}
