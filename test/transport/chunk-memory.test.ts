import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freeChunk, freeMemory } from '../../src/transport/chunk-memory.ts';

const LARGE = 3 * Buffer.poolSize;

test('a chunk that has its buffer to itself is freed, also with the frame of a packet around it', () => {
  for (const bytes of [LARGE, Buffer.poolSize]) {
    const whole = Buffer.allocUnsafeSlow(bytes);
    freeChunk(whole);
    assert.equal(whole.length, 0);
    const framed = Buffer.allocUnsafeSlow(bytes).subarray(10, bytes - 16);
    freeChunk(framed);
    assert.equal(framed.length, 0);
  }
});

test('a chunk is left alone if others may use its buffer, or may have taken it from the pool', () => {
  const half = Buffer.allocUnsafeSlow(LARGE).subarray(0, LARGE / 2);
  freeChunk(half);
  assert.equal(half.length, LARGE / 2);
  // Allocations of every size that Node.js may take from its pool, until the pool has changed.
  for (let bytes = 1; bytes <= Buffer.poolSize; bytes = bytes * 2 + 1) {
    const [mine, neighbour] = [Buffer.allocUnsafe(bytes), Buffer.allocUnsafe(16)];
    const isAlone = mine.buffer !== neighbour.buffer && mine.buffer.byteLength === bytes;
    if (isAlone) continue;
    for (const free of [freeChunk, freeMemory]) free(mine);
    assert.equal(mine.length, bytes);
    assert.equal(neighbour.length, 16);
  }
});

test('a buffer is freed as a whole, whichever part of it is named', () => {
  const buffer = Buffer.allocUnsafeSlow(LARGE);
  freeMemory(buffer.subarray(5, 10));
  assert.equal(buffer.length, 0);
});
