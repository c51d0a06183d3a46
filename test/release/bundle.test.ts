import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { ENTRIES } from '../../src/release/bundle.ts';

const ROOT = dirname(dirname(import.meta.dirname));

/** Modules that some module of src/ names by a URL beside its own, to start a thread or a process. */
function modulesNamedByUrl(): string[] {
  const names = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' });
  return names
    .filter((name) => name.endsWith('.ts'))
    .flatMap((name) => {
      const text = readFileSync(join(ROOT, 'src', name), 'utf8');
      const urls = text.matchAll(/new URL\(\s*[`'](?:\.\/)?([\w-]+)(?:\.ts|\$\{)/g);
      return [...urls].map(([, module]) => join('src', dirname(name), `${module}.ts`));
    });
}

// Programs do without a thread that cannot be started, so nobody would notice.
test('each module that is started by its name is an entry of the bundle, of the same name', () => {
  const entries = new Set(Object.values(ENTRIES));
  const named = [...new Set(modulesNamedByUrl())];
  assert.ok(named.length >= 5, named.join());
  for (const module of named) {
    assert.ok(entries.has(module), `${module} is no entry of src/release/bundle.ts`);
    const [name] = Object.entries(ENTRIES).find(([, source]) => source === module) ?? [''];
    assert.equal(relative(dirname(module), module), `${name}.ts`);
  }
});

test('the bundle has each entry', () => {
  const names = readdirSync(join(ROOT, 'dist'));
  for (const name of Object.keys(ENTRIES)) assert.ok(names.includes(`${name}.js`), name);
});
