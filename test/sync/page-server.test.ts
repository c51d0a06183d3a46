import assert from 'node:assert/strict';
import { test } from 'node:test';
import { message } from '../../protocol/encode.ts';
import { MAX_SENT_PAGES } from '../../protocol/limits.ts';
import { BATCH_ENCODINGS } from '../../protocol/messages.ts';
import type { CompressionMode } from '../../protocol/messages.ts';
import { blockHashBytes, decodeBatch, encodeWanted } from '../../protocol/page-batch.ts';
import type { WantedPage } from '../../protocol/page-batch.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../src/pages/hash.ts';
import { HashTree } from '../../src/pages/hash-tree.ts';
import type { PageSource } from '../../src/pages/page-source.ts';
import { pageCount, pageSize } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { PageServer } from '../../src/sync/agents/page-server.ts';
import type { PagesAnswer } from '../../src/sync/agents/page-server.ts';
import { ReceivedPages, SentVersions } from '../../src/sync/quick/sent-versions.ts';
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
  const pages = new PageServer(SOURCE, tree, hasher, { compression: mode });
  return (first) => {
    const wanted = Array.from({ length: BATCH }, (_, i) => ({
      pageNumber: first + i,
      basis: 'none' as const,
    }));
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

/** Asks for pages of `source`, and tells which came whole and which blocks came of the others. */
function ask(source: PageSource, sent: SentVersions | undefined, wanted: readonly WantedPage[]): unknown[] {
  const hasher = createPageHasher('nh-siphash', new Uint8Array(HASH_KEY_BYTES), SIZE);
  const tree = new HashTree({ pageCount: PAGES, hasher, readPages: source.readPages.bind(source) });
  const pageServer = new PageServer(source, tree, hasher, { compression: 'none', sent });
  const hashed = wanted.filter(({ basis }) => basis === 'hashed');
  const blockHashes = new Uint8Array(hashed.length * blockHashBytes(SIZE));
  for (const [i, { pageNumber }] of hashed.entries())
    hasher.hashBlocks(SOURCE.readPage(pageNumber as never), blockHashes, i * blockHashBytes(SIZE));
  const { pages } = pageServer.answer(
    message('getPages', { id: 1, pages: encodeWanted(wanted), blockHashes }),
  );
  const batch = decodeBatchBytes(pages, wanted.length * (SIZE + 5));
  return decodeBatch(batch, SIZE, wanted).map(({ bitmap }) =>
    bitmap === undefined ? 'whole' : [...bitmap].flatMap((byte, i) => bitsOf(byte).map((bit) => i * 8 + bit)),
  );
}

function bitsOf(byte: number): number[] {
  return [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => (byte >> bit) % 2 === 1);
}

/** As SOURCE, but each page has another byte at these places. */
function changedAt(...places: readonly number[]): PageSource {
  const change = (bytes: Uint8Array): Uint8Array => {
    for (let page = 0; page < bytes.length; page += SIZE)
      for (const at of places) bytes[page + at] = 255 - (bytes[page + at] as number);
    return bytes;
  };
  return {
    ...SOURCE,
    readPage: (page) => change(SOURCE.readPage(page)),
    readPages: (first, count) => change(SOURCE.readPages(first, count)),
    readInto: (first, into) => {
      SOURCE.readInto(first, into);
      change(into);
    },
  };
}

test('a page is a delta against the version that was sent last, without its block hashes', () => {
  const sent = new SentVersions();
  const hashed: WantedPage = { pageNumber: 7, basis: 'hashed' };
  const again: WantedPage = { pageNumber: 7, basis: 'sent' };
  const unknown: WantedPage = { pageNumber: 8, basis: 'sent' };
  assert.deepEqual(ask(changedAt(200), sent, [hashed]), [[1]]);
  assert.deepEqual(ask(changedAt(200, 4000), sent, [again, unknown]), [[31], 'whole']);
  assert.deepEqual(ask(changedAt(4000), sent, [again, unknown]), [[1], [1]]);
  assert.deepEqual(ask(changedAt(0), undefined, [again]), ['whole']);
});

test('both ends forget the versions of the same pages', () => {
  const sent = new SentVersions();
  const received = new ReceivedPages();
  const add = (page: number): void => {
    sent.add(page, new Uint8Array(1));
    received.add(page);
  };
  for (let page = 1; page <= MAX_SENT_PAGES; page++) add(page);
  add(1);
  add(MAX_SENT_PAGES + 1);
  for (const [page, isKept] of [
    [1, true],
    [2, false],
    [3, true],
    [MAX_SENT_PAGES + 1, true],
  ] as const)
    assert.deepEqual([sent.of(page) !== undefined, received.has(page)], [isKept, isKept]);
});
