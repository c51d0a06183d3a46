import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

const ROOT = dirname(dirname(import.meta.dirname));

/** Below node_modules Node.js strips no types: only the built JavaScript can run there. */
test('sync() works as built and installed below node_modules, and says so where its command is missing', (t) => {
  const folder = tempDir(t);
  install(join(folder, 'node_modules'));
  const [origin, replica] = [join(folder, 'a.db'), join(folder, 'r.db')];
  largeDatabase(origin, 1e5);
  writeFileSync(
    join(folder, 'application.mjs'),
    `import { sync } from 'sqlsync';
     const { outcome } = await sync({ origin: 'a.db', replica: 'r.db' }).catch(({ code }) => ({ outcome: code }));
     process.stdout.write(outcome);`,
  );
  assert.equal(runApplication(folder), 'committed');
  assertReplicaOf(origin, replica);
  rmSync(join(folder, 'node_modules', 'sqlsync', 'bin'), { recursive: true });
  assert.equal(runApplication(folder), 'NODE_UNSUPPORTED');
});

/** Builds what package.json lists as published; the dependencies and the binding are links. */
function install(modules: string): void {
  const target = join(modules, 'sqlsync');
  mkdirSync(target, { recursive: true });
  symlinkSync(join(ROOT, 'build'), join(target, 'build'));
  const ours = readdirSync(join(ROOT, 'node_modules')).filter((name) => name !== 'sqlsync');
  for (const name of ours) symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  for (const name of ['package.json', 'bin', 'src/sqlite/native']) {
    cpSync(join(ROOT, name), join(target, name), { recursive: true });
  }
  writeFileSync(
    join(target, 'tsconfig.json'),
    JSON.stringify({
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: {
        noCheck: true,
        rootDir: ROOT,
        outDir: join(target, 'dist'),
        typeRoots: [join(ROOT, 'node_modules', '@types')],
      },
      include: [join(ROOT, 'src'), join(ROOT, 'protocol')],
    }),
  );
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', target], { encoding: 'utf8' });
  assert.equal(status, 0, stdout);
}

function runApplication(folder: string): string {
  const { stdout, stderr } = spawnSync(process.execPath, ['application.mjs'], {
    cwd: folder,
    encoding: 'utf8',
  });
  return stdout === '' ? stderr : stdout;
}
