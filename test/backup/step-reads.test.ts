import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ByteRange } from '../../src/backup/backends/backend.ts';
import { StepWriter } from '../../src/backup/steps/step-writer.ts';
import { loadOverlay } from '../../src/backup/steps/stored-steps.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { MemoryBackend } from './memory-backend.ts';
import { backupHere, storeHere } from './store-here.ts';

/** A place elsewhere, which answers after a turn of the event loop. */
class Elsewhere extends MemoryBackend {
  readonly parallel = 8;
  underWay = 0;
  most = 0;

  override async get(name: string, range?: ByteRange): Promise<Uint8Array> {
    if (!name.startsWith('steps/')) return super.get(name, range);
    this.most = Math.max(this.most, ++this.underWay);
    await new Promise((resolve) => setImmediate(resolve));
    this.underWay--;
    return super.get(name, range);
  }
}

const PAGE_SIZE = 4096;

test('the steps to a state are read several at once, and laid over one another in their order', async (t) => {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin);
  const backend = new Elsewhere();
  const here = await storeHere(backend, folder);
  await backupHere(here, origin);
  const [snapshot] = await here.store.snapshots();
  assert.ok(snapshot !== undefined);
  const writer = new StepWriter(here.access, { ...snapshot, pageSize: PAGE_SIZE }, 3_600_000);
  const page = (value: number): Uint8Array => new Uint8Array(PAGE_SIZE).fill(value);
  for (let n = 1; n <= 30; n++) {
    // Each state has page 1 anew, and one page that no later one changes.
    const pages = new Map([
      [1, page(n)],
      [n + 1, page(n)],
    ]);
    await writer.put({ timeMs: Date.now(), pageSize: PAGE_SIZE, pageCount: 100, pages });
  }
  const at = { stream: writer.stream, step: 30 };
  const { pages, pageCount } = await loadOverlay(here.access, { ...snapshot, pageSize: PAGE_SIZE }, at);
  assert.deepEqual([pages.size, pageCount, backend.most], [31, 100, backend.parallel]);
  for (let n = 1; n <= 30; n++) assert.equal(pages.get(n + 1)?.[0], n);
  assert.equal(pages.get(1)?.[0], 30);
  // Without one of them the state is not there; what was requested beside it does no harm.
  for (const name of backend.files.keys())
    if (name.startsWith(`steps/${writer.stream}-0-00000015-`)) backend.files.delete(name);
  await assert.rejects(loadOverlay(here.access, { ...snapshot, pageSize: PAGE_SIZE }, at), {
    code: 'SNAPSHOT_NOT_FOUND',
  });
  assert.equal(backend.underWay, 0);
});
