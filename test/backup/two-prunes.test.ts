import { join } from 'node:path';
import { test } from 'node:test';
import { MemoryBackend } from './memory-backend.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { putIndexFile } from '../../src/backup/objects/pack-writer.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { jsonBytes, loadContents, putRecord } from '../../src/backup/files/store-files.ts';
import { smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { FaultyBackend } from './faulty-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';

const GRACE_SECONDS = 1000;

test('two prunes at once leave the same one of several copies that are all due, whichever indexes each of them sees', async (t) => {
  const folder = tempDir(t);
  const empty = new MemoryBackend();
  await storeHere(empty, folder, GRACE_SECONDS);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 5 });
  const images = new Map<string, Buffer>();
  // The files of backups that ran at once, without knowing of each other.
  const stores: MemoryBackend[] = [];
  for (let n = 0; n < 4; n++) {
    const memory = copyOf(empty);
    const access = await openBackend(memory);
    const { cache } = await storeHere(new MemoryBackend(), join(folder, String(n)));
    const { id } = await backupHere({ access, store: new OpenStore(access), cache }, origin);
    images.set(id, pageImage(origin));
    stores.push(memory);
  }
  for (const [first, second, third] of orders(stores)) {
    const memory = copyOf(empty);
    const packs = [];
    for (const store of [first, second, third]) {
      const { index } = await loadContents(await openBackend(store));
      packs.push(...[...index.packs.values()].map((pack) => index.describe(pack)));
      for (const [name, bytes] of store.files) if (name.startsWith('packs/')) await memory.put(name, [bytes]);
    }
    for (const [name, bytes] of first.files)
      if (name.startsWith('snapshots/')) await memory.put(name, [bytes]);
    const access = await openBackend(memory);
    await putIndexFile(access, packs.slice(0, 2));
    await putIndexFile(access, packs.slice(2));
    const time = new Date(Date.now() - 2000 * GRACE_SECONDS);
    const ids = (await memory.list('packs')).map(({ name }) => name);
    const mark = await putRecord(access, 'marks', 'mark', jsonBytes({ version: 1, time, packs: ids }));
    memory.modified.set(`marks/${mark}`, time);

    // The other prune sweeps just before the first one deletes its second index; neither comes to copying
    // anything.
    const full = new FaultyBackend(memory, (_, operation, name) =>
      operation === 'put' && name.startsWith('packs/') ? 'before' : 'none',
    );
    const store = new OpenStore({ ...access, backend: full, files: full });
    const remove = memory.delete.bind(memory);
    let indexes = 0;
    memory.delete = async (name) => {
      if (name.startsWith('indexes/') && ++indexes === 2) await store.prune();
      await remove(name);
    };
    await store.prune();
    await assertStored({ access }, await store.snapshots(), images);
  }
});

function copyOf(memory: MemoryBackend): MemoryBackend {
  const copy = new MemoryBackend();
  for (const [name, bytes] of memory.files) copy.files.set(name, bytes);
  return copy;
}

/** Three of them, in every order. */
function* orders<T>(all: readonly T[]): Generator<[T, T, T]> {
  for (const a of all)
    for (const b of all) for (const c of all) if (a !== b && a !== c && b !== c) yield [a, b, c];
}
