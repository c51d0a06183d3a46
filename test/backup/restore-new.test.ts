import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { runRestore } from '../../src/backup/restore/restore.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { backupHere, storeHere } from './store-here.ts';

interface Place {
  readonly store: string;
  readonly snapshot: string;
  readonly image: Buffer;
  /** The folder of the target, which holds nothing else. */
  readonly folder: string;
  readonly target: string;
}

/** A store of one database that is read in several pieces. */
async function makePlace(t: TestContext): Promise<Place> {
  const root = tempDir(t);
  const [store, origin, folder] = ['store', 'origin.db', 'to'].map((name) => join(root, name)) as [
    string,
    string,
    string,
  ];
  smallDatabase(origin, { rows: 20_000 });
  const image = readFileSync(origin);
  assert.ok(image.length > 3 * 1024 * 1024);
  const here = await storeHere(new DirectoryBackend(store), root);
  const { id } = await backupHere(here, origin);
  mkdirSync(folder);
  return { store, snapshot: id, image, folder, target: join(folder, 'app.db') };
}

describe('a restore to a new file', () => {
  test('a restore to a new file that is interrupted makes none; the next one makes it, with nothing beside it', async (t) => {
    const { store, snapshot, image, folder, target } = await makePlace(t);
    const stop = new AbortController();
    const onProgress = (): void => stop.abort();
    await assert.rejects(runRestore({ store, snapshot, target, onProgress, signal: stop.signal }), {
      code: 'INTERRUPTED',
      hint: /\.app\.db\.sqlsync-part \([0-9.]+ .B\) keeps what has arrived/,
    });
    assert.ok(!existsSync(target));
    assert.deepEqual(readdirSync(folder), ['.app.db.sqlsync-part']);
    const { created, outcome } = await runRestore({ store, snapshot, target });
    assert.deepEqual([created, outcome], [true, 'committed']);
    assert.ok(readFileSync(target).equals(image));
    assert.deepEqual(readdirSync(folder), ['app.db']);
  });

  test('a restore to a new file reports the same pages as one through the other agent', async (t) => {
    const { store, snapshot, folder, target, image } = await makePlace(t);
    const direct = await runRestore({ store, snapshot, target });
    const other = join(folder, 'other.db');
    // The connection keeps a limit in time.
    const through = await runRestore({ store, snapshot, target: other, maxTimeMs: 600_000 });
    const told = ({
      outcome,
      created,
      pagesChanged,
      pagesTransferred,
      pagesDelta,
    }: typeof direct): unknown[] => [outcome, created, pagesChanged, pagesTransferred, pagesDelta];
    assert.deepEqual(told(direct), told(through));
    assert.ok(through.bytesSent > 0 && direct.bytesSent === 0);
    for (const path of [target, other]) assert.ok(readFileSync(path).equals(image));
  });

  test('a restore of a damaged snapshot makes no file', async (t) => {
    const { store, snapshot, target } = await makePlace(t);
    for (const name of readdirSync(join(store, 'packs'))) {
      const path = join(store, 'packs', name);
      const bytes = readFileSync(path);
      writeFileSync(path, bytes.fill(7, bytes.length >> 1, (bytes.length >> 1) + 64));
    }
    await assert.rejects(runRestore({ store, snapshot, target }), { code: 'STORE_DAMAGED' });
    assert.ok(!existsSync(target));
  });

  test('a restore that fails before its first page leaves nothing', async (t) => {
    const { store, snapshot, folder, target } = await makePlace(t);
    for (const name of readdirSync(join(store, 'packs'))) {
      const path = join(store, 'packs', name);
      writeFileSync(path, readFileSync(path).fill(7));
    }
    await assert.rejects(runRestore({ store, snapshot, target }), { code: 'STORE_DAMAGED' });
    assert.deepEqual(readdirSync(folder), []);
  });
});
