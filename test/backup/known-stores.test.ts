import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { StoreMemory } from '../../src/backup/keys/known-stores.ts';
import { canonicalPlace } from '../../src/backup/open-store.ts';
import { tempDir } from '../support/compare.ts';

const MODULE = new URL('../../src/backup/keys/known-stores.ts', import.meta.url).href;

describe('the place of a store, by which it is remembered', () => {
  before(() => {
    for (const name of ['AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL']) delete process.env[name];
  });

  test('is the same however its address is spelled', () => {
    for (const [place, ...spellings] of [
      [
        's3:https://host.example/bucket/some/prefix',
        's3:https://host.example/bucket/some/prefix/',
        's3:https://HOST.example:443/bucket/some/prefix',
        's3:https://host.example./bucket/some/prefix?region=eu&style=path',
        's3:https://host.example/bucket/some/prefix?at=2026-11-21T08:00:00Z',
      ],
      ['s3:http://[::1]:9000/bucket', 's3:http://[0:0:0:0:0:0:0:1]:9000/bucket/'],
      ['s3:http://localhost/bucket', 's3:http://localhost:80/bucket'],
      [
        's3:bucket/prefix',
        's3://bucket/prefix/',
        's3:bucket/prefix?region=eu-central-1',
        's3:https://s3.amazonaws.com/bucket/prefix',
        's3:https://s3.eu-central-1.amazonaws.com/bucket/prefix',
        's3:https://s3.dualstack.eu-central-1.amazonaws.com/bucket/prefix',
      ],
      ['sftp:me@host:store', 'sftp:me@HOST:./store/', 'sftp:me@host:22:store', 'sftp://me@host/~/store'],
      ['sftp://host:2222/srv/a b', 'sftp://host:2222/srv/a%20b', 'sftp:host:2222:/srv//./a b/'],
    ] as const)
      for (const each of [place, ...spellings]) assert.equal(canonicalPlace(each), place, each);
  });

  test('is another one if anything differs that may lead elsewhere', () => {
    const places = [
      's3:bucket/prefix',
      's3:bucket/Prefix',
      's3:bucket',
      's3:https://s3.example/bucket',
      's3:https://s3.example:9000/bucket',
      's3:https://s3.amazonaws.com.evil.example/bucket',
      'sftp:host:store',
      'sftp:me@host:store',
      'sftp:host:/store',
      'sftp:host:2222:store',
      'sftp:alias:store',
    ];
    assert.equal(new Set(places.map((place) => canonicalPlace(place))).size, places.length);
  });

  test('is at the service that the environment names for a short address', (t) => {
    process.env['AWS_ENDPOINT_URL'] = 'https://host.example/';
    t.after(() => delete process.env['AWS_ENDPOINT_URL']);
    assert.equal(canonicalPlace('s3:bucket/prefix'), 's3:https://host.example/bucket/prefix');
  });

  test('is the folder without symbolic links', (t) => {
    const folder = tempDir(t);
    mkdirSync(join(folder, 'real'));
    symlinkSync('real', join(folder, 'link'));
    assert.equal(
      canonicalPlace(join(folder, 'link', 'store')),
      canonicalPlace(join(folder, 'real', '.', 'store')),
    );
  });
});

describe('what a user remembers of encrypted stores', () => {
  test('is not lost if several processes add to it at the same time', async (t) => {
    stateFolder(t);
    const add = `
      const { StoreMemory } = await import(${JSON.stringify(MODULE)});
      const [, run] = process.argv;
      for (let i = 0; i < 5; i++)
        new StoreMemory('place', { isPast: false, keeps: true }, (text) => { throw new Error(text); })
          .opened(run + '-' + i, 'key');`;
    const runs = ['a', 'b', 'c', 'd'];
    await Promise.all(
      runs.map((run) => promisify(execFile)(process.execPath, ['--input-type=module', '-e', add, run])),
    );
    const { ids } = memoryOf([]);
    assert.deepEqual(
      ids.toSorted(),
      runs.flatMap((run) => Array.from({ length: 5 }, (_, i) => `${run}-${i}`)),
    );
  });

  test('never goes back to an older snapshot, whichever run writes last', (t) => {
    stateFolder(t);
    const [one, two] = [memoryOf([]), memoryOf([])];
    for (const each of [one, two]) each.opened('store', 'key');
    one.saw({ id: 'first', generation: 1 });
    two.saw({ id: 'third', generation: 3 });
    one.saw({ id: 'second', generation: 2 });
    assert.equal(one.newest?.id, 'third');
  });

  test('is warned of if other users can write its folder', (t) => {
    const folder = join(stateFolder(t), 'sqlsync', 'stores');
    const warnings: string[] = [];
    memoryOf(warnings).opened('store', 'key');
    memoryOf(warnings).check({ id: 'store' }, false);
    assert.deepEqual(warnings, []);
    chmodSync(folder, 0o777);
    memoryOf(warnings).check({ id: 'store' }, false);
    assert.match(warnings.join(), /Other users can change/);
    assert.equal(readdirSync(folder).length, 1, 'no lock file stays');
  });

  test('is warned of if there is no folder for it', (t) => {
    const folder = stateFolder(t);
    writeFileSync(join(folder, 'sqlsync'), '');
    const warnings: string[] = [];
    const memory = memoryOf(warnings);
    memory.check({ id: 'store' }, false);
    memory.opened('store', 'key');
    assert.match(warnings.join(), /cannot be kept/);
  });
});

function memoryOf(warnings: string[]): StoreMemory {
  return new StoreMemory('place', { isPast: false, keeps: true }, (warning) => warnings.push(warning));
}

/** The folder in which what the test remembers lies. */
function stateFolder(t: TestContext): string {
  const folder = tempDir(t);
  const earlier = process.env['XDG_STATE_HOME'];
  process.env['XDG_STATE_HOME'] = folder;
  t.after(() => {
    if (earlier === undefined) delete process.env['XDG_STATE_HOME'];
    else process.env['XDG_STATE_HOME'] = earlier;
  });
  return folder;
}
