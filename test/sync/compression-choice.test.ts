import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CompressionChoice } from '../../src/sync/link/compression-choice.ts';

const BATCH_BYTES = 1024 * 1024;
const OUTSTANDING = 8;
const ZSTD_RATIO = 0.6;

/** Two agents and a line, in bytes of whole pages a millisecond; `line` may change with the time. */
interface World {
  readonly line: (clockMs: number) => number;
  /** What the sender compresses, and all that it reads and hashes. */
  readonly zstd?: number;
  readonly sender?: number;
  readonly receiver?: number;
  readonly batches: number;
}

const MBIT = 1e6 / 8 / 1000;
const ENDLESS = 1e12;

/** Sends batches as the agents do, a bounded number under way. Returns for each whether it was compressed. */
function send({ line, zstd = 280e3, sender = 1500e3, receiver = 600e3, batches }: World): boolean[] {
  let [clockMs, senderFree, lineFree, receiverFree] = [0, 0, 0, 0];
  const choice = new CompressionChoice(() => clockMs);
  const requests: number[] = Array.from({ length: OUTSTANDING }, () => 0);
  const compressed: boolean[] = [];
  for (let batch = 0; batch < batches; batch++) {
    clockMs = Math.max(requests.shift() ?? 0, senderFree);
    const isCompressed = choice.begin(BATCH_BYTES) === 'zstd';
    clockMs += BATCH_BYTES / sender + (isCompressed ? BATCH_BYTES / zstd : 0);
    choice.end();
    senderFree = clockMs;
    lineFree = Math.max(lineFree, clockMs) + (BATCH_BYTES * (isCompressed ? ZSTD_RATIO : 1)) / line(clockMs);
    receiverFree = Math.max(receiverFree, lineFree) + BATCH_BYTES / receiver;
    requests.push(receiverFree);
    compressed.push(isCompressed);
  }
  return compressed;
}

function share(flags: readonly boolean[]): number {
  return flags.filter(Boolean).length / flags.length;
}

for (const mbit of [1, 50, 300]) {
  test(`over a line of ${mbit} Mbit/s all whole pages are compressed`, () => {
    assert.equal(share(send({ line: () => mbit * MBIT, batches: 1000 })), 1);
  });
}

test('over a line of 300 Mbit/s practically all pages are compressed by a slow processor, too', () => {
  const flags = send({ line: () => 300 * MBIT, zstd: 100e3, sender: 600e3, batches: 2000 });
  assert.ok(share(flags) > 0.9, String(share(flags)));
});

test('over a line faster than zstd only the first pages of a copy are compressed', () => {
  const flags = send({ line: () => ENDLESS, batches: 1000 });
  assert.ok(flags.slice(0, 32).every(Boolean), 'a small change is compressed whole');
  assert.equal(share(flags.slice(40)), 0);
});

test('compression starts again where the line has become slow, and stops where it is fast again', () => {
  const slowFrom = 3000;
  const slowTo = 60_000;
  const line = (clockMs: number): number => (clockMs > slowFrom && clockMs < slowTo ? 50 * MBIT : ENDLESS);
  const flags = send({ line, batches: 4000 });
  const firstRaw = flags.indexOf(false);
  const again = flags.indexOf(true, firstRaw);
  const slow = flags.slice(again, again + 500);
  assert.ok(firstRaw > 0 && again > firstRaw);
  assert.equal(share(slow), 1);
  assert.ok(share(flags.slice(-500)) < 0.1, 'fast again');
});

test('pages are compressed for a receiver that is slower than zstd', () => {
  assert.equal(share(send({ line: () => ENDLESS, receiver: 60e3, batches: 1000 })), 1);
});
