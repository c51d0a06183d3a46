import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { Coordinator } from '../../../src/pool/admission/coordinator.ts';
import { observeQueue } from '../../../src/pool/admission/observe.ts';
import { QueueSocket } from '../../../src/pool/admission/queue-socket.ts';
import { encodeText, TextReader } from '../../../src/pool/admission/texts.ts';
import {
  encodeFrame,
  FrameReader,
  REPLIES,
  REQUESTS,
  WIRE_VERSION,
} from '../../../src/pool/admission/wire.ts';
import type { Reply, Request } from '../../../src/pool/admission/wire.ts';
import { tempDir } from '../../support/compare.ts';
import { makeDatabase, openMembers, socketPath } from './admission-process.ts';

const TIMEOUT = { timeout: 120_000 };
/** Longer than the test may take: only the coordinator ends the wait. */
const FOR_EVER_MS = 600_000;

/** A connection in the queue, which does `act` when it is asked to describe itself. Resolves when it is greeted. */
async function member(
  t: TestContext,
  path: string,
  act?: (socket: Socket, question: number) => void,
): Promise<void> {
  const socket = connect(socketPath(path)).on('error', () => {});
  t.after(() => socket.destroy());
  const reader = new FrameReader<Reply>(REPLIES);
  socket.write(encodeFrame(REQUESTS.hello, WIRE_VERSION, act !== undefined));
  await new Promise<void>((greeted) => {
    socket.on('data', (chunk) => {
      for (const { type, number } of reader.read(chunk) ?? assert.fail('no frames')) {
        if (type === 'describe') act?.(socket, number);
        if (type === 'state') greeted();
      }
    });
  });
}

function telling(text: string): (socket: Socket, question: number) => void {
  return (socket, question) => void socket.write(encodeText(REQUESTS.tell, question, text));
}

describe('what the members of a queue tell', () => {
  it('a text reads as it was written, in frames of six bytes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 200 }), (text) => {
        fc.pre(!text.endsWith('\0'));
        const frames = new FrameReader<Request>(REQUESTS).read(encodeText(REQUESTS.tell, 7, text)) ?? [];
        const reader = new TextReader();
        const read = frames.map((frame) => reader.take(frame));
        assert.deepEqual(read, [...frames.slice(1).map(() => undefined), text]);
      }),
    );
  });

  it('a text without an end, and a piece that is no six bytes, are refused', () => {
    const piece = { type: 'told', flag: false, number: 1, timeUs: 1 };
    const endless = new TextReader();
    assert.throws(() => Array.from({ length: 1000 }, () => endless.take(piece)), RangeError);
    assert.throws(() => new TextReader().take({ ...piece, timeUs: 2 ** 48 }), RangeError);
  });

  it(
    'an observer gets what each member tells, and waits for none that is gone or is not asked',
    TIMEOUT,
    async (t) => {
      const path = makeDatabase(join(tempDir(t), 'app.db'));
      assert.deepEqual(await observeQueue(path), []);
      const coordinator = new Coordinator(new QueueSocket(path));
      t.after(() => coordinator.close());
      assert.deepEqual(await observeQueue(path, FOR_EVER_MS), []);
      await member(t, path, telling('one'));
      await member(t, path, telling('two'.repeat(100)));
      await member(t, path, telling(''));
      await member(t, path, (socket) => socket.destroy());
      await member(t, path);
      const texts = await observeQueue(path, FOR_EVER_MS);
      assert.deepEqual(texts.toSorted(), ['one', 'two'.repeat(100)]);
    },
  );

  it('an observer goes on without a member that does not answer', TIMEOUT, async (t) => {
    const path = makeDatabase(join(tempDir(t), 'app.db'));
    const coordinator = new Coordinator(new QueueSocket(path));
    t.after(() => coordinator.close());
    await member(t, path, () => {});
    await member(t, path, telling('one'));
    let texts: string[] = [];
    // On a busy machine the others may take longer than it waits, too.
    while (texts.length === 0) texts = await observeQueue(path, 100);
    assert.deepEqual(texts, ['one']);
  });

  it('observers disturb no member, however many they are and whenever they go', TIMEOUT, async (t) => {
    const path = makeDatabase(join(tempDir(t), 'app.db'));
    const coordinator = new Coordinator(new QueueSocket(path));
    t.after(() => coordinator.close());
    const [real] = await openMembers(t, path, 1);
    await member(t, path, telling('x'.repeat(4000)));
    const waits = Array.from({ length: 200 }, (_, i) => observeQueue(path, i % 2 === 0 ? FOR_EVER_MS : 1));
    const texts = await Promise.all(waits);
    const waited = texts.filter((_, i) => i % 2 === 0);
    assert.ok(waited.every((each) => each.length === 1 && each[0]?.length === 4000));
    assert.equal((await observeQueue(path, FOR_EVER_MS))[0]?.length, 4000);
    await real?.enterNow();
  });

  it('a member may not tell what nobody asked for without an end', TIMEOUT, async (t) => {
    const path = makeDatabase(join(tempDir(t), 'app.db'));
    const coordinator = new Coordinator(new QueueSocket(path));
    t.after(() => coordinator.close());
    const socket = connect(socketPath(path)).on('error', () => {});
    const frames = Buffer.concat(Array.from({ length: 20_000 }, () => encodeText(REQUESTS.tell, 1, 'x')));
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.resume().write(encodeFrame(REQUESTS.hello, WIRE_VERSION));
    const flood = (): void => void (socket.writable && socket.write(frames, flood));
    flood();
    await closed;
  });
});
