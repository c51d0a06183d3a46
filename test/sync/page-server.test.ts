import assert from 'node:assert/strict';
import { test } from 'node:test';
import { message } from '../../protocol/encode.ts';
import { BATCH_ENCODINGS } from '../../protocol/messages.ts';
import type { CompressionMode } from '../../protocol/messages.ts';
import { encodeWanted } from '../../protocol/page-batch.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../src/pages/hash.ts';
import { HashTree } from '../../src/pages/hash-tree.ts';
import type { PageSource } from '../../src/pages/page-source.ts';
import { pageCount, pageSize } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { PageServer } from '../../src/sync/agents/page-server.ts';
import type { PagesAnswer } from '../../src/sync/agents/page-server.ts';
import { decodeBatchBytes } from '../../src/sync/link/compression.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';

const SIZE = pageSize(4096) as PageSize;
const PAGES = pageCount(512);
const BATCH = 128;

/** Every byte of a page is its number. */
const SOURCE: PageSource = {
  pageSize: SIZE,
  pageCount: PAGES,
  readPage: (page) => new Uint8Array(SIZE).fill(page),
  readPages: (first, count) => {
    const run = new Uint8Array(count * SIZE);
    SOURCE.readInto(first, run);
    return run;
  },
  readInto: (first, into) => {
    for (let at = 0; at < into.length; at += SIZE) into.fill(first + at / SIZE, at, at + SIZE);
  },
  close: () => {},
};

function server(mode: CompressionMode): (first: number) => PagesAnswer {
  const hasher = createPageHasher('nh-siphash', new Uint8Array(HASH_KEY_BYTES), SIZE);
  const readPages = SOURCE.readPages.bind(SOURCE);
  const tree = new HashTree({ pageCount: PAGES, hasher, readPages });
  const pages = new PageServer(SOURCE, tree, hasher, mode);
  return (first) => {
    const wanted = Array.from({ length: BATCH }, (_, i) => ({ pageNumber: first + i, hasBlocks: false }));
    return pages.answer(
      message('getPages', { id: first, pages: encodeWanted(wanted), blockHashes: new Uint8Array(0) }),
    );
  };
}

/** The id of the answer is its first page. */
function assertPages({ pages }: PagesAnswer): void {
  const batch = decodeBatchBytes(pages, BATCH * (SIZE + 1));
  for (let i = 0; i < BATCH; i++) {
    const page = batch.subarray(BATCH + i * SIZE, BATCH + (i + 1) * SIZE);
    assert.ok(page.every((byte) => byte === (pages.id + i) % 256));
  }
}

for (const mode of ['none', 'zstd', 'auto'] as const)
  test(`answers with whole pages share no memory until they were sent, --compress ${mode}`, () => {
    const answer = server(mode);
    const waiting = [1, 129, 257].map(answer);
    waiting.forEach(assertPages);
    for (const { onSent } of waiting) onSent();
    const next = [385, 257, 129, 1].map(answer);
    next.forEach(assertPages);
    const buffers = new Set(next.map(({ pages }) => pages.data.buffer));
    assert.equal(buffers.size, next.length);
  });

test('a raw answer is read into the memory of one that was sent', () => {
  const answer = server('none');
  const first = answer(1);
  assert.equal(first.pages.encoding, BATCH_ENCODINGS.raw);
  const { buffer } = first.pages.data;
  first.onSent();
  assert.equal(answer(1).pages.data.buffer, buffer);
  assert.notEqual(answer(1).pages.data.buffer, buffer);
});

test('a message counts as sent when the transport has taken it, and never on one that is gone', async (t) => {
  const [near, far] = memoryTransportPair();
  t.after(() => near.terminate());
  const sender = new Connection(near, 'serving', { idleTimeoutMs: 0 });
  const receiver = new Connection(far, 'driving', { idleTimeoutMs: 0 });
  await receiver.drained(); // its greeting
  far.input.pause();
  const sent: number[] = [];
  const data = new Uint8Array(200_000);
  const send = (id: number): void =>
    sender.send(message('pages', { id, encoding: BATCH_ENCODINGS.raw, rawBytes: data.length, data }), () =>
      sent.push(id),
    );
  for (const id of [1, 2, 3]) send(id);
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!sent.includes(3), `${sent.join()} counted as sent to a side that does not read`);
  far.input.resume();
  await sender.drained();
  await receiver.receiveOnly('pages');
  while (sent.length < 3) await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(sent, [1, 2, 3]);
  far.input.pause();
  for (const id of [4, 5]) send(id);
  near.terminate();
  await new Promise((resolve) => setImmediate(resolve));
  assert.ok(!sent.includes(5));
});
