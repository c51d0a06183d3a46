import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { BINDING_NAME, bindingRecipe } from '../../src/sqlite/binding-path.ts';

const ROOT: string = dirname(dirname(import.meta.dirname));

/** Only who compiles the binding needs these. */
const SOURCES_ONLY = ['node-addon-api', 'node-api-headers'];

/**
 * The unpacked result of `npm pack`; the dependencies and the binding are links. With `prebuilt` the package carries the
 * binding, and nothing is there to compile one.
 */
export function install(folder: string, options: { readonly prebuilt?: boolean } = {}): void {
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
  if (options.prebuilt === true) {
    const { key } = bindingRecipe();
    rmSync(join(target, 'prebuilds'), { recursive: true, force: true });
    // Of other sources, and first in the order of names.
    placeFile(join(target, 'prebuilds', key.replace(/[^-]*$/, '000000000000'), BINDING_NAME), 'no binding');
    cpSync(join(ROOT, 'build', 'binding', key), join(target, 'prebuilds', key), { recursive: true });
  } else symlinkSync(join(ROOT, 'build'), join(target, 'build'));
  const missing = options.prebuilt === true ? SOURCES_ONLY : [];
  const others = readdirSync(join(ROOT, 'node_modules')).filter((name) => !missing.includes(name));
  for (const name of others) symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
}

export function placeFile(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}
