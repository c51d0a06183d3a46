import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { requestCounts } from '../../src/backup/backends/remote/request-counts.ts';
import { RemoteReader } from '../../src/backup/backends/remote/remote-reader.ts';
import { S3Backend } from '../../src/backup/backends/s3/s3-backend.ts';
import { SERVER_KEYS } from '../support/s3-server.ts';
import { startServerThread } from '../support/s3-server-thread.ts';

const NAME = `packs/${'ab'.repeat(32)}`;
const FILE = Buffer.alloc(6_000_000, 'some text of a length that is prime, or so');

/** In ms. */
const LIMITS = { firstPauseMs: 1, idleMs: 60_000, attempts: 3 };

process.env['AWS_ACCESS_KEY_ID'] = SERVER_KEYS.accessKeyId;
process.env['AWS_SECRET_ACCESS_KEY'] = SERVER_KEYS.secretAccessKey;

describe('a reader that waits for S3', () => {
  test('a reader that goes through a file gets what was read ahead, and no byte twice', async (t) => {
    const server = await startServerThread(t);
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    await backend.put(NAME, [FILE]);
    const readsBefore = requestCounts.reads;
    const step = 50_000;
    for (let offset = 0; offset < FILE.length + step; offset += step) {
      const bytes = backend.getNow(NAME, { offset, length: step });
      assert.ok(FILE.subarray(offset, offset + step).equals(bytes), `at ${offset}`);
    }
    const { requests, bytes } = amountOf(await server.ranges(), FILE.length);
    assert.ok(requests <= 20, `${requests} requests`);
    assert.ok(bytes <= FILE.length * 1.1, `${bytes} bytes`);
    // What the thread sends counts here; a last answer may still be on its way.
    assert.ok(requestCounts.reads > readsBefore + 3);
  });

  test('a reader that goes through more than it keeps gets no byte twice', async (t) => {
    const server = await startServerThread(t);
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    const large = Buffer.alloc(70_000_000, FILE.subarray(0, 1_000_003));
    await backend.put(NAME, [large]);
    const step = 300_000;
    for (let offset = 0; offset < large.length; offset += step) {
      const bytes = backend.getNow(NAME, { offset, length: step });
      assert.ok(large.subarray(offset, offset + step).equals(bytes), `at ${offset}`);
    }
    const { bytes } = amountOf(await server.ranges(), large.length);
    assert.ok(bytes <= large.length * 1.1, `${bytes} bytes`);
  });

  test('a reader that planned its reads sends one request for each range, and reads nothing ahead', async (t) => {
    const server = await startServerThread(t);
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    await backend.put(NAME, [FILE]);
    const planned = [3_000_000, 100_000, 1_000_000];
    for (const offset of planned) backend.plan(NAME, { offset, length: 400_000 });
    for (const offset of planned.toSorted((a, b) => a - b))
      for (let at = offset; at < offset + 400_000; at += 50_000)
        assert.ok(
          FILE.subarray(at, at + 50_000).equals(backend.getNow(NAME, { offset: at, length: 50_000 })),
        );
    assert.deepEqual(amountOf(await server.ranges(), FILE.length), { requests: 3, bytes: 1_200_000 });
  });

  test('a reader gets any part of a file, whatever it read before', async (t) => {
    const server = await startServerThread(t);
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    await backend.put(NAME, [FILE]);
    const parts = [
      [10, 20],
      [0, 100],
      [5, 3_000_000],
      [2_999_000, 2000],
      [FILE.length - 1, 10],
      [FILE.length - 100, 100],
      [FILE.length, 1],
      [FILE.length + 7, 5],
      [0, FILE.length + 10],
      [1_000_000, 1],
    ] as const;
    for (const [offset, length] of [...parts, ...parts.toReversed()]) {
      backend.expect(NAME, { offset: offset + 3, length });
      const bytes = backend.getNow(NAME, { offset, length });
      assert.ok(FILE.subarray(offset, offset + length).equals(bytes), `${length} bytes at ${offset}`);
    }
    assert.ok(FILE.equals(backend.getNow(NAME)));
  });

  test('a reader hears of what it expects when it has come', async (t) => {
    const server = await startServerThread(t);
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    await backend.put(NAME, [FILE]);
    const range = { offset: 1000, length: 500 };
    assert.equal(backend.expect(NAME, range), false);
    assert.ok(FILE.subarray(1000, 1500).equals(backend.getNow(NAME, range)));
    assert.equal(backend.expect(NAME, range), true);
    assert.equal((await server.ranges()).length, 1);
  });

  test('a reader asks again after a failure that it did not wait for', async (t) => {
    const server = await startServerThread(t);
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    const range = { offset: 0, length: 10 };
    backend.expect(NAME, range);
    assert.throws(() => backend.getNow(NAME, range), { code: 'STORE_FILE_MISSING' });
    await backend.put(NAME, [FILE]);
    assert.ok(FILE.subarray(0, 10).equals(backend.getNow(NAME, range)));
  });

  test('a reader takes its part of an answer that has all of the file', async (t) => {
    const server = await startServerThread(t, { ignoresRanges: true });
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    await backend.put(NAME, [FILE]);
    assert.ok(FILE.subarray(100, 150).equals(backend.getNow(NAME, { offset: 100, length: 50 })));
  });

  test('a reader hears that its thread has died, and a later one gets another thread', () => {
    const program = new URL('../support/dying-read-thread.ts', import.meta.url);
    const reader = new RemoteReader({ address: 's3:bucket/store' }, program);
    for (const range of [{ offset: 0, length: 10 }, undefined])
      assert.throws(() => reader.getNow(NAME, range), {
        code: 'STORE_UNAVAILABLE',
        message: /s3:bucket\/store.*cannot read packs.*the thread that reads has ended/,
      });
  });

  test('a reader hears why it cannot read', async (t) => {
    const server = await startServerThread(t, { twist: { status: 404 } });
    const backend = new S3Backend({ address: server.address, limits: LIMITS });
    assert.throws(() => backend.getNow(NAME), { code: 'STORE_UNAVAILABLE', message: /404/ });
    const gone = new S3Backend({ address: 's3:http://127.0.0.1:1/bucket/store', limits: LIMITS });
    const range = { offset: 0, length: 10 };
    assert.throws(() => gone.getNow(NAME, range), { code: 'STORE_UNAVAILABLE', message: /ECONNREFUSED/ });
  });
});

/** What these ranges of a file come to. */
function amountOf(
  ranges: readonly (string | undefined)[],
  fileBytes: number,
): { requests: number; bytes: number } {
  let bytes = 0;
  for (const range of ranges) {
    const [from = 0, to = 0] =
      /(\d+)-(\d+)/
        .exec(range ?? '')
        ?.slice(1)
        .map(Number) ?? [];
    bytes += Math.max(0, Math.min(to + 1, fileBytes) - from);
  }
  return { requests: ranges.length, bytes };
}
