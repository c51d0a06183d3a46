import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { DirectoryBackend } from '../../src/backup/directory-backend.ts';
import { MemoryBackend } from '../../src/backup/memory-backend.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { tempDir } from '../support/compare.ts';
import { backendSuite } from './backend-suite.ts';

backendSuite('memory', () => {
  const backend = new MemoryBackend();
  return Promise.resolve(() => backend);
});

backendSuite('directory', (t) => {
  const folder = join(tempDir(t), 'a', 'store');
  return Promise.resolve(() => new DirectoryBackend(folder));
});

describe('a directory backend', () => {
  test('lets nobody else read what it keeps', async (t) => {
    const folder = join(tempDir(t), 'store');
    await new DirectoryBackend(folder).put('packs/00', [Buffer.from('secret')]);
    assert.equal(statSync(join(folder, 'packs', '00')).mode & 0o077, 0);
    assert.equal(statSync(join(folder, 'packs')).mode & 0o077, 0);
  });

  test('neither lists nor keeps what a killed put left, once it is old', async (t) => {
    const folder = tempDir(t);
    mkdirSync(join(folder, 'packs'));
    const [old, young] = ['.tmp-old', '.tmp-young'].map((name) => join(folder, 'packs', name)) as [
      string,
      string,
    ];
    for (const file of [old, young]) writeFileSync(file, 'half');
    utimesSync(old, 1, 1);
    const backend = new DirectoryBackend(folder);
    assert.deepEqual(await backend.list('packs'), []);
    await backend.removeLeftovers(1_000_000);
    assert.deepEqual(readdirSync(join(folder, 'packs')), ['.tmp-young']);
  });

  test('says what the system refused', async (t) => {
    const folder = tempDir(t);
    // A file where a folder has to be: also root cannot write there.
    writeFileSync(join(folder, 'packs'), '');
    const refused = (error: unknown): boolean =>
      error instanceof SqlsyncError &&
      error.code === 'STORE_UNAVAILABLE' &&
      /write packs\/00/.test(error.message);
    await assert.rejects(new DirectoryBackend(folder).put('packs/00', []), refused);
  });
});
