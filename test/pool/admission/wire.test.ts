import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { Coordinator } from '../../../src/pool/admission/coordinator.ts';
import { QueueSocket } from '../../../src/pool/admission/queue-socket.ts';
import {
  encodeFrame,
  FRAME_BYTES,
  FrameReader,
  REPLIES,
  REQUESTS,
  WIRE_VERSION,
} from '../../../src/pool/admission/wire.ts';
import type { Reply, Request } from '../../../src/pool/admission/wire.ts';
import { tempDir } from '../../support/compare.ts';
import { makeDatabase, openCoordinator, openMembers, socketPath } from './admission-process.ts';

/**
 * The limit of each test: that of a suite would hold for all its tests together, which take longer on a busy
 * machine.
 */
const TIMEOUT = { timeout: 120_000 };

const requestArbitrary = fc.record(
  {
    type: fc.constantFrom(...(Object.keys(REQUESTS) as Request[])),
    number: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    flag: fc.boolean(),
    timeUs: fc.double({ min: 0, max: Number.MAX_SAFE_INTEGER, noNaN: true }),
  },
  { noNullPrototype: true },
);

/** `bytes` in pieces that end at `cuts`. */
function pieces(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const ends = [...cuts.map((cut) => cut % (bytes.length + 1)), bytes.length].sort((a, b) => a - b);
  return ends.map((end, index) => bytes.subarray(ends[index - 1] ?? 0, end));
}

describe('a frame of the queue', () => {
  it('a frame of the queue reads as it was written, in any pieces of the stream', () => {
    fc.assert(
      fc.property(fc.array(requestArbitrary), fc.array(fc.nat()), (requests, cuts) => {
        const bytes = Buffer.concat(
          requests.map(({ type, number, flag, timeUs }) => encodeFrame(REQUESTS[type], number, flag, timeUs)),
        );
        const reader = new FrameReader<Request>(REQUESTS);
        const read = pieces(bytes, cuts).flatMap((piece) => reader.read(piece) ?? assert.fail('refused'));
        assert.deepEqual(read, requests);
      }),
    );
  });

  const wrong: Record<string, (frame: Buffer) => unknown> = {
    'an unknown type': (frame) => (frame[0] = 99),
    'a type of the other direction': (frame) => (frame[0] = 18),
    'a flag of 2': (frame) => (frame[1] = 2),
    'bytes that are not zero where they have to be': (frame) => (frame[3] = 1),
    'a time before 0': (frame) => frame.writeDoubleLE(-1, 8),
    'a time that is no number': (frame) => frame.writeDoubleLE(NaN, 8),
    'a time without an end': (frame) => frame.writeDoubleLE(Infinity, 8),
  };
  for (const [what, spoil] of Object.entries(wrong)) {
    it(`a frame of the queue is refused with ${what}`, () => {
      const frame = encodeFrame(REQUESTS.enter, 1, false, 1);
      assert.equal(new FrameReader(REQUESTS).read(frame)?.length, 1);
      spoil(frame);
      assert.equal(new FrameReader(REQUESTS).read(frame), undefined);
    });
  }

  it('a frame of any bytes is refused or read', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.array(fc.nat()), (bytes, cuts) => {
        const reader = new FrameReader(REQUESTS);
        for (const piece of pieces(Buffer.from(bytes), cuts)) if (reader.read(piece) === undefined) return;
      }),
    );
  });
});

