import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import {
  backup,
  initStore,
  openDatabase,
  openStore,
  repairStore,
  restore,
  sync,
  verify,
} from '../../src/index.ts';
import { databaseUri } from '../../src/sqlite/database-uri.ts';
import { tryExclusiveLock } from '../../src/sqlite/locks/exclusive-lock.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';

const REFUSED = { name: 'SqlsyncError', code: 'USAGE' } as const;

describe('a path that would open another file than it spells', () => {
  for (const [what, spoilt] of [
    ['a NUL byte', 'secret\0.db'],
    ['a NUL byte at the end', 'secret\0'],
    ['half of a surrogate pair', 'secret\ud800'],
  ] as const) {
    test(`a path with ${what} is refused before anything is opened`, async (t) => {
      const folder = tempDir(t);
      const secret = join(folder, 'secret');
      smallDatabase(secret, { rows: 10, journalMode: 'delete' });
      const before = readFileSync(secret);
      const path = join(folder, spoilt);
      const other = join(folder, 'other');
      await assert.rejects(openDatabase(path), REFUSED);
      await assert.rejects(openDatabase(path, { create: false }), REFUSED);
      for (const options of [
        { origin: path, replica: other },
        { origin: secret, replica: path },
      ]) {
        await assert.rejects(sync(options), REFUSED);
      }
      await assert.rejects(verify({ a: path, b: secret }), REFUSED);
      await assert.rejects(backup({ origin: path, store: other }), REFUSED);
      await assert.rejects(backup({ origin: secret, store: path }), REFUSED);
      await assert.rejects(restore({ store: path, snapshot: 'latest', target: other }), REFUSED);
      await assert.rejects(restore({ store: other, snapshot: 'latest', target: path }), REFUSED);
      await assert.rejects(initStore(path), REFUSED);
      await assert.rejects(openStore(path), REFUSED);
      await assert.rejects(repairStore(path), REFUSED);
      assert.throws(() => tryExclusiveLock(path), REFUSED);
      assert.throws(() => databaseUri(path, { mode: 'rw' }), REFUSED);
      assert.deepEqual(readdirSync(folder), ['secret']);
      assert.deepEqual(readFileSync(secret), before);
    });
  }

  for (const [what, end] of [
    ['NUL', '%00.db'],
    ['bytes that are no UTF-8', '%ff.db'],
  ] as const) {
    test(`a file: URL with ${what} is refused before anything is opened`, async (t) => {
      const folder = tempDir(t);
      const url = new URL(`${pathToFileURL(join(folder, 'a')).href}${end}`);
      await assert.rejects(openDatabase(url), REFUSED);
      assert.deepEqual(readdirSync(folder), []);
    });
  }
});
