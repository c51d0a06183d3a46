import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { findBundle, readBundle } from '../../src/sync/install/bundle.ts';
import { platformOf } from '../../src/sync/install/installed.ts';
import type { Installed } from '../../src/sync/install/installed.ts';
import { TarSizes } from '../../src/sync/install/tar-sizes.ts';
import { standInBundle } from '../support/bare-host.ts';
import { tempDir } from '../support/compare.ts';

describe('the sizes in an archive', () => {
  test('the sizes of all files of an archive add up, whatever their names and the pieces it comes in', (t) => {
    const folder = tempDir(t);
    mkdirSync(join(folder, 'top', 'x'.repeat(120)), { recursive: true });
    writeFileSync(join(folder, 'top', 'empty'), '');
    writeFileSync(join(folder, 'top', 'block'), Buffer.alloc(512, 1));
    writeFileSync(join(folder, 'top', 'x'.repeat(120), 'y'.repeat(200)), Buffer.alloc(70_001, 2));
    symlinkSync('block', join(folder, 'top', 'link'));
    for (const format of ['gnu', 'pax']) {
      execFileSync('tar', ['-C', folder, `--format=${format}`, '-cf', join(folder, 'a.tar'), 'top']);
      const archive = readFileSync(join(folder, 'a.tar'));
      for (const pieceBytes of [1, 511, 513, archive.length]) {
        const sizes = new TarSizes();
        for (let at = 0; at < archive.length; at += pieceBytes)
          sizes.push(archive.subarray(at, at + pieceBytes));
        const { entryCount, contentBytes, firstName, isWhole } = sizes;
        assert.deepEqual([entryCount, contentBytes, firstName, isWhole], [6, 70_513, 'top/', true], format);
      }
      const cut = new TarSizes();
      cut.push(archive.subarray(0, 1024));
      assert.equal(cut.isWhole, false);
    }
  });
});

describe('the bundle of an installation', () => {
  test('a bundle tells its version and its platform, under any name of its file', async (t) => {
    const folder = tempDir(t);
    const path = standInBundle(folder, '1.2.3-rc.1', { platform: 'linux-arm64', fillerBytes: 5000 });
    const bundle = await readBundle(path);
    assert.deepEqual([bundle.version, bundle.platform], ['1.2.3-rc.1', 'linux-arm64']);
    assert.equal(bundle.sizeBytes, readFileSync(path).length);
    assert.ok(bundle.contentBytes > 5000 && bundle.neededBytes > bundle.contentBytes);
  });

  test('a file that is no bundle, or a part of one, is refused before anything is sent', async (t) => {
    const folder = tempDir(t);
    const whole = readFileSync(standInBundle(folder, '1.2.3', { fillerBytes: 100_000 }));
    writeFileSync(join(folder, 'text'), 'no archive');
    writeFileSync(join(folder, 'part'), whole.subarray(0, whole.length - 20));
    mkdirSync(join(folder, 'other'));
    execFileSync('tar', ['-C', folder, '-czf', join(folder, 'tar'), 'other']);
    for (const name of ['text', 'part', 'tar', 'nothing'])
      await assert.rejects(readBundle(join(folder, name)), { code: 'USAGE', message: /is not a bundle/ });
    assert.throws(() => findBundle('linux-x64', folder), { code: 'USAGE', message: /is not a file/ });
  });
});

describe('the platform of a host', () => {
  const HOST: Installed = {
    user: 'u',
    home: '/home/u',
    system: 'Linux x86_64',
    onPath: '',
    current: '',
    version: '',
    sha256: '',
    places: [],
    used: [],
    foreign: '',
    glibc: 'glibc 2.36',
    musl: '',
    lacks: [],
    freeBytes: 0,
  };

  test('the bundle is that of the machine, where glibc is new enough or unknown', () => {
    const musl = '/lib/ld-musl-x86_64.so.1';
    for (const [change, platform] of [
      [{}, 'linux-x64'],
      [{ system: 'Linux aarch64' }, 'linux-arm64'],
      [{ glibc: 'glibc 2.28' }, 'linux-x64'],
      [{ glibc: 'glibc 3.0' }, 'linux-x64'],
      [{ glibc: '' }, 'linux-x64'],
      [{ musl }, 'linux-x64'],
    ] as const)
      assert.equal(platformOf({ ...HOST, ...change }), platform);
  });

  test('a host that can run no bundle is refused, and told why', () => {
    for (const [change, code, says] of [
      [{ system: 'Darwin arm64' }, 'NODE_UNSUPPORTED', /Darwin arm64/],
      [{ system: 'Linux armv7l' }, 'NODE_UNSUPPORTED', /armv7l/],
      [{ glibc: '', musl: '/lib/ld-musl-x86_64.so.1' }, 'NODE_UNSUPPORTED', /musl/],
      [{ glibc: 'glibc 2.17' }, 'NODE_UNSUPPORTED', /2\.17; expected 2\.28/],
      [{ lacks: ['tar', 'gzip'] }, 'SYSTEM_ERROR', /lacks tar, gzip/],
    ] as const)
      assert.throws(() => platformOf({ ...HOST, ...change }), { code, message: says });
  });
});
