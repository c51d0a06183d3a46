import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { encodeBatch } from '../../protocol/page-batch.ts';
import { ChainReader } from '../../src/backup/objects/chain-reader.ts';
import type { FrameCache } from '../../src/backup/objects/frame-cache.ts';
import type { ObjectIndex } from '../../src/backup/objects/object-index.ts';
import { BASE_ID_BYTES, ID_BYTES, idOf } from '../../src/backup/packs/object-id.ts';
import { PageFrame } from '../../src/backup/packs/page-frame.ts';
import { pageSize } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';

const SIZE = 512;
const random = new Random(3);
const WHOLE = [random.bytes(SIZE), random.bytes(SIZE), random.bytes(SIZE)];
/** The first page with another first block. */
const CHANGED = Buffer.from(WHOLE[0] as Buffer).fill(9, 0, 128);

/** Objects 0 to 2 are the whole pages, in frame 0; object 3 is the changed one, a delta in frame 1. */
function readerOf(ids: Uint8Array | undefined, pages: readonly Uint8Array[] = WHOLE): ChainReader {
  const frames = [wholeFrame(pages, ids), deltaFrame()];
  const all = [...WHOLE, CHANGED].map((page) => Buffer.from(idOf(page)));
  const index: Partial<ObjectIndex> = {
    bestCopy: (id, _above, at) =>
      all.findIndex((one) =>
        one.subarray(0, BASE_ID_BYTES).equals(id.subarray(at ?? 0, (at ?? 0) + BASE_ID_BYTES)),
      ),
    depthOf: (object) => (object === 3 ? 1 : 0),
    frameNumberOf: (object) => (object === 3 ? 1 : 0),
    placeOf: (object) => (object === 3 ? 0 : object),
    isTrusted: () => true,
  };
  const cache: Partial<FrameCache> = {
    get: (number) => frames[number] as PageFrame,
    discardDropped: () => {},
  };
  return new ChainReader(index as ObjectIndex, cache as FrameCache, () => {});
}

function wholeFrame(pages: readonly Uint8Array[], ids: Uint8Array | undefined): PageFrame {
  const batch = encodeBatch(pages.map((data) => ({ bitmap: undefined, data })));
  const header = new Uint8Array(8);
  header[0] = pages.length;
  return new PageFrame(Buffer.concat([header, batch]), pageSize(SIZE) as PageSize, ids);
}

function deltaFrame(): PageFrame {
  const batch = encodeBatch([{ bitmap: Uint8Array.of(1), data: CHANGED.subarray(0, 128), group: 1 }]);
  const base = idOf(WHOLE[0] as Buffer).subarray(0, BASE_ID_BYTES);
  const body = Buffer.concat([Uint8Array.of(1, 0, 0, 0, 1, 0, 0, 0), base, batch]);
  return new PageFrame(body, pageSize(SIZE) as PageSize, new Uint8Array(ID_BYTES));
}

function read(reader: ChainReader): { hasId: number[]; into: Buffer } {
  const into = Buffer.alloc(4 * SIZE);
  const ids = Buffer.concat([...WHOLE, CHANGED].map(idOf));
  const hasId = reader.readPages({ ids, pageSize: SIZE, into });
  assert.ok(hasId !== undefined);
  return { hasId: [...hasId], into };
}

test('whole pages whose frame was hashed as it was decompressed need no other check; assembled ones do', () => {
  const { hasId, into } = read(readerOf(Buffer.concat(WHOLE.map(idOf))));
  assert.deepEqual(hasId, [1, 1, 1, 0]);
  assert.ok(into.equals(Buffer.concat([...WHOLE, CHANGED])));
});

test('pages whose frame was not hashed, or that have another hash than their id, have to be checked', () => {
  assert.deepEqual(read(readerOf(undefined)).hasId, [0, 0, 0, 0]);
  const damaged = [WHOLE[0] as Buffer, Buffer.from(WHOLE[1] as Buffer).fill(1, 300, 301), WHOLE[2] as Buffer];
  assert.deepEqual(read(readerOf(Buffer.concat(damaged.map(idOf)), damaged)).hasId, [1, 0, 1, 0]);
});
