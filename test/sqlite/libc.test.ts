import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isMuslByMaps } from '../../src/sqlite/binding-path.ts';

function mapsOf(...files: string[]): string {
  const lines = ['', ...files, '[stack]'].map(
    (file) => `7f3b5a3f8000-7f3b5a41e000 r--p 00000000 fe:00 1234   ${file}`,
  );
  return `${lines.join('\n')}\n`;
}

test('the C library is told by the loader among the files of the process', () => {
  for (const [files, isMusl] of [
    [
      [
        '/usr/bin/node',
        '/usr/lib/x86_64-linux-gnu/libc.so.6',
        '/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2',
      ],
      false,
    ],
    // Before glibc 2.34 the names in memory are those with the version.
    [['/usr/bin/node', '/lib/aarch64-linux-gnu/libc-2.28.so'], false],
    [['/usr/bin/node', '/lib64/ld-2.31.so'], false],
    [['/usr/local/bin/node', '/usr/lib/libstdc++.so.6.0.33', '/lib/ld-musl-x86_64.so.1'], true],
    [['/usr/local/bin/node', '/lib/ld-musl-aarch64.so.1'], true],
    // A program for glibc on Alpine, run by gcompat.
    [['/opt/node', '/lib/ld-linux-x86-64.so.2', '/lib/ld-musl-x86_64.so.1'], true],
    [['/opt/ld-musl-tools/libc.so', '/srv/ld-musl.txt'], undefined],
    [['/usr/bin/node-static'], undefined],
  ] as const) {
    assert.equal(isMuslByMaps(mapsOf(...files)), isMusl, files.join(' '));
  }
});
