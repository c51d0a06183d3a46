import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { Writable } from 'node:stream';
import { test } from 'node:test';
import { pageCount, pageNumber, pageSize } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { PageStream } from '../../src/sync/stream/page-stream.ts';
import { StreamDestination } from '../../src/sync/stream/stream-destination.ts';

const SIZE = pageSize(65_536) as PageSize;
const target = (pages: number) => ({ pageSize: SIZE, pageCount: pageCount(pages), fileMode: 0o600 });

/** Hashes what it gets, and waits for nothing. */
function hashing(): { out: Writable; digest: () => string } {
  const hash = createHash('sha256');
  const write = (chunk: Uint8Array, _: string, done: () => void): void => {
    hash.update(chunk);
    done();
  };
  return { out: new Writable({ write }), digest: () => hash.digest('hex') };
}

test('the lock-byte page, which never travels, is zeros at its place, also at the end', async () => {
  const page = Buffer.alloc(SIZE, 7);
  for (const pages of [16_385, 16_386]) {
    const { out, digest } = hashing();
    const stream = new PageStream(out, undefined);
    const destination = new StreamDestination(stream);
    const sink = await destination.openSink(target(pages));
    const expected = createHash('sha256');
    for (let number = 1; number <= pages; number++) {
      expected.update(number === 16_385 ? Buffer.alloc(SIZE) : page);
      if (number === 16_385) continue;
      sink.write(pageNumber(number), page);
      await sink.ready?.();
    }
    await destination.settle(sink);
    assert.equal(stream.bytes, pages * SIZE);
    assert.equal(digest(), expected.digest('hex'));
  }
});

test('a page that is not next is refused, and a copy that lacks the last page is not complete', async () => {
  const destination = new StreamDestination(new PageStream(hashing().out, undefined));
  const sink = await destination.openSink(target(3));
  sink.write(pageNumber(1), Buffer.alloc(SIZE));
  assert.throws(() => sink.write(pageNumber(3), Buffer.alloc(SIZE)), { code: 'PROTOCOL' });
  sink.write(pageNumber(2), Buffer.alloc(SIZE));
  await assert.rejects(destination.settle(sink), /page 3 of 3 is missing/);
});

test('a second attempt is refused once bytes were written', async () => {
  const destination = new StreamDestination(new PageStream(hashing().out, undefined));
  const sink = await destination.openSink(target(2));
  sink.write(pageNumber(1), Buffer.alloc(SIZE));
  assert.throws(() => destination.openSink(target(2)), { code: 'ROOT_MISMATCH' });
});

test('a write that fails is thrown where it is waited for', async () => {
  const out = new Writable({
    write: (_, __, done) => done(Object.assign(new Error('no space'), { code: 'ENOSPC' })),
  });
  out.on('error', () => {});
  const stream = new PageStream(out, undefined);
  stream.add(Buffer.alloc(100));
  await assert.rejects(stream.end(), { code: 'REPLICA_UNWRITABLE' });
});
