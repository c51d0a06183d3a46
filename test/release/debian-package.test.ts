import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { PUBLIC_COMMAND_NAMES } from '../../src/cli/command-files.ts';
import { unitsOfManual, writeDebianPackage } from '../../src/release/debian-package.ts';
import { writeManPages } from '../../src/release/man-pages.ts';
import { writeServerFolder } from '../../src/release/server-folder.ts';
import { bindingRecipe, builtBindingPath } from '../../src/sqlite/binding-path.ts';
import { largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

const ROOT = dirname(dirname(import.meta.dirname));

const skip =
  spawnSync('dpkg-deb', ['--version']).status === 0 ? false : 'NOT TESTED: there is no dpkg-deb here';

function run(program: string, ...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

test(
  'the Debian package brings the command, its pages, completion and units, all owned by root',
  { skip },
  async (t) => {
    const folder = tempDir(t);
    const { key } = bindingRecipe();
    const [server, file, unpacked] = ['server', 'sqlsync.deb', 'unpacked'].map((name) =>
      join(folder, name),
    ) as [string, string, string];
    // Of a hundred megabytes less than Node.js itself, which it starts.
    const node = join(folder, 'node');
    writeFileSync(node, `#!/bin/sh\nexec '${process.execPath}' "$@"\n`);
    writeServerFolder(server, { node, binding: builtBindingPath(key), key });
    await writeManPages(join(server, 'lib', 'node_modules', 'sqlsync-db', 'dist', 'man'));
    writeDebianPackage(file, {
      root: join(folder, 'root'),
      server,
      version: '1.2.3-rc.4',
      architecture: 'amd64',
      compression: 'none',
    });
    assert.match(
      run('dpkg-deb', '--field', file),
      /^Package: sqlsync\nVersion: 1\.2\.3~rc\.4\nArchitecture: amd64\n[^]*\nDepends: libc6 \(>= 2\.28\), libstdc\+\+6, libgcc-s1 \| libgcc1\n/,
    );
    for (const line of run('dpkg-deb', '--contents', file).trim().split('\n'))
      assert.match(line, /^(?:[d-]rw[-x]r-[-x]r-[-x]|lrwxrwxrwx) root\/root /);
    mkdirSync(unpacked);
    run('dpkg-deb', '--extract', file, unpacked);
    const pages = join(unpacked, 'usr', 'share', 'man', 'man1');
    assert.deepEqual(
      readdirSync(pages).toSorted(),
      ['sqlsync.1.gz', ...PUBLIC_COMMAND_NAMES.map((name) => `sqlsync-${name}.1.gz`)].toSorted(),
    );
    assert.match(
      gunzipSync(readFileSync(join(pages, 'sqlsync-backup.1.gz'))).toString(),
      /^\.Dt SQLSYNC-BACKUP 1$/m,
    );
    for (const [place, begin] of [
      ['bash-completion/completions/sqlsync', '_sqlsync() {'],
      ['zsh/vendor-completions/_sqlsync', '#compdef sqlsync'],
      ['fish/vendor_completions.d/sqlsync.fish', 'function _sqlsync'],
      ['doc/sqlsync/copyright', 'MIT License'],
    ] as const)
      assert.ok(readFileSync(join(unpacked, 'usr', 'share', place), 'utf8').startsWith(begin), place);
    run('dpkg-deb', '--control', file, join(folder, 'control'));
    const sums = spawnSync('md5sum', ['--check', '--quiet', join(folder, 'control', 'md5sums')], {
      cwd: unpacked,
      encoding: 'utf8',
    });
    assert.deepEqual([sums.status, sums.stdout], [0, '']);
    const [origin, replica] = [join(folder, 'a.db'), join(folder, 'r.db')];
    largeDatabase(origin, 1e5);
    run(join(unpacked, 'usr', 'bin', 'sqlsync'), origin, replica);
    assertReplicaOf(origin, replica);
  },
);

test('the units of the manual start the command of the package', () => {
  const units = unitsOfManual(join(ROOT, 'docs'));
  assert.deepEqual(
    [...units.keys()],
    ['sqlsync.service', 'sqlsync-backup@.service', 'sqlsync-backup@.timer'],
  );
  assert.match(
    units.get('sqlsync.service') as string,
    /^ExecStart=\/usr\/bin\/sqlsync run -c \/etc\/sqlsync\.yaml$/m,
  );
  assert.match(units.get('sqlsync-backup@.service') as string, /^ExecStart=\/usr\/bin\/sqlsync backup /m);
  assert.match(units.get('sqlsync-backup@.timer') as string, /^OnCalendar=hourly$/m);
});

test(
  'systemd finds no fault with the units',
  {
    skip:
      spawnSync('systemd-analyze', ['--version']).status === 0
        ? false
        : 'NOT TESTED: there is no systemd here',
  },
  (t) => {
    const folder = tempDir(t);
    for (const [name, text] of unitsOfManual(join(ROOT, 'docs'))) {
      // It looks for the program.
      const place = join(folder, name.replace('@.', '@app.'));
      writeFileSync(place, text.replaceAll('/usr/bin/sqlsync', process.execPath));
    }
    const files = readdirSync(folder).map((name) => join(folder, name));
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', ...files], {
      encoding: 'utf8',
    });
    assert.deepEqual([status, stderr], [0, '']);
  },
);
