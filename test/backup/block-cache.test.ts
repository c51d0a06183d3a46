import assert from 'node:assert/strict';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statfsSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { runBackup } from '../../src/backup/copy/backup.ts';
import { BlockCache } from '../../src/backup/copy/block-cache.ts';
import { MAX_PAGE_DEPTH } from '../../src/backup/copy/store-sink.ts';
import { FRAME_KINDS } from '../../src/backup/packs/frame.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { PLAIN_SEALER } from '../../src/backup/sealed/sealer.ts';
import { SnapshotSource } from '../../src/backup/snapshots/snapshot-source.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { userCacheFolder } from '../../src/files/user-cache.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, originNameOf, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const PAGE = 4096;
const SHAPE = { pageSize: PAGE, pageCount: 100 };
const RECORD = (PAGE / 128 + 1) * 8;
const HEADER = 28;

describe('the cache of block hashes', () => {
  test('the cache of block hashes knows what it learned of a page, in a later run too, and only by the id of that page', (t) => {
    const folder = tempDir(t);
    const [id, other] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)];
    const page = Buffer.alloc(PAGE, 7);
    const cache = opened(folder);
    const hashes = Buffer.from(cache.hash(page));
    for (const number of [1, 5000, 200_000]) cache.learn(number, id, hashes);
    cache.close(true);
    const later = opened(folder);
    for (const number of [1, 5000, 200_000]) {
      assert.deepEqual(later.find(number, id), hashes);
      assert.equal(later.find(number, other), undefined);
      assert.equal(later.find(number + 1, id), undefined);
    }
    assert.deepEqual(Buffer.from(later.hash(page)), hashes, 'the key is the same');
    later.close(false);
  });

  test('the cache of block hashes hashes the blocks of each user under another key', (t) => {
    const page = Buffer.alloc(PAGE, 7);
    const [a, b] = [opened(tempDir(t)), opened(tempDir(t))];
    assert.notDeepEqual(Buffer.from(a.hash(page)), Buffer.from(b.hash(page)));
    for (const cache of [a, b]) cache.close(false);
  });

  test('the cache of block hashes remembers nothing of a backup that failed', (t) => {
    const folder = tempDir(t);
    const id = Buffer.alloc(32, 1);
    const cache = opened(folder);
    cache.learn(1, id, cache.hash(Buffer.alloc(PAGE)));
    cache.close(false);
    const later = opened(folder);
    assert.equal(later.find(1, id), undefined);
    later.close(false);
  });

  test('the cache of block hashes is bounded: it has no place for further pages, and drops the files that were not used for longest', (t) => {
    const folder = tempDir(t);
    const cache = opened(folder);
    const id = Buffer.alloc(32, 1);
    cache.learn(5_000_000, id, cache.hash(Buffer.alloc(PAGE)));
    assert.equal(cache.find(5_000_000, id), undefined);
    cache.close(true);
    assert.ok(bytesOf(folder) < 1000);
    for (const [name, hours] of [
      ['new', 1],
      ['old', 2],
      ['older', 3],
    ] as const) {
      const path = join(folder, name);
      writeFileSync(path, '');
      truncateSync(path, 600 * 2 ** 20);
      const time = Date.now() / 1000 - hours * 3600;
      utimesSync(path, time, time);
    }
    opened(folder).close(false);
    const left = (): string[] => ['new', 'old', 'older'].filter((name) => existsSync(join(folder, name)));
    assert.deepEqual(left(), ['new']);
    utimesSync(join(folder, 'new'), 1, 1);
    opened(folder).close(false);
    assert.deepEqual(left(), []);
    const huge = { pageSize: 512, pageCount: Number.MAX_SAFE_INTEGER };
    const { bavail, bsize } = statfsSync(folder);
    const hasRoom = bavail * bsize >= 4 * 2 ** 30;
    const beyond = BlockCache.open(['b'], huge, PLAIN_SEALER, folder);
    assert.equal(beyond !== undefined, hasRoom);
    beyond?.close(false);
  });

  test("the cache of block hashes is this user's alone, or none", (t) => {
    const folder = join(tempDir(t), 'a', 'blocks');
    opened(folder).close(false);
    assert.equal(statSync(folder).mode & 0o777, 0o700);
    assert.equal(statSync(fileIn(folder)).mode & 0o777, 0o600);
    chmodSync(fileIn(folder), 0o604);
    assert.equal(BlockCache.open(['a'], SHAPE, PLAIN_SEALER, folder), undefined, 'others can read its key');
    chmodSync(fileIn(folder), 0o600);
    chmodSync(folder, 0o777);
    assert.equal(
      BlockCache.open(['a'], SHAPE, PLAIN_SEALER, folder),
      undefined,
      'others can put files there',
    );
    chmodSync(folder, 0o700);
    const file = fileIn(folder);
    renameSync(file, join(folder, '..', 'elsewhere'));
    symlinkSync(join(folder, '..', 'elsewhere'), file);
    assert.equal(BlockCache.open(['a'], SHAPE, PLAIN_SEALER, folder), undefined, 'it leads elsewhere');
    writeFileSync(join(folder, '..', 'file'), '');
    assert.equal(BlockCache.open(['a'], SHAPE, PLAIN_SEALER, join(folder, '..', 'file')), undefined);
  });
});

