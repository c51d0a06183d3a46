import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { MemoryBackend } from './memory-backend.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { ChosenBlob } from '../support/chosen-content.ts';
import { tempDir } from '../support/compare.ts';
import { backupHere, originNameOf, restoreHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

describe('content that is chosen to look unchanged', () => {
  test('content that is chosen to look unchanged is in every backup, while the key of the cached hashes stays the same', async (t) => {
    const { here, blob, cachedKey, isIn } = await place(t);
    await backupHere(here, blob.path);
    const key = cachedKey();
    for (let i = 0; i < 12; i++) {
      blob.change();
      const snapshot = await backupHere(here, blob.path);
      assert.ok(snapshot.statistics.pagesChanged <= 2, 'the cached hashes were not used');
      assert.ok(await isIn(snapshot), `backup ${i}`);
      assert.deepEqual(cachedKey(), key);
    }
  });

  test('--hash xxh64 leaves chosen content out of backups for good, which --verify finds and mends', async (t) => {
    const { here, blob, isIn } = await place(t);
    const hash = 'xxh64';
    await backupHere(here, blob.path, { hash });
    let tries = 0;
    do {
      assert.ok(tries++ < 60, 'XXH64 noticed 60 changes that were made for it');
      blob.change();
    } while (await isIn(await backupHere(here, blob.path, { hash })));
    // The key of the cache is the same again.
    assert.equal(await isIn(await backupHere(here, blob.path, { hash })), false);
    const verified = await backupHere(here, blob.path, { hash, verify: true });
    assert.ok(await isIn(verified));
    // It leaves the right hashes in the cache.
    const next = await backupHere(here, blob.path, { hash });
    assert.ok(await isIn(next));
    assert.ok(next.statistics.pagesChanged <= 1);
  });

  test('chosen content is in a verified backup, after which the cache has the hashes of the default', async (t) => {
    const { here, blob, isIn, cached } = await place(t);
    await backupHere(here, blob.path, { verify: true });
    for (let i = 0; i < 3; i++) {
      assert.equal(cached().algorithm, 'nh-siphash');
      assert.equal(cached().hashes.length % 8, 0);
      blob.change();
      const snapshot = await backupHere(here, blob.path, { verify: i !== 1 });
      assert.ok(await isIn(snapshot));
      assert.ok(snapshot.statistics.pagesChanged <= 2);
      assert.equal(cached().snapshot, snapshot.id);
    }
  });
});

interface Place {
  readonly here: StoreHere;
  readonly blob: ChosenBlob;
  readonly cached: () => NonNullable<ReturnType<StoreHere['cache']['load']>>;
  readonly cachedKey: () => Uint8Array;
  readonly isIn: (snapshot: StoreSnapshot) => Promise<boolean>;
}

async function place(t: TestContext): Promise<Place> {
  const folder = tempDir(t);
  const here = await storeHere(new MemoryBackend(), folder);
  const blob = new ChosenBlob(join(folder, 'o.db'));
  const target = join(folder, 'restored.db');
  const cached: Place['cached'] = () => {
    const found = here.cache.load(originNameOf(blob.path));
    assert.ok(found);
    return found;
  };
  return {
    here,
    blob,
    cached,
    cachedKey: () => cached().key,
    async isIn(snapshot) {
      rmSync(target, { force: true });
      await restoreHere(here, snapshot, target);
      return blob.isIn(target);
    },
  };
}
