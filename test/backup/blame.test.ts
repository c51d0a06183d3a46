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

/** Of all backups but the first, so that the short hashes of blocks are the same in each run. */
const HASHER_KEY = new Uint8Array(16).fill(7);
const HASHER = createPageHasher(DEFAULT_HASH, HASHER_KEY, PAGE_BYTES as PageSize);

/** A page that every day changes. */
const CHANGING_PAGE = 50;

describe('a flipped byte in what deltas are made of', () => {
  test('of pages is blamed on the pack that it is in, and only what needs that is called lost', async (t) => {
    const place = await makePlace(t);
    const { memory, here, days } = place;
    const [first, second] = days as [Day, Day];
    flip(memory, first.pack, place.unchanged);
    for (const { snapshot } of days.slice(0, DAYS)) await assertBlamed(here, snapshot, first.pack);
    // A database of its own, in a pack of its own.
    await assertListed(place, first.snapshot, [place.other]);
    flip(memory, first.pack, place.unchanged);
    // Each day replaces the block that is damaged, so that only the day that wrote it has lost a page. Whoever restores is told
    // of those that do not need the file at all.
    flip(memory, second.pack, second.changed);
    await assertBlamed(here, second.snapshot, second.pack);
    const intact = [first, ...days.slice(2)].map(({ snapshot }) => snapshot);
    await assertListed(place, second.snapshot, [first.snapshot, place.other], [...intact, place.other]);
  });

  test('of nodes is blamed on the pack that it is in', async (t) => {
    const place = await makePlace(t);
    const { memory, here, days } = place;
    const [first] = days as [Day];
    const lastPage = await lastPageId(here, first.snapshot);
    flip(memory, first.pack, lastPage);
    for (const { snapshot } of days.slice(0, DAYS)) await assertBlamed(here, snapshot, first.pack);
    await assertListed(place, first.snapshot, [place.other]);
  });

  test('is found without reading all data in nodes, and not in pages', async (t) => {
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
    assert.deepEqual([damaged.map(({ snapshot }) => snapshot.id), intact], [all.slice(0, DAYS), [other]]);
  });

  test('does no harm while another pack has what it damages', async (t) => {
    const place = await makePlace(t);
    const { memory, here, days, images } = place;
    const [first, second] = days as [Day, Day];
    const copies = await copyOf(memory, here, [first.pack, second.pack]);
    const lastPage = await lastPageId(here, first.snapshot);
    // Each of two copies, since it is chance which of them a reader takes first; of both a different part.
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

test('a page of which a changed block has the hash that it had comes whole, and needs nothing of the days before', async (t) => {
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

test('a prune keeps of two copies of an object one that is right', async (t) => {
  const { memory, here, days, images, unchanged } = await makePlace(t);
  const [first] = days as [Day];
  const copies = await copyOf(memory, here, [first.pack]);
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
  /** The one pack that it wrote. */
  readonly pack: string;
  /** Some of the bytes that it wrote. */
  readonly changed: Uint8Array;
}

interface Place {
  readonly memory: MemoryBackend;
  readonly here: StoreHere;
  readonly days: readonly Day[];
  /** A snapshot that shares nothing with the days. */
  readonly other: StoreSnapshot;
  readonly images: ReadonlyMap<string, Buffer>;
  /** Bytes of the first day's, in a page of which only other blocks changed later. */
  readonly unchanged: Uint8Array;
}

/**
 * Bytes that do not compress are in a pack as they are. There is a row a page, and each day changes two blocks of most.
 * The bytes, and the key of the hashes, are the same in each run: of random ones, one change in some thousand has a block whose short hash stays, so
 * that its page comes whole and needs nothing of the days before.
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

/** The cached hashes, and with them all that follow, are from now on those under `HASHER_KEY`. */
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

/** Flips a bit of these bytes where they lie in a pack; once more, and it is as it was. */
function flip(memory: MemoryBackend, pack: string, bytes: Uint8Array): void {
  const flipped = Buffer.from(memory.files.get(`packs/${pack}`) as Uint8Array);
  const at = flipped.indexOf(bytes.subarray(1)) - 1;
  assert.ok(at >= 0, 'the bytes are in the pack as they are');
  flipped[at] = (flipped[at] as number) ^ 1;
  memory.files.set(`packs/${pack}`, flipped);
}

/** The id of a page that no day changes: its node names it, and those that are deltas against that do not. */
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

/** Whoever cannot have one snapshot is told of just the `listed` ones, and whoever reads all data of the `intact` ones. */
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

/** What reading a snapshot fails with. */
function readFailure({ reader }: StoreContents, snapshot: StoreSnapshot): unknown {
  const source = new SnapshotSource(reader, snapshot);
  try {
    for (let page = 1; page <= source.pageCount; page++) source.readPage(page as PageNumber);
  } catch (error) {
    return error;
  }
  return assert.fail('nothing of it is lost');
}

/** Another amount than `old`, with which the first block that it is in has the same hash. */
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

/** Puts what these packs hold a second time; returns where each was put. */
async function copyOf(
  memory: MemoryBackend,
  { access }: StoreHere,
  packs: readonly string[],
): Promise<Map<string, string>> {
  const copies = new Map<string, string>();
  for (const id of packs) {
    const { reader, index } = await loadContents(access);
    const writer = new PackWriter(memory, access.sealer, index);
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
