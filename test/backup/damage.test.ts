import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { MemoryBackend } from './memory-backend.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { pageImage } from '../support/compare.ts';
import { DAMAGES, storeToDamage } from './damages.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);

const { folder, origins, files, images } = storeToDamage('damage', async ({ store }, kept) => {
  const [first] = await store.snapshots();
  await store.forget([first?.id ?? '']);
  kept.delete(first?.id ?? '');
});

for (const [damage, apply] of Object.entries(DAMAGES)) {
  describe(`${damage} in a store`, () => {
    test(`${damage} is found, named, and reported with just the snapshots that cannot be restored`, async (t) => {
      t.diagnostic(`SQLSYNC_SEED=${SEED}`);
      const random = new Random(SEED);
      for (const name of files.keys()) {
        if (name === 'config' || name.startsWith('forgotten/')) continue;
        for (let i = 0; i < 3; i++) {
          // A check that does not read all data finds a wrong length, and damage to every other kind of file.
          const readData = i > 0 || (damage === 'a flipped bit' && name.startsWith('packs/'));
          const changed = apply(files.get(name) as Uint8Array, random);
          const { memory, here, store } = await damaged(name, changed);
          const { problems, intact, damaged: lost } = await store.check({ readData });
          // Only a later snapshot can tell that an earlier one is gone.
          if (
            name.startsWith('snapshots/') &&
            apply(new Uint8Array(1), random) === undefined &&
            isNewest(name)
          )
            continue;
          // Nobody knows which index is missing; its objects are known.
          const isUnknown = name.startsWith('indexes/') && !memory.files.has(name);
          assert.ok(
            isUnknown || problems.some(({ file }) => file === name),
            `${name}: ${JSON.stringify(problems)}`,
          );
          await assertStored(here, intact, images);
          for (const { snapshot, pagesLost } of lost) {
            assert.ok(pagesLost > 0);
            await assert.rejects(
              assertStored(here, [snapshot], images),
              isDamage,
              `${name} ${JSON.stringify(problems)} ${pagesLost}`,
            );
          }
          const told = [...intact, ...lost.map(({ snapshot }) => snapshot)].length;
          assert.equal(told, images.size - (name.startsWith('snapshots/') ? 1 : 0));
        }
      }
    });

    test('damage in the config of a store is found when the store is opened', async () => {
      const random = new Random(SEED);
      for (let i = 0; i < 20; i++) {
        const bytes = apply(files.get('config') as Uint8Array, random);
        const code = bytes === undefined ? 'STORE_NOT_FOUND' : 'STORE_DAMAGED';
        await assert.rejects(damaged('config', bytes), { code });
      }
    });

    // Reading shows a flipped bit; the list of packs shows a missing or cut file.
    const skip = damage === 'a flipped bit';
    test(`${damage} does not keep the next backup from being good`, { skip }, async () => {
      const random = new Random(SEED);
      const [origin] = origins as [string];
      const image = pageImage(origin);
      for (const name of files.keys()) {
        if (!name.startsWith('packs/')) continue;
        const { here, store } = await damaged(name, apply(files.get(name) as Uint8Array, random));
        const { problems } = await store.check();
        if (problems.length === 0) continue;
        const snapshot = await backupHere(here, origin);
        await assertStored(here, [snapshot], new Map([[snapshot.id, image]]));
      }
    });

    test(`${damage} makes prune refuse to delete anything while a snapshot needs what is lost`, async () => {
      const random = new Random(SEED);
      for (const name of files.keys()) {
        if (!name.startsWith('indexes/') && !name.startsWith('snapshots/')) continue;
        const { memory, store } = await damaged(name, apply(files.get(name) as Uint8Array, random));
        const all = [...memory.files.keys()].filter((file) => !file.startsWith('forgotten/'));
        try {
          await store.prune({ graceSeconds: 1e-9 });
        } catch (error) {
          assert.ok(isDamage(error), String(error));
          assert.deepEqual(
            [...memory.files.keys()].filter((file) => !file.startsWith('forgotten/')),
            all,
          );
          continue;
        }
        // No snapshot needs a record that is gone, or an index of forgotten snapshots.
        assert.ok(!memory.files.has(name));
      }
    });
  });
}

/** A copy of the store in which one file has these bytes, or is missing. */
async function damaged(
  name: string,
  bytes: Uint8Array | undefined,
): Promise<{ memory: MemoryBackend; here: StoreHere; store: OpenStore }> {
  const memory = new MemoryBackend();
  for (const [file, content] of files) memory.files.set(file, content);
  if (bytes === undefined) memory.files.delete(name);
  else memory.files.set(name, bytes);
  const access = await openBackend(memory);
  const store = new OpenStore(access);
  const { cache } = await storeHere(new MemoryBackend(), folder);
  return { memory, here: { access, store, cache }, store };
}

/** Whether the snapshot is the parent of none. */
function isNewest(name: string): boolean {
  return ![...files].some(
    ([file, bytes]) =>
      file.startsWith('snapshots/') &&
      file !== name &&
      Buffer.from(bytes).includes(`"parent":"${name.slice('snapshots/'.length)}"`),
  );
}

function isDamage(error: unknown): boolean {
  return (
    error instanceof SqlsyncError && (error.code === 'STORE_DAMAGED' || error.code === 'STORE_FILE_MISSING')
  );
}
