import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { TARGETS, TRIED, bindingKeys, removeOldBindings } from '../../src/release/platforms.ts';
import { BINDING_NAME, bindingRecipe, platformName } from '../../src/sqlite/binding-path.ts';
import { placeFile } from '../library/installed-package.ts';
import { tempDir } from '../support/compare.ts';

test('a build of the bindings of a release removes those of other sources and what an interrupted one left', (t) => {
  const folder = join(tempDir(t), 'prebuilds');
  removeOldBindings(folder);
  const { key } = bindingRecipe('darwin-arm64');
  const musl = bindingRecipe('linux-x64-musl').key;
  const old = [key.replace(/[^-]*$/, '000000000000'), key.replace('13.', '12.'), '.building-abcdef'];
  for (const name of [key, musl, ...old]) placeFile(join(folder, name, BINDING_NAME), name);
  removeOldBindings(folder);
  assert.deepEqual(readdirSync(folder).toSorted(), [key, musl]);
});

test('each platform of a release has a key of its own, which the loader computes too', () => {
  const keys = bindingKeys();
  assert.equal(new Set(Object.values(keys)).size, Object.keys(TARGETS).length);
  assert.ok(TRIED.every((platform) => platform in TARGETS));
  if (platformName() in keys) assert.equal(keys[platformName()], bindingRecipe().key);
});
