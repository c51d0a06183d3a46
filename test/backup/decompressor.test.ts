import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { decompressor } from '../../src/backup/decompressor.ts';
import { compressBody } from '../../src/backup/zstd.ts';
import { Random } from '../../fixtures/random.ts';

/** Bytes that compress, in memory of their own, and what they are compressed. */
async function made(seed: number, length: number): Promise<{ body: Uint8Array; packed: Uint8Array }> {
  const random = new Random(seed);
  const body = Uint8Array.from({ length }, () => random.integer(0, 7));
  const packed = await compressBody(body);
  return { body, packed: Uint8Array.from(packed) };
}

describe('the decompressor', () => {
  test('gives each result for its number, in whatever order it is asked', async () => {
    const all = await Promise.all([1, 2, 3, 4].map((seed) => made(seed, 300_000 + seed)));
    const ids = all.map(({ body, packed }) => decompressor.start(packed, body.length));
    for (const i of [2, 0, 3, 1]) {
      const { body } = all[i] as { body: Uint8Array };
      assert.deepEqual(decompressor.take(ids[i] as number), body);
    }
  });

  test('gives a result once, and without a turn of the event loop', async () => {
    const { body, packed } = await made(5, 400_000);
    const id = decompressor.start(packed, body.length);
    assert.deepEqual(decompressor.take(id), body);
    assert.equal(decompressor.take(id), undefined);
  });

  test('gives nothing for bytes that are no zstd, or more than they should be, and goes on', async () => {
    const { body, packed } = await made(6, 400_000);
    const garbage = decompressor.start(new Uint8Array(1000).fill(7), 100_000);
    const longer = decompressor.start(Uint8Array.from(packed), 1000);
    const good = decompressor.start(packed, body.length);
    assert.equal(decompressor.take(garbage), undefined);
    assert.equal(decompressor.take(longer), undefined);
    assert.deepEqual(decompressor.take(good), body);
  });

  test('forgets what nobody asked for when its thread has ended, and starts another', async () => {
    const first = await made(7, 300_000);
    const id = decompressor.start(first.packed, first.body.length);
    // The thread ends by a timer, which is no reason to wait for it by another clock.
    while (!decompressor.isIdle) await delay(50);
    assert.equal(decompressor.take(id), undefined);
    const second = await made(8, 300_000);
    assert.deepEqual(decompressor.take(decompressor.start(second.packed, second.body.length)), second.body);
  });
});
