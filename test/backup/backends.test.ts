import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, renameSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
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
  test('a directory backend lets no other user read what it keeps', async (t) => {
    const folder = join(tempDir(t), 'store');
    await new DirectoryBackend(folder).put('packs/00', [Buffer.from('secret')]);
    assert.equal(statSync(join(folder, 'packs', '00')).mode & 0o077, 0);
    assert.equal(statSync(join(folder, 'packs')).mode & 0o077, 0);
  });

  test('a directory backend neither lists nor keeps an old leftover of a killed put', async (t) => {
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

  test('a directory backend puts nothing if the folder of its store is gone, and does not call that an empty store', async (t) => {
    const folder = join(tempDir(t), 'store');
    const backend = new DirectoryBackend(folder);
    await backend.put('config', [Buffer.from('a store')]);
    await backend.put('packs/00', [Buffer.from('x')]);
    // As if its file system were unmounted, and the folder under the mount came to light.
    renameSync(folder, `${folder}-gone`);
    mkdirSync(folder);
    const isGone = (error: unknown): boolean =>
      error instanceof SqlsyncError &&
      error.code === 'STORE_UNAVAILABLE' &&
      /not there any more/.test(error.message);
    await assert.rejects(backend.put('packs/01', []), isGone);
    await assert.rejects(backend.get('packs/00'), isGone);
    assert.throws(() => backend.getNow('packs/00'), isGone);
    await assert.rejects(backend.list('packs'), { code: 'STORE_UNAVAILABLE' });
    assert.deepEqual(readdirSync(folder), []);
  });

  test('a directory backend puts nothing if its store went away after it read the config', async (t) => {
    const folder = join(tempDir(t), 'store');
    await new DirectoryBackend(folder).put('config', [Buffer.from('a store')]);
    const backend = new DirectoryBackend(folder);
    await backend.get('config', { offset: 0, length: 100 });
    renameSync(folder, `${folder}-gone`);
    mkdirSync(folder);
    await assert.rejects(backend.put('packs/00', []), { code: 'STORE_UNAVAILABLE' });
    assert.deepEqual(readdirSync(folder), []);
  });

  test('a directory backend names the error of the system', async (t) => {
    const folder = tempDir(t);
    // A file in the place of a folder: even root cannot write there.
    writeFileSync(join(folder, 'packs'), '');
    const refused = (error: unknown): boolean =>
      error instanceof SqlsyncError &&
      error.code === 'STORE_UNAVAILABLE' &&
      /write packs\/00/.test(error.message);
    await assert.rejects(new DirectoryBackend(folder).put('packs/00', []), refused);
  });
});
