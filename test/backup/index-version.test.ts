import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/** Makes all indexes those of another version, as their first bytes say it. */
function asVersion(backend: MemoryBackend, version: number): string[] {
  const names = [...backend.files.keys()].filter((name) => name.startsWith('indexes/'));
  return names.map((name) => {
    const bytes = Buffer.from(backend.files.get(name) as Uint8Array);
    bytes.write(`SQLSYNX${version}`);
    backend.files.delete(name);
    const other = `indexes/${createHash('sha256').update(bytes).digest('hex')}`;
    backend.files.set(other, bytes);
    return other;
  });
}

async function backedUp(
  t: TestContext,
): Promise<{ backend: MemoryBackend; here: StoreHere; origin: string }> {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin);
  const backend = new MemoryBackend();
  const here = await storeHere(backend, folder);
  await backupHere(here, origin);
  return { backend, here, origin };
}

describe('an index of another version', () => {
  test('of a newer program makes each command say so, and repair leaves everything as it is', async (t) => {
    const { backend, here, origin } = await backedUp(t);
    asVersion(backend, 3);
    const files = new Map(backend.files);
    const refused = {
      code: 'STORE_VERSION',
      hint: 'Install a newer sqlsync.',
      message: /version 3.*version 2/,
    };
    await assert.rejects(here.store.repair({ readData: true }), refused);
    await assert.rejects(here.store.check(), refused);
    await assert.rejects(here.store.prune({ graceSeconds: 0 }), refused);
    await assert.rejects(backupHere(here, origin), refused);
    assert.deepEqual(backend.files, files);
  });

  test('of an older program is named by check and prune with the way out, and repair writes it anew', async (t) => {
    const { backend, here, origin } = await backedUp(t);
    const [file] = asVersion(backend, 1);
    const { problems } = await here.store.check();
    assert.ok(problems.some((problem) => problem.file === file && /version 1/.test(problem.message)));
    await assert.rejects(here.store.prune(), { code: 'STORE_VERSION', hint: /sqlsync repair STORE/ });
    assert.equal((await here.store.repair()).indexesRemoved, 1);
    assert.equal(backend.files.has(file as string), false);
    assert.deepEqual((await here.store.check({ readData: true })).problems, []);
    const snapshots = await here.store.snapshots();
    const images = new Map(snapshots.map(({ id }) => [id, pageImage(origin)]));
    await assertStored(here, snapshots, images);
    change(origin, 'CREATE TABLE more (x)');
    await backupHere(here, origin);
    await here.store.prune();
  });
});