describe('a backup with a cache of block hashes', () => {
  test('a backup with a cache of block hashes stores the same deltas as one that reads old versions, and reads none', async (t) => {
    const withCache = await place(t);
    const without = await place(t);
    for (const each of [withCache, without]) {
      await each.backUp();
      each.update(1);
    }
    const { pagesDelta, pagesTransferred } = await withCache.backUp();
    assert.deepEqual([pagesDelta > 0, pagesTransferred > 0], [false, true], 'old versions were read');
    const { statistics } = withCache.last();
    assert.ok((await without.backUp({ blockCache: undefined })).pagesDelta > 0);
    const expected = without.last().statistics;
    assert.deepEqual(
      [statistics.pagesAdded, statistics.pagesChanged],
      [expected.pagesAdded, expected.pagesChanged],
    );
    assert.ok(Math.abs(statistics.bytesAdded - expected.bytesAdded) < 500, 'the deltas have other sizes');
    await withCache.assertRight();
  });

  test('a backup with a cache of block hashes bounds the chains of deltas, and makes later deltas against the whole page', async (t) => {
    const { here, backUp, update, last, assertRight } = await place(t);
    for (let day = 0; day < 2 * MAX_PAGE_DEPTH + 4; day++) {
      update(100);
      await backUp();
      if (day > 0) assert.ok(last().statistics.bytesAdded < 8192, `${last().statistics.bytesAdded} bytes`);
    }
    const { index } = await loadContents(here.access);
    const pages = index.frames.filter(({ kind }) => kind === FRAME_KINDS.pages);
    const depths = pages.flatMap(({ firstObject, objectCount }) =>
      Array.from({ length: objectCount }, (_, i) => index.depthOf(firstObject + i)),
    );
    assert.equal(Math.max(...depths), MAX_PAGE_DEPTH);
    await assertRight();
  });

  test('a backup that verifies looks nothing up in the cache of block hashes, and leaves right hashes in it', async (t) => {
    const { backUp, update, poison, assertRight } = await place(t);
    await backUp();
    update(1);
    await poison();
    await backUp({ verify: true });
    update(1);
    await backUp();
    await assertRight();
  });
});

describe('a wrong cache of block hashes costs time and never content:', () => {
  const spoilt: Record<string, (file: string, around: Spoiling) => void | Promise<void>> = {
    'flipped bits': (file) => {
      const bytes = readFileSync(file);
      for (let at = HEADER; at < bytes.length; at += 101) bytes[at] = (bytes[at] as number) ^ (1 << (at % 8));
      writeFileSync(file, bytes);
    },
    'one flipped bit in each record': (file) => {
      const bytes = readFileSync(file);
      for (let at = HEADER + 17; at < bytes.length; at += RECORD) bytes[at] = (bytes[at] as number) ^ 4;
      writeFileSync(file, bytes);
    },
    'a cut file': (file) => truncateSync(file, Math.floor(statSync(file).size / 2) + 3),
    'an empty file': (file) => truncateSync(file, 0),
    'a cut header': (file) => truncateSync(file, 20),
    zeros: (file) => writeFileSync(file, Buffer.alloc(statSync(file).size)),
    'another key': (file) => {
      const bytes = readFileSync(file);
      bytes.fill(9, 8, 24);
      writeFileSync(file, bytes);
    },
    'another page size': (file) => {
      const bytes = readFileSync(file);
      bytes.writeUInt32LE(8192, 24);
      writeFileSync(file, bytes);
    },
    'records of other pages': (file) => {
      const bytes = readFileSync(file);
      const [a, b] = [HEADER + 2 * RECORD, HEADER + 3 * RECORD];
      const record = Buffer.from(bytes.subarray(a, b));
      bytes.copy(bytes, a, b, b + RECORD);
      record.copy(bytes, b);
      bytes.copy(bytes, HEADER + 8 * RECORD, HEADER + 9 * RECORD);
      writeFileSync(file, bytes);
    },
    'that of an older snapshot': (file, { older }) => copyFileSync(older, file),
    'that of another store and database': async (file, { t }) => {
      const elsewhere = await place(t);
      elsewhere.update(3);
      await elsewhere.backUp();
      copyFileSync(fileIn(elsewhere.folder), file);
    },
  };
  for (const [what, spoil] of Object.entries(spoilt)) {
    test(what, async (t) => {
      const { folder, backUp, update, assertRight } = await place(t);
      await backUp();
      const older = join(tempDir(t), 'older');
      copyFileSync(fileIn(folder), older);
      update(2);
      await backUp();
      await spoil(fileIn(folder), { t, older });
      update(1);
      await backUp();
      await assertRight();
    });
  }

  test('a key by which it seals wrong hashes, found out before a snapshot counts', async (t) => {
    const { backUp, update, poison, assertRight, memory } = await place(t);
    await backUp();
    update(1);
    await poison();
    const snapshots = [...memory.files.keys()].filter((name) => /^(snapshots|indexes)/.test(name));
    await assert.rejects(backUp(), { name: 'SqlsyncError', message: /cache of block hashes/ });
    assert.deepEqual(
      [...memory.files.keys()].filter((name) => /^(snapshots|indexes)/.test(name)),
      snapshots,
    );
    await backUp();
    await assertRight();
  });

  test('the same for the command, which begins again and warns', async (t) => {
    const folder = tempDir(t);
    const [origin, store] = [join(folder, 'origin.db'), join(folder, 'store')];
    smallDatabase(origin);
    const backend = new DirectoryBackend(store);
    const here = await storeHere(backend, folder);
    const options = { store, origin };
    const first = await runBackup(options);
    const blocks = userCacheFolder('blocks');
    assert.equal(readdirSync(blocks).length, 1);
    change(origin, 'UPDATE item SET amount = amount + 1 WHERE id % 5 = 1');
    await poisonBlocks(here, blocks, origin, first.snapshot);
    const { snapshot, warnings } = await runBackup(options);
    assert.match(
      warnings.join(),
      /cache of block hashes had hashes that no page of the store has; the backup begins again/,
    );
    const access = await openBackend(backend);
    await assertStored({ access }, [snapshot], new Map([[snapshot.id, pageImage(origin)]]));
    assert.deepEqual((await new OpenStore(access).check({ readData: true })).problems, []);
    const size = bytesOf(blocks);
    change(origin, 'UPDATE item SET amount = amount + 1 WHERE id % 5 = 1');
    await runBackup({ ...options, cache: false });
    assert.equal(bytesOf(blocks), size);
  });
});

