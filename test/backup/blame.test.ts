import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { MemoryBackend } from './memory-backend.ts';
import { nodeIds } from '../../src/backup/packs/node.ts';
import { fromHex } from '../../src/backup/packs/object-id.ts';
import { StoreDamage } from '../../src/backup/store-error.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import type { StoreContents } from '../../src/backup/files/store-files.ts';
import { PackWriter } from '../../src/backup/objects/pack-writer.ts';
import { SnapshotSource } from '../../src/backup/snapshots/snapshot-source.ts';
import { stillIntact } from '../../src/backup/check/still-intact.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { BLOCK_BYTES } from '../../protocol/limits.ts';
import { blockHashBytes } from '../../protocol/page-batch.ts';
import { DEFAULT_HASH } from '../../protocol/messages.ts';
import { blockHashAt } from '../../src/pages/block-hash.ts';
import { createPageHasher } from '../../src/pages/hash.ts';
import type { PageNumber, PageSize } from '../../src/pages/page-types.ts';
import { change } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { assertStored, backupHere, originNameOf, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const PAGE_BYTES = 1024;
const DAYS = 4;

/** The key of all backups but the first, so that the short hashes of blocks are the same in each run. */
const HASHER_KEY = new Uint8Array(16).fill(7);
const HASHER = createPageHasher(DEFAULT_HASH, HASHER_KEY, PAGE_BYTES as PageSize);

/** A page that changes every day. */
const CHANGING_PAGE = 50;

describe('a flipped byte in the base of deltas', () => {
  test('a flipped byte of a page is blamed on its pack, and only the snapshots that need it are called lost', async (t) => {
    const place = await makePlace(t);
    const { memory, here, days } = place;
    const [first, second] = days as [Day, Day];
    flip(memory, first.pack, place.unchanged);
    for (const { snapshot } of days.slice(0, DAYS)) await assertBlamed(here, snapshot, first.pack);
    // A database of its own, in a pack of its own.
    await assertListed(place, first.snapshot, [place.other]);
    flip(memory, first.pack, place.unchanged);
    // Each day replaces the damaged block, so that only the day that wrote it has lost a page. The error of a
    // restore lists the snapshots that do not need the file at all.
    flip(memory, second.pack, second.changed);
    await assertBlamed(here, second.snapshot, second.pack);
    const intact = [first, ...days.slice(2)].map(({ snapshot }) => snapshot);
    await assertListed(place, second.snapshot, [first.snapshot, place.other], [...intact, place.other]);
  });

  test('a flipped byte of a node is blamed on its pack', async (t) => {
    const place = await makePlace(t);
    const { memory, here, days } = place;
    const [first] = days as [Day];
    const lastPage = await lastPageId(here, first.snapshot);
    flip(memory, first.pack, lastPage);
    for (const { snapshot } of days.slice(0, DAYS)) await assertBlamed(here, snapshot, first.pack);
    await assertListed(place, first.snapshot, [place.other]);
  });

  test('a check that does not read all data finds a flipped byte in nodes, and not in pages', async (t) => {
    const { memory, here, days, other, unchanged } = await makePlace(t);
    const [first] = days as [Day];
    flip(memory, first.pack, unchanged);
    const all = [...days.map(({ snapshot }) => snapshot.id), other.id];
    const before = await here.store.check();
    assert.deepEqual([before.problems, before.intact.map(({ id }) => id)], [[], all]);
    flip(memory, first.pack, await lastPageId(here, first.snapshot));
    const { problems, intact, damaged } = await here.store.check();
    assert.deepEqual(
      problems.map(({ file }) => file),
      [`packs/${first.pack}`],
    );
    const ids = [damaged.map(({ snapshot }) => snapshot.id), intact.map(({ id }) => id)];
    assert.deepEqual(ids, [all.slice(0, DAYS), [other.id]]);
  });

  test('a flipped byte does no harm while another pack has a copy of what it damages', async (t) => {
    const place = await makePlace(t);
    const { memory, here, days, images } = place;
    const [first, second] = days as [Day, Day];
    const copies = await copyOf(here, [first.pack, second.pack]);
    const lastPage = await lastPageId(here, first.snapshot);
    // Each of two copies is damaged in another part, since a reader takes either of them first by chance.
    for (const bytes of [place.unchanged, lastPage]) {
      for (const pack of [first.pack, copies.get(first.pack) as string]) {
        flip(memory, pack, bytes);
        await assertStored(here, await here.store.snapshots(), images);
        const { problems, damaged } = await here.store.check({ readData: true });
        assert.deepEqual([problems.map(({ file }) => file), damaged], [[`packs/${pack}`], []]);
        flip(memory, pack, bytes);
      }
    }
    flip(memory, first.pack, place.unchanged);
    flip(memory, copies.get(first.pack) as string, lastPage);
    flip(memory, copies.get(second.pack) as string, second.changed);
    await assertStored(here, await here.store.snapshots(), images);
  });
});

test('a page with a changed block whose hash stayed the same is stored whole, and needs nothing of the days before', async (t) => {
  const place = await makePlace(t, (day, row, page) => {
    const amount = bytesOf(`${day}/${row}`);
    return day === 1 && page.includes(bytesOf(`0/${row}`))
      ? withBlockHashOf(page, bytesOf(`0/${row}`))
      : amount;
  });
  const { memory, here, days } = place;
  const [first] = days as [Day];
  flip(memory, first.pack, place.unchanged);
  await assertBlamed(here, first.snapshot, first.pack);
  const intact = [...days.slice(1).map(({ snapshot }) => snapshot), place.other];
  await assertListed(place, first.snapshot, [place.other], intact);
});

test('a prune keeps a right copy of an object that has a wrong one too', async (t) => {
  const { memory, here, days, images, unchanged } = await makePlace(t);
  const [first] = days as [Day];
  const copies = await copyOf(here, [first.pack]);
  const lastPage = await lastPageId(here, first.snapshot);
  const whole = new Map(memory.files);
  for (const pack of [first.pack, copies.get(first.pack) as string]) {
    memory.files.clear();
    for (const [name, bytes] of whole) memory.files.set(name, bytes);
    flip(memory, pack, unchanged);
    flip(memory, pack, lastPage);
    for (let i = 0; i < 3; i++) await here.store.prune({ graceSeconds: 0, maxUnusedRatio: 0 });
    assert.ok(!memory.files.has(`packs/${pack}`));
    await assertStored(here, await here.store.snapshots(), images);
    assert.deepEqual((await here.store.check({ readData: true })).problems, []);
  }
});

interface Day {
  readonly snapshot: StoreSnapshot;
  /** The one pack that the backup wrote. */
  readonly pack: string;
  /** Some of the bytes that the backup wrote. */
  readonly changed: Uint8Array;
}

interface Place {
  readonly memory: MemoryBackend;
  readonly here: StoreHere;
  readonly days: readonly Day[];
  /** A snapshot that shares nothing with the days. */
  readonly other: StoreSnapshot;
  readonly images: ReadonlyMap<string, Buffer>;
  /** Bytes of the first day's, in a page whose later changes are in other blocks. */
  readonly unchanged: Uint8Array;
}

/**
 * Incompressible bytes are in a pack as they are. Each page has one row, and each day changes two blocks of
 * most pages. The bytes, and the key of the hashes, are the same in each run: with random ones, about one
 * change in a thousand gives a block with the same short hash, so that its page is stored whole and needs
 * nothing of the days before.
 */
async function makePlace(
  t: TestContext,
  amountOf: AmountOf = (day, row) => bytesOf(`${day}/${row}`),
): Promise<Place> {
  const folder = tempDir(t);
  const memory = new MemoryBackend();
  const here = await storeHere(memory, folder);
  const images = new Map<string, Buffer>();
  const packs = new Set<string>();
  const days: Day[] = [];
  const origin = join(folder, 'origin.db');
  change(
    origin,
    `PRAGMA page_size = ${PAGE_BYTES};
     CREATE TABLE item (id INTEGER PRIMARY KEY, amount, payload);
     ${rows(100, (row) => `INSERT INTO item VALUES (${row}, ${literal(bytesOf(`0/${row}`))}, ${literal(bytesOf(`${row}`, 750))})`)}`,
  );
  const stored = async (path: string): Promise<{ snapshot: StoreSnapshot; pack: string }> => {
    const image = readFileSync(path);
    const snapshot = await backupHere(here, path);
    images.set(snapshot.id, image);
    const written = packsIn(memory).filter((pack) => !packs.has(pack));
    assert.equal(written.length, 1);
    packs.add(written[0] as string);
    return { snapshot, pack: written[0] as string };
  };
  for (let day = 0; day < DAYS; day++) {
    if (day > 0) {
      const page = images
        .get((days[day - 1] as Day).snapshot.id)
        ?.subarray(0, CHANGING_PAGE * PAGE_BYTES) as Buffer;
      const amount = (row: number): Uint8Array => amountOf(day, row, page.subarray(-PAGE_BYTES));
      change(
        origin,
        rows(85, (row) => `UPDATE item SET amount = ${literal(amount(row))} WHERE id = ${row}`),
      );
    }
    const { snapshot, pack } = await stored(origin);
    const image = images.get(snapshot.id) as Buffer;
    // A row is at the end of its page: its payload ends there, its amount lies before that.
    if (day === 0) setCachedKey(here, origin, image);
    const end = CHANGING_PAGE * PAGE_BYTES;
    days.push({ snapshot, pack, changed: image.subarray(end - 830, end - 800) });
  }
  const another = join(folder, 'other.db');
  change(another, 'CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(9000))');
  const { snapshot: other } = await stored(another);
  const image = images.get((days[0] as Day).snapshot.id) as Buffer;
  const end = CHANGING_PAGE * PAGE_BYTES;
  return { memory, here, days, other, images, unchanged: image.subarray(end - 300, end - 270) };
}

/** From now on the cached hashes, and all that follow, are those under `HASHER_KEY`. */
function setCachedKey({ cache }: StoreHere, origin: string, image: Uint8Array): void {
  const name = originNameOf(origin);
  const cached = cache.load(name);
  assert.ok(cached);
  const hashes = new Uint8Array(cached.hashes.length);
  HASHER.hashPages(1 as PageNumber, image, hashes, 0);
  cache.save(name, { ...cached, key: HASHER_KEY, hashes });
}

/** What a row's amount is on a day; `page` is that of {@link CHANGING_PAGE} on the day before. */
type AmountOf = (day: number, row: number, page: Buffer) => Uint8Array;

function bytesOf(seed: string, length = 100): Buffer {
  return createHash('shake256', { outputLength: length }).update(seed).digest();
}

function literal(bytes: Uint8Array): string {
  return `X'${Buffer.from(bytes).toString('hex')}'`;
}

function rows(count: number, statementOf: (row: number) => string): string {
  return Array.from({ length: count }, (_, index) => statementOf(index + 1)).join(';\n');
}

function packsIn({ files }: MemoryBackend): string[] {
  return [...files.keys()].filter((name) => name.startsWith('packs/')).map((name) => name.slice(6));
}

/** Flips a bit of these bytes where they lie in a pack; a second call restores it. */
function flip(memory: MemoryBackend, pack: string, bytes: Uint8Array): void {
  const flipped = Buffer.from(memory.files.get(`packs/${pack}`) as Uint8Array);
  const at = flipped.indexOf(bytes.subarray(1)) - 1;
  assert.ok(at >= 0, 'the bytes are in the pack as they are');
  flipped[at] = (flipped[at] as number) ^ 1;
  memory.files.set(`packs/${pack}`, flipped);
}

/**
 * The id of a page that no day changes: its node names it, but pages that are deltas against that node do
 * not.
 */
async function lastPageId({ access }: StoreHere, { root }: StoreSnapshot): Promise<Uint8Array> {
  const { reader } = await loadContents(access);
  const lastLeaf = nodeIds(reader.readNode(fromHex(root as string))).slice(-32);
  return nodeIds(reader.readNode(lastLeaf)).slice(-32);
}

async function assertBlamed(here: StoreHere, snapshot: StoreSnapshot, pack: string): Promise<void> {
  await assert.rejects(
    assertStored(here, [snapshot], new Map()),
    (error) => error instanceof StoreDamage && error.file === `packs/${pack}`,
  );
}

/**
 * The error of a lost snapshot names just the `listed` snapshots, and a check that reads all data finds the
 * `intact` ones.
 */
async function assertListed(
  { here, images }: Place,
  lost: StoreSnapshot,
  listed: readonly StoreSnapshot[],
  expected: readonly StoreSnapshot[] = listed,
): Promise<void> {
  const contents = await loadContents(here.access);
  const snapshots = await here.store.snapshots();
  const idsOf = (some: readonly StoreSnapshot[]): Set<string> => new Set(some.map(({ id }) => id));
  assert.ok(readFailure(contents, lost) instanceof StoreDamage);
  assert.deepEqual(idsOf(stillIntact(contents, snapshots)), idsOf(listed));
  const { intact, problems } = await here.store.check({ readData: true });
  assert.deepEqual(idsOf(intact), idsOf(expected));
  assert.equal(problems.length, 1);
  await assertStored(here, intact, images);
}

/** The error of reading a snapshot. */
function readFailure({ reader }: StoreContents, snapshot: StoreSnapshot): unknown {
  const source = new SnapshotSource(reader, snapshot);
  try {
    for (let page = 1; page <= source.pageCount; page++) source.readPage(page as PageNumber);
  } catch (error) {
    return error;
  }
  return assert.fail('nothing of it is lost');
}

/** An amount other than `old`, with which the first block that holds it has the same hash. */
function withBlockHashOf(page: Buffer, old: Uint8Array): Uint8Array {
  const at = page.indexOf(old);
  const block = Math.floor(at / BLOCK_BYTES);
  const hashOf = (amount: Uint8Array): number => {
    const changed = new Uint8Array(page);
    changed.set(amount, at);
    const hashes = new Uint8Array(blockHashBytes(PAGE_BYTES));
    HASHER.hashBlocks(changed, hashes, 0);
    return blockHashAt(hashes, block);
  };
  const wanted = hashOf(old);
  for (let attempt = 0; ; attempt++) {
    const amount = bytesOf(`attempt ${attempt}`);
    if (hashOf(amount) === wanted) return amount;
  }
}

/** Puts the content of these packs a second time; returns the new places. */
async function copyOf({ access }: StoreHere, packs: readonly string[]): Promise<Map<string, string>> {
  const copies = new Map<string, string>();
  for (const id of packs) {
    const { reader, index } = await loadContents(access);
    const writer = new PackWriter(access, index);
    const { firstFrame, frameCount } = index.packs.get(id) as { firstFrame: number; frameCount: number };
    for (let number = firstFrame; number < firstFrame + frameCount; number++) {
      const { firstObject } = index.frames[number] as { firstObject: number };
      const frame = reader.readFrame(number);
      for (let i = 0; i < frame.objectCount; i++) {
        const objectId = index.idOf(firstObject + i).slice();
        const depth = index.depthOf(firstObject + i);
        if (frame.kind === 'nodes') writer.addNode(objectId, frame.object(i), depth);
        else writer.addPage(objectId, frame.object(i), depth, frame.pageSize);
      }
    }
    await writer.finish();
    copies.set(id, writer.packIds[0] as string);
  }
  return copies;
}
