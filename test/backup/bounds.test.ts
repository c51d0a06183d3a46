import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import {
  encodeIndex,
  decodeIndex,
  MAX_INDEX_BYTES,
  splitForIndexes,
} from '../../src/backup/packs/index-file.ts';
import type { IndexedPack } from '../../src/backup/packs/index-file.ts';
import { ObjectIndex } from '../../src/backup/objects/object-index.ts';
import { MemoryBackend } from './memory-backend.ts';
import { initBackend } from '../../src/backup/open-store.ts';
import { decodeSnapshot, encodeSnapshot } from '../../src/backup/files/snapshot-record.ts';
import { jsonBytes, loadContents, loadSnapshots, putRecord } from '../../src/backup/files/store-files.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { SqlsyncError } from '../../src/errors.ts';

const FRAME = { offset: 28, length: 72, rawBytes: 100, kind: 1, objectCount: 1 };

function indexOf(frame: Partial<typeof FRAME>): Uint8Array {
  const frames = [{ ...FRAME, ...frame }];
  const id = new Uint8Array(32);
  const parts = { ids: new Uint8Array(32), depths: new Uint8Array(1), bases: new Uint8Array(0) };
  return encodeIndex([{ id, bytes: 100, frames, ...parts }]);
}

describe('an index that claims the impossible is damaged', () => {
  test('an index with a frame behind the end of its pack, or with one larger than any frame, is damaged', () => {
    assert.equal(decodeIndex(indexOf({}), 'indexes/x', false).length, 1);
    for (const frame of [{ offset: 29 }, { length: 2 ** 32 - 1 }, { rawBytes: 4 * 1024 * 1024 + 1 }])
      assert.throws(() => decodeIndex(indexOf(frame), 'indexes/x', false), { code: 'STORE_DAMAGED' });
  });

  test('an index with a body of 4 GiB is damaged, and no memory is set aside for it', () => {
    const plain = indexOf({});
    assert.equal(plain[8], 1, 'is compressed');
    new DataView(plain.buffer, plain.byteOffset).setUint32(9, 2 ** 32 - 100, true);
    const before = process.resourceUsage().maxRSS;
    const outside = process.memoryUsage().arrayBuffers;
    assert.throws(() => decodeIndex(plain, 'indexes/x', false), {
      code: 'STORE_DAMAGED',
      message: /cannot be read/,
    });
    assert.ok(process.memoryUsage().arrayBuffers - outside < 64 * 1024 * 1024);
    assert.ok(process.resourceUsage().maxRSS - before < 256 * 1024);
  });
});

describe('the salts in an index', () => {
  const pack: IndexedPack = {
    id: new Uint8Array(32),
    bytes: 100,
    frames: [FRAME],
    ids: new Uint8Array(32),
    depths: new Uint8Array(1),
    bases: new Uint8Array(0),
  };
  const salted = { ...pack, salt: new Uint8Array(32).fill(7) };

  test('an index with salts is damage in a store that is not encrypted, and one without salts in one that is', () => {
    for (const isEncrypted of [false, true]) {
      const [right, wrong] = isEncrypted ? [salted, pack] : [pack, salted];
      const [read] = decodeIndex(encodeIndex([right]), 'indexes/x', isEncrypted);
      assert.deepEqual([...(read?.salt ?? [])], [...(right.salt ?? [])]);
      assert.throws(() => decodeIndex(encodeIndex([wrong]), 'indexes/x', isEncrypted), {
        code: 'STORE_DAMAGED',
        file: 'indexes/x',
      });
    }
  });

  test('an index of packs with and without a salt is never written', () => {
    for (const packs of [
      [pack, salted],
      [salted, pack],
    ])
      assert.throws(() => encodeIndex(packs), /with and without a salt/);
  });
});

describe('the bases in an index', () => {
  const pack = (number: number, depths: readonly number[]): IndexedPack => ({
    id: new Uint8Array(32).fill(number),
    bytes: 100,
    frames: [{ ...FRAME, objectCount: depths.length }],
    ids: new Uint8Array(depths.length * 32).fill(number),
    depths: Uint8Array.from(depths),
    bases: new Uint8Array(depths.filter((depth) => depth > 0).length * 16).fill(number + 100),
  });

  test('an index names the base of each delta, pack by pack, and nothing for whole objects', () => {
    const packs = [pack(1, [0, 1, 8]), pack(2, [0]), pack(3, [2, 0])];
    const read = decodeIndex(encodeIndex(packs), 'indexes/x', false);
    assert.deepEqual(
      read.map(({ bases }) => [...bases]),
      packs.map(({ bases }) => [...bases]),
    );
    const index = new ObjectIndex();
    for (const each of read) index.addPack(each, { present: true, trusted: true });
    const bases = Array.from({ length: 6 }, (_, object) => index.baseOf(object)?.[0]);
    assert.deepEqual(bases, [undefined, 101, 101, undefined, 103, undefined]);
    for (const [i, known] of [...index.packs.values()].entries())
      assert.deepEqual([...index.describe(known).bases], [...(packs[i]?.bases ?? [])]);
  });

  test('an index with a base too few or too many is damaged', () => {
    for (const bases of [0, 32])
      assert.throws(
        () =>
          decodeIndex(
            encodeIndex([{ ...pack(1, [0, 3]), bases: new Uint8Array(bases) }]),
            'indexes/x',
            false,
          ),
        { code: 'STORE_DAMAGED' },
      );
  });

  test('a delta is never added without a base, nor a whole object with one', () => {
    const index = new ObjectIndex();
    assert.throws(() => index.addPending(new Uint8Array(32), 1, undefined), /another base/);
    assert.throws(() => index.addPending(new Uint8Array(32), 0, new Uint8Array(16)), /another base/);
  });
});

