import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { ByteRange } from '../../src/backup/backends/backend.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import type { StoreContents } from '../../src/backup/files/store-files.ts';
import { SnapshotSource } from '../../src/backup/snapshots/snapshot-source.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { ReadPlan } from '../../src/backup/objects/read-plan.ts';
import type { ObjectIndex } from '../../src/backup/objects/object-index.ts';
import { SnapshotPlan } from '../../src/backup/snapshots/snapshot-plan.ts';
import type { SnapshotTree } from '../../src/backup/snapshots/snapshot-tree.ts';
import type { PageNumber, PageSize } from '../../src/pages/page-types.ts';
import { change, largeDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { MemoryBackend } from './memory-backend.ts';
import { backupHere, storeHere } from './store-here.ts';

const RUN_PAGES = 256;
const MB = 1024 * 1024;

/** Notes which reads were planned, and how far ahead. */
class PlanningBackend extends MemoryBackend {
  readonly planned: (ByteRange & { readonly name: string })[] = [];
  readonly unplanned: string[] = [];
  plannedBytes = 0;
  readBytes = 0;
  mostAheadBytes = 0;

  plan(name: string, range: ByteRange): void {
    this.planned.push({ name, ...range });
    this.plannedBytes += range.length;
    this.mostAheadBytes = Math.max(this.mostAheadBytes, this.plannedBytes - this.readBytes);
  }

  override getNow(name: string, range?: ByteRange): Uint8Array {
    if (range !== undefined && name.startsWith('packs/')) {
      const { offset, length } = range;
      const isPlanned = this.planned.some(
        (each) => each.name === name && offset >= each.offset && offset + length <= each.offset + each.length,
      );
      if (isPlanned) this.readBytes += length;
      else this.unplanned.push(`${name} ${offset}`);
    }
    return super.getNow(name, range);
  }
}

/** Objects of one page, each in a pack of its own. */
function scattered(): ObjectIndex {
  const frames: unknown = new Proxy([], {
    get: (_, number) => ({ pack: { id: String(number) }, offset: 40, length: 1000 }),
  });
  const index: Partial<ObjectIndex> = {
    chainOf: (id) => [Buffer.from(id).readUInt32LE(0)],
    frameNumberOf: (object) => object,
    frames: frames as ObjectIndex['frames'],
  };
  return index as ObjectIndex;
}

describe('a reader of a whole snapshot in a store elsewhere', () => {
  test('requests no more ranges of scattered frames than the reader keeps the answers of', () => {
    let planned = 0;
    const index = scattered();
    const nothing = new ReadPlan(
      index,
      () => undefined,
      () => true,
    );
    const pages = new ReadPlan(
      index,
      () => void planned++,
      () => false,
    );
    const id = (page: number): Uint8Array => Buffer.from(Uint32Array.of(page).buffer);
    const tree: Partial<SnapshotTree> = {
      pageCount: 3000,
      rootLevel: 0,
      pageId: id,
      nodeId: (_, at) => id(at),
    };
    const plan = new SnapshotPlan(tree as SnapshotTree, 512 as PageSize, { nodes: nothing, pages });
    for (let page = 1; page <= 3000; page++) {
      plan.reach(page);
      const ahead = planned - (page - 1);
      assert.ok(ahead >= 1 && ahead <= 200, `${ahead} ranges ahead of page ${page}`);
    }
    assert.equal(planned, 3000);
  });

  test('requests all frames of pages in time, joined to large ranges, and few bytes too many', async (t) => {
    const { backend, contents, image, snapshot } = await place(t, { bytes: 40e6, backups: 5 });
    const source = new SnapshotSource(contents.reader, snapshot);
    source.readsInOrder();
    assertReads(source, image);
    const nodes = framesOf(contents, 2);
    assert.deepEqual(
      backend.unplanned.filter((each) => !nodes.has(each)),
      [],
    );
    // Only the root is looked for without a plan, and its bases.
    assert.ok(backend.unplanned.length <= 6, backend.unplanned.join());
    assert.ok(backend.mostAheadBytes < 32 * MB, `${backend.mostAheadBytes} bytes ahead`);
    assert.ok(backend.planned.length < 80, `${backend.planned.length} requests`);
    for (const { length } of backend.planned) assert.ok(length <= 4 * MB, `${length} bytes`);
    assert.ok(backend.plannedBytes < 1.3 * backend.readBytes, `${backend.plannedBytes} bytes requested`);
  });

  test('reads it all the same if it reads other pages than it said', async (t) => {
    const { contents, image, snapshot } = await place(t, { bytes: 2e6, backups: 2 });
    const source = new SnapshotSource(contents.reader, snapshot);
    source.readsInOrder();
    const size = snapshot.pageSize;
    for (let page = snapshot.pageCount; page >= 1; page -= 7)
      assert.ok(image.subarray((page - 1) * size, page * size).equals(source.readPage(page as PageNumber)));
    assertReads(source, image);
  });

  test('a snapshot of one page is read', async (t) => {
    const { contents, image, snapshot } = await place(t, { bytes: 0, backups: 0 });
    const source = new SnapshotSource(contents.reader, snapshot);
    source.readsInOrder();
    assertReads(source, image);
  });
});

async function place(
  t: TestContext,
  { bytes, backups }: { readonly bytes: number; readonly backups: number },
): Promise<{ backend: PlanningBackend; contents: StoreContents; image: Buffer; snapshot: StoreSnapshot }> {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  if (bytes === 0) change(origin, 'PRAGMA user_version = 1');
  else largeDatabase(origin, bytes);
  const backend = new PlanningBackend();
  const here = await storeHere(backend, folder);
  await backupHere(here, origin);
  for (let day = 0; day < backups; day++) {
    // Small changes, all over the database.
    const changed = 'substr(x, 1, 4000) || randomblob(20) || substr(x, 4021)';
    change(origin, `UPDATE t SET x = ${changed} WHERE rowid % 97 = ${day}`);
    await backupHere(here, origin);
  }
  const contents = await loadContents(here.access);
  const snapshot = await here.store.find('latest');
  backend.unplanned.length = 0;
  return { backend, contents, image: pageImage(origin), snapshot };
}

function assertReads(source: SnapshotSource, image: Buffer): void {
  const size = source.pageSize;
  for (let first = 1; first <= source.pageCount; first += RUN_PAGES) {
    const count = Math.min(RUN_PAGES, source.pageCount - first + 1);
    const bytes = source.readPages(first as PageNumber, count);
    const wanted = image.subarray((first - 1) * size, (first - 1 + count) * size);
    assert.ok(wanted.equals(bytes), `pages from ${first}`);
  }
}

/** The places of all frames of a kind. */
function framesOf({ index }: StoreContents, kind: number): Set<string> {
  const frames = index.frames.filter((frame) => frame.kind === kind);
  return new Set(frames.map(({ pack, offset }) => `packs/${pack.id} ${offset}`));
}
