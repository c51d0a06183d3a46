import assert from 'node:assert/strict';
import {
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { KeptFiles } from '../../src/backup/backends/kept-files.ts';
import { tempDir } from '../support/compare.ts';

const NAME = `packs/${'a'.repeat(64)}`;
const RANGE = { offset: 8, length: 5 };

describe('the copies of files of a store on this host', () => {
  test('are given back as they were, each by its name and range', (t) => {
    const kept = new KeptFiles(join(tempDir(t), 'files'));
    assert.equal(kept.get(NAME), undefined);
    kept.add(NAME, [Buffer.from('whole '), Buffer.from('file')]);
    kept.add(NAME, [Buffer.from('range')], RANGE);
    assert.equal(text(kept.get(NAME)), 'whole file');
    assert.equal(text(kept.get(NAME, RANGE)), 'range');
    assert.equal(kept.get(NAME, { offset: 8, length: 6 }), undefined);
  });

  test('count as missing if a single bit changed, if they were cut, and under another name', (t) => {
    const folder = join(tempDir(t), 'files');
    const kept = new KeptFiles(folder);
    kept.add(NAME, [Buffer.from('range')], RANGE);
    const [file = ''] = readdirSync(folder);
    const path = join(folder, file);
    const good = readFileSync(path);
    for (let at = 0; at < good.length; at++) {
      const bad = Buffer.from(good);
      bad[at] = (bad[at] as number) ^ 1;
      writeFileSync(path, bad);
      assert.equal(kept.get(NAME, RANGE), undefined, `byte ${at}`);
    }
    for (let length = 0; length < good.length; length++) {
      writeFileSync(path, good.subarray(0, length));
      assert.equal(kept.get(NAME, RANGE), undefined, `${length} bytes`);
    }
    kept.add(NAME, [Buffer.from('whole')]);
    const other = readdirSync(folder).find((name) => name !== file) ?? '';
    renameSync(join(folder, other), path);
    assert.equal(kept.get(NAME, RANGE), undefined);
    kept.add(NAME, [Buffer.from('range')], RANGE);
    assert.equal(text(kept.get(NAME, RANGE)), 'range');
  });

  test('take no more room than they may: those that were not used for longest go', (t) => {
    const folder = join(tempDir(t), 'files');
    const piece = Buffer.alloc(1000);
    new KeptFiles(folder, 10_000).add('indexes/first', [piece]);
    const [first = ''] = readdirSync(folder);
    utimesSync(join(folder, first), 1, 1);
    const kept = new KeptFiles(folder, 10_000);
    assert.ok(kept.get('indexes/first') !== undefined, 'a use counts');
    for (let i = 0; i < 50; i++) {
      if (i === 8) utimesSync(join(folder, first), 1, 1);
      kept.add(`indexes/${i}`, [piece]);
      assert.ok(bytesIn(folder) <= 10_000);
    }
    assert.equal(kept.get('indexes/first'), undefined);
    assert.ok(kept.get('indexes/49') !== undefined);
    kept.add('indexes/large', [Buffer.alloc(5000)]);
    assert.equal(kept.get('indexes/large'), undefined);
    assert.ok(kept.get('indexes/49') !== undefined, 'one large file does not push out the others');
  });

  test('of a store that no run opened for 90 days go when another one is opened', (t) => {
    const folder = tempDir(t);
    const earlier = process.env['XDG_CACHE_HOME'];
    process.env['XDG_CACHE_HOME'] = folder;
    t.after(() => {
      if (earlier === undefined) delete process.env['XDG_CACHE_HOME'];
      else process.env['XDG_CACHE_HOME'] = earlier;
    });
    const ids = ['0a', '0b', '0c'].map((byte) => byte.repeat(16));
    const [old = '', used = '', own = ''] = ids;
    for (const id of ids) KeptFiles.of(id)?.add(NAME, [Buffer.from('whole')]);
    const place = (id: string): string => join(folder, 'sqlsync', 'files', id);
    for (const id of [old, used, own]) {
      const [file = ''] = readdirSync(place(id));
      if (id !== used) utimesSync(join(place(id), file), 1, 1);
      utimesSync(place(id), 1, 1);
    }
    assert.ok(KeptFiles.of(own));
    assert.deepEqual(readdirSync(join(folder, 'sqlsync', 'files')).toSorted(), [used, own]);
    assert.equal(text(KeptFiles.of(used)?.get(NAME)), 'whole');
  });

  test('are none where the folder cannot be made', (t) => {
    const folder = join(tempDir(t), 'file');
    writeFileSync(folder, '');
    truncateSync(folder, 0);
    const kept = new KeptFiles(join(folder, 'below'));
    kept.add(NAME, [Buffer.from('whole')]);
    assert.equal(kept.get(NAME), undefined);
  });
});

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes && Buffer.from(bytes).toString();
}

function bytesIn(folder: string): number {
  return readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
}