interface Spoiling {
  readonly t: TestContext;
  /** The cache before the last backup. */
  readonly older: string;
}

interface BackUpOptions {
  readonly verify?: boolean;
  readonly blockCache?: undefined;
}

interface Place {
  readonly here: StoreHere;
  readonly memory: MemoryBackend;
  /** The folder of the cache. */
  readonly folder: string;
  readonly last: () => StoreSnapshot;
  readonly backUp: (options?: BackUpOptions) => Promise<{ pagesDelta: number; pagesTransferred: number }>;
  /** Changes one row in so many. */
  readonly update: (every: number) => void;
  /** Seals the hashes of the present database as those of the last snapshot's pages. */
  readonly poison: () => Promise<void>;
  /** Checks that every snapshot restores to its database, and that a check that reads everything finds nothing. */
  readonly assertRight: () => Promise<void>;
}

async function place(t: TestContext): Promise<Place> {
  const top = tempDir(t);
  const [origin, folder] = [join(top, 'origin.db'), join(top, 'blocks')];
  mkdirSync(folder, { mode: 0o700 });
  smallDatabase(origin);
  const memory = new MemoryBackend();
  const here = await storeHere(memory, top);
  const images = new Map<string, Uint8Array>();
  const snapshots: StoreSnapshot[] = [];
  let value = 0;
  return {
    here,
    memory,
    folder,
    last: () => snapshots.at(-1) as StoreSnapshot,
    async backUp({ verify = false, ...given } = {}) {
      const blockCache = 'blockCache' in given ? {} : { blockCache: { folder, looksUp: true } };
      let pages = { pagesDelta: 0, pagesTransferred: 0 };
      const snapshot = await backupHere(here, origin, {
        verify,
        ...blockCache,
        onDone: (done) => (pages = done),
      });
      snapshots.push(snapshot);
      images.set(snapshot.id, pageImage(origin));
      return pages;
    },
    update: (every) => change(origin, `UPDATE item SET amount = ${++value} WHERE id % ${every} = 0`),
    poison: () => poisonBlocks(here, folder, origin, snapshots.at(-1) as StoreSnapshot),
    async assertRight() {
      await assertStored(here, snapshots, images);
      const { problems, damaged } = await here.store.check({ readData: true });
      assert.deepEqual([problems, damaged], [[], []]);
    },
  };
}

async function poisonBlocks(
  { access }: StoreHere,
  folder: string,
  origin: string,
  snapshot: StoreSnapshot,
): Promise<void> {
  const { reader } = await loadContents(access);
  const { tree } = new SnapshotSource(reader, snapshot);
  const image = pageImage(origin);
  const cache = BlockCache.open([access.config.id, originNameOf(origin)], SHAPE, PLAIN_SEALER, folder);
  assert.ok(cache !== undefined);
  for (let page = 1; page <= snapshot.pageCount; page++) {
    const id = tree.pageId(page);
    assert.ok(cache.find(page, id) !== undefined, `page ${page} is not in the cache`);
    cache.learn(page, id, cache.hash(image.subarray((page - 1) * PAGE, page * PAGE)));
  }
  cache.close(true);
}

function opened(folder: string): BlockCache {
  const cache = BlockCache.open(['a'], SHAPE, PLAIN_SEALER, folder);
  assert.ok(cache !== undefined);
  return cache;
}

/** The path of the only file of a folder. */
function fileIn(folder: string): string {
  const [name = '', ...others] = readdirSync(folder);
  assert.deepEqual(others, []);
  return join(folder, name);
}

function bytesOf(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}