describe('a coordinator', () => {
  const hello = encodeFrame(REQUESTS.hello, WIRE_VERSION);
  const enter = encodeFrame(REQUESTS.enter, 1, false, 1);

  /** Resolves when the other end has hung up. */
  async function hungUp(socket: Socket): Promise<void> {
    socket.resume().on('error', () => {});
    if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
  }

  it(
    'a coordinator hangs up on a member that sends anything but frames in their order, and goes on',
    TIMEOUT,
    async (t) => {
      const path = makeDatabase(join(tempDir(t), 'app.db'));
      const coordinator = await openCoordinator(t, path);
      const [member] = await openMembers(t, path, 1);
      const stranger = (...bytes: readonly Uint8Array[]): Promise<void> => {
        const socket = connect(socketPath(path));
        socket.write(Buffer.concat(bytes));
        return hungUp(socket);
      };
      await stranger(Buffer.from('GET / HTTP/1.1\r\n\r\n'));
      await stranger(enter);
      await stranger(hello, hello);
      await stranger(hello, enter, Buffer.alloc(FRAME_BYTES, 0xff));
      await fc.assert(
        fc.asyncProperty(fc.uint8Array({ minLength: 64, maxLength: 4096 }), async (bytes) => {
          await stranger(Buffer.from(bytes), Buffer.alloc(FRAME_BYTES, 0xff));
        }),
        { numRuns: 30 },
      );
      await coordinator.enterByGrant();
      const waiting = await member?.enter();
      await coordinator.untilOver();
      await coordinator.leave();
      await waiting?.turn;
    },
  );

  it(
    'a coordinator hangs up on a member that floods it, and on one that asks without reading',
    TIMEOUT,
    async (t) => {
      const path = makeDatabase(join(tempDir(t), 'app.db'));
      await openCoordinator(t, path);
      const [member] = await openMembers(t, path, 1);
      for (const request of ['ask', 'enter'] as const) {
        const frames = Buffer.concat([
          hello,
          ...Array.from({ length: 100_000 }, (_, turn) => encodeFrame(REQUESTS[request], turn, false, 1)),
        ]);
        const socket = connect(socketPath(path)).on('error', () => {});
        socket.pause();
        const closed = new Promise((resolve) => socket.once('close', resolve));
        // The test writes it again and again until nobody takes it any more.
        const flood = (): void => void (socket.writable && socket.write(frames, flood));
        flood();
        await closed;
      }
      await member?.enterNow();
    },
  );

  it('a coordinator is not held up by a connection that says nothing', TIMEOUT, async (t) => {
    const path = makeDatabase(join(tempDir(t), 'app.db'));
    await openCoordinator(t, path);
    const silent = Array.from({ length: 50 }, () => connect(socketPath(path)));
    await Promise.all(silent.map((socket) => once(socket, 'connect')));
    const [member] = await openMembers(t, path, 1);
    await member?.enterNow();
    for (const socket of silent) socket.destroy();
  });

  it(
    'a coordinator hands on at once when the connection of a holder closes, before any time is up',
    TIMEOUT,
    async (t) => {
      const path = makeDatabase(join(tempDir(t), 'app.db'));
      // A holder that does not answer for long loses the turn too: not here, where the clock of the queue
      // stands still.
      t.mock.timers.enable({ apis: ['setInterval'] });
      const coordinator = new Coordinator(new QueueSocket(path));
      t.after(() => coordinator.close());
      const turnOf = (since: number): { socket: Socket; granted: Promise<void> } => {
        const socket = connect(socketPath(path));
        const reader = new FrameReader<Reply>(REPLIES);
        socket.write(Buffer.concat([hello, encodeFrame(REQUESTS.enter, 1, false, since)]));
        const granted = new Promise<void>((resolve) => {
          socket.on('data', (chunk) => {
            if (reader.read(chunk)?.some(({ type }) => type === 'granted') === true) resolve();
          });
        });
        return { socket, granted };
      };
      const holder = turnOf(1);
      await holder.granted;
      const next = turnOf(2);
      // It waits: the coordinator tells the holder.
      await once(holder.socket, 'data');
      holder.socket.destroy();
      await next.granted;
      next.socket.destroy();
    },
  );

  it('a coordinator hangs up on another version', TIMEOUT, async (t) => {
    const path = makeDatabase(join(tempDir(t), 'app.db'));
    const coordinator = new Coordinator(new QueueSocket(path));
    t.after(() => coordinator.close());
    const socket = connect(socketPath(path));
    socket.write(encodeFrame(REQUESTS.hello, WIRE_VERSION + 1));
    await hungUp(socket);
  });
});
