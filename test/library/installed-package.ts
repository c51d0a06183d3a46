import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';

const ROOT: string = dirname(dirname(import.meta.dirname));

/** The unpacked result of `npm pack`; the dependencies and the binding are links. */
export function install(folder: string): void {
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, 'sqlsync-db'), { recursive: true });
  const packing = spawnSync('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', folder], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  assert.equal(packing.status, 0, packing.stderr);
  const archive = join(folder, packing.stdout.trim());
  const target = join(modules, 'sqlsync-db');
  const unpacking = spawnSync('tar', ['-xf', archive, '-C', target, '--strip-components', '1']);
  assert.equal(unpacking.status, 0, String(unpacking.stderr));
  symlinkSync(join(ROOT, 'build'), join(target, 'build'));
  const others = readdirSync(join(ROOT, 'node_modules')).filter((name) => name !== 'sqlsync-db');
  for (const name of others) symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
}
