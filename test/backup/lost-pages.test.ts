import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import Database from 'better-sqlite3';
import { MemoryBackend } from './memory-backend.ts';
import { change, column } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/**
 * The kinds of store in which the pack of the first backup is gone, and nothing else tells of it any more.
 */
const LOSSES: Record<string, (memory: MemoryBackend, here: StoreHere) => Promise<void>> = {
  'that a repair gave up': async (memory, here) => {
    for (const { name } of await memory.list('packs')) await memory.delete(`packs/${name}`);
    await here.store.repair({ readData: true });
  },
  'that is lost with its index': async (memory) => {
    for (const folder of ['packs', 'indexes'] as const)
      for (const { name } of await memory.list(folder)) await memory.delete(`${folder}/${name}`);
  },
};

describe('a backup stores again the unchanged pages of a pack that is gone', () => {
  for (const [what, lose] of Object.entries(LOSSES)) {
    test(`a backup stores again the unchanged pages of a pack ${what}`, async (t) => {
      const folder = tempDir(t);
      const memory = new MemoryBackend();
      const here = await storeHere(memory, folder);
      const origin = join(folder, 'origin.db');
      pagesOfOneRow(origin);
      await backupHere(here, origin);
      const first = new Map(memory.files);
      // So many that all nodes are written whole: the tree of the newest snapshot is readable without the
      // first pack.
      change(origin, 'UPDATE t SET n = 1 WHERE id % 20 <> 1');
      await backupHere(here, origin);
      const newer = new Map([...memory.files].filter(([name]) => !first.has(name)));
      for (const name of newer.keys()) if (!name.startsWith('snapshots/')) memory.files.delete(name);
      await lose(memory, here);
      for (const [name, bytes] of newer) memory.files.set(name, bytes);

      const snapshot = await backupHere(here, origin);
      assert.equal(snapshot.statistics.pagesChanged, column(origin, 'PRAGMA page_count')[0]);
      await assertStored(here, [snapshot], new Map([[snapshot.id, pageImage(origin)]]));
    });
  }
});

function pagesOfOneRow(path: string): void {
  const db = new Database(path);
  try {
    db.exec(`
      PRAGMA page_size = 512;
      CREATE TABLE t (id INTEGER PRIMARY KEY, x BLOB, n INTEGER);
      WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 200)
      INSERT INTO t SELECT i, randomblob(400), 0 FROM i`);
  } finally {
    db.close();
  }
}