describe('an index of many packs', () => {
  const pack = (number: number, objects: number): IndexedPack => ({
    id: new Uint8Array(32).fill(number),
    bytes: 100,
    frames: [{ ...FRAME, objectCount: objects }],
    ids: new Uint8Array(objects * 32),
    depths: new Uint8Array(objects),
    bases: new Uint8Array(0),
  });

  test('an index of many packs becomes several files, each as full as can be, and leaves none out', () => {
    // An object takes 33 bytes, and a pack with its frame 57.
    const packs = [10, 10, 10, 100, 1, 1].map((objects, i) => pack(i, objects));
    const files = splitForIndexes(packs, 2 * (330 + 57));
    assert.deepEqual(
      files.map((file) => file.map(({ id }) => id[0])),
      [[0, 1], [2], [3], [4, 5]],
    );
    for (const file of files) {
      const read = decodeIndex(encodeIndex(file), 'indexes/x', false);
      assert.deepEqual(
        read.map(({ id, frames }) => [id[0], frames]),
        file.map(({ id, frames }) => [id[0], frames]),
      );
    }
    assert.deepEqual(splitForIndexes([]), []);
  });

  test('an index of more than 128 MiB is neither written nor read', () => {
    const of = (objects: number): IndexedPack => ({ ...pack(0, 1), depths: new Uint8Array(objects) });
    assert.throws(() => encodeIndex([of(4_100_000)]), /an index of 135300061 bytes/);
    assert.equal(splitForIndexes([of(1_900_000), of(200_000)]).length, 2);
    assert.equal(splitForIndexes([of(1_800_000), of(200_000)]).length, 1);
    const claims = indexOf({});
    new DataView(claims.buffer, claims.byteOffset).setUint32(9, MAX_INDEX_BYTES + 1, true);
    assert.throws(
      () => decodeIndex(claims, 'indexes/x', false),
      (error) => {
        return error instanceof SqlsyncError && /more bytes than an index may have/.test(String(error.cause));
      },
    );
  });

  test('an index of more bytes than that is not even fetched', async () => {
    const memory = new MemoryBackend();
    const access = await initBackend(memory, {});
    const name = `indexes/${'ab'.repeat(32)}`;
    const list = memory.list.bind(memory);
    memory.list = async (folder) =>
      folder === 'indexes'
        ? [{ name: 'ab'.repeat(32), bytes: MAX_INDEX_BYTES + 2000, modified: new Date() }]
        : await list(folder);
    await assert.rejects(loadContents(access), { code: 'STORE_DAMAGED', file: name });
  });
});

describe('a record that is too large', () => {
  test('a record of a database with 2^32 - 1 pages is damaged: no database has so many', () => {
    const statistics = {
      pagesChanged: 0,
      pagesAdded: 0,
      nodesAdded: 0,
      bytesAdded: 0,
      bytesReceived: 0,
      durationMs: 0,
    };
    const place = { host: 'h', path: '/p', tags: [], fileMode: 0o600, program: 'p', parent: undefined };
    const record = { time: new Date(), ...place, pageSize: 512, root: 'ab'.repeat(32), statistics };
    const id = '00'.repeat(32);
    const most = 2 ** 32 - 2;
    assert.equal(decodeSnapshot(encodeSnapshot({ ...record, pageCount: most }), id).pageCount, most);
    assert.throws(() => decodeSnapshot(encodeSnapshot({ ...record, pageCount: most + 1 }), id), {
      code: 'STORE_DAMAGED',
    });
  });

  test('a JSON file that is too large is not put, and an existing one is not read', async () => {
    const memory = new MemoryBackend();
    const access = await initBackend(memory, {});
    const long = jsonBytes({ text: 'x'.repeat(1024 * 1024) });
    await assert.rejects(putRecord(access, 'snapshots', 'snapshot', long), { code: 'USAGE' });
    memory.files.set(`snapshots/${'ab'.repeat(32)}`, long);
    await assert.rejects(loadSnapshots(access), { code: 'STORE_DAMAGED', message: /1048587 bytes/ });
  });

  test('a mark that is too large becomes two', async () => {
    const memory = new MemoryBackend();
    const store = new OpenStore(await initBackend(memory, { graceSeconds: 1e-9 }));
    for (let pack = 0; pack <= 8192; pack++)
      await memory.put(`packs/${pack.toString(16).padStart(64, '0')}`, [new Uint8Array(1)]);
    // Packs of this very millisecond are younger than the grace period.
    await delay(2);
    assert.equal((await store.prune()).packsMarked, 8193);
    assert.equal([...memory.files.keys()].filter((name) => name.startsWith('marks/')).length, 2);
    assert.equal((await store.prune()).packsDeleted, 8193);
    assert.deepEqual([...memory.files.keys()], ['config']);
  });
});
