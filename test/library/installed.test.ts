import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';
import { largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { BINDING_NAME, bindingRecipe } from '../../src/sqlite/binding-path.ts';
import { install, placeFile } from './installed-package.ts';

const ROOT = dirname(dirname(import.meta.dirname));

/** Node.js strips no types below node_modules: only the bundle can run there. */
test('the package works as packed and installed below node_modules, and says so if its command is missing', (t) => {
  const folder = tempDir(t);
  install(folder);
  const [origin, replica] = [join(folder, 'a.db'), join(folder, 'r.db')];
  largeDatabase(origin, 1e5);
  const application = join(folder, 'application.mjs');
  writeFileSync(
    application,
    `import { backup, initStore, openDatabase, restore, sync, verify } from 'sqlsync-db';
     import { SqlsyncDialect } from 'sqlsync-db/kysely';
     import 'sqlsync-db/drizzle';
     const { outcome, findings } = await sync({ origin: 'a.db', replica: 'r.db', check: true });
     const { same } = await verify({ a: 'a.db', b: 'r.db' });
     await initStore('store'); await backup({ origin: 'a.db', store: 'store' });
     await restore({ store: 'store', snapshot: 'latest', target: 'restored.db' });
     const db = await openDatabase('r.db', { threads: 1 });
     const [row] = await db.read.all('SELECT count(*) AS count FROM sqlite_schema');
     await db.close();
     console.log(JSON.stringify({ outcome, findings, same, tables: row.count > 0, dialect: typeof SqlsyncDialect }));`,
  );
  assert.deepEqual(runApplication(folder), {
    outcome: 'committed',
    findings: [],
    same: true,
    tables: true,
    dialect: 'function',
  });
  assertReplicaOf(origin, replica);
  assertReplicaOf(origin, join(folder, 'restored.db'));
  rmSync(join(folder, 'node_modules', 'sqlsync-db', 'bin'), { recursive: true });
  writeFileSync(
    application,
    `import { sync } from 'sqlsync-db';
     const { code } = await sync({ origin: 'a.db', replica: 'r.db' }).catch((error) => error);
     console.log(JSON.stringify(code));`,
  );
  assert.equal(runApplication(folder), 'NODE_UNSUPPORTED');
});

test('a package that carries the binding for this platform needs no compiler, in the command and in the library', (t) => {
  const folder = tempDir(t);
  install(folder, { prebuilt: true });
  largeDatabase(join(folder, 'a.db'), 1e5);
  const program = join(folder, 'node_modules', 'sqlsync-db', 'bin', 'sqlsync.js');
  const { status, stderr } = spawnSync(process.execPath, [program, 'a.db', 'r.db'], {
    cwd: folder,
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'r.db'));
  writeFileSync(
    join(folder, 'application.mjs'),
    `import { openDatabase } from 'sqlsync-db';
     const db = await openDatabase('r.db');
     console.log(JSON.stringify(await db.read.values('SELECT count(*) > 0 FROM sqlite_schema')));
     await db.close();`,
  );
  assert.deepEqual(runApplication(folder), [[1]]);
  // What was built here comes first, even where it is the one that does not work.
  const built = join(
    folder,
    'node_modules',
    'sqlsync-db',
    'build',
    'binding',
    bindingRecipe().key,
    BINDING_NAME,
  );
  for (const name of ['node-addon-api', 'node-api-headers'])
    symlinkSync(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name));
  placeFile(built, 'no binding');
  const broken = spawnSync(process.execPath, [program, 'a.db', 'r.db'], { cwd: folder, encoding: 'utf8' });
  assert.match(broken.stderr, /BINDING_BROKEN/);
  assert.ok(broken.stderr.includes(built), broken.stderr);
});

test('the package has the program, the library, the sources of the binding and the pages, and no more', (t) => {
  const folder = tempDir(t);
  install(folder);
  const packed = join(folder, 'node_modules', 'sqlsync-db');
  const names = readdirSync(packed, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(packed, join(entry.parentPath, entry.name)))
    // install() has linked it there.
    .filter((name) => !name.startsWith('build/'));
  const allowed =
    /^(?:bin\/sqlsync\.js|dist\/(?:src\/)?[\w-]+\.js|dist\/licenses\.txt|dist\/man\/[\w-]+\.1|dist\/types\/(?:import|require)\/(?:src|protocol)\/.*\.d\.ts|dist\/types\/require\/package\.json|prebuilds\/[\w.-]+\/sqlsync_sqlite3\.node|src\/sqlite\/native\/.*|protocol\/SPEC\.md|docs\/[\w.-]+|[A-Z]+(?:\.md)?|package\.json)$/;
  assert.deepEqual(
    names.filter((name) => !allowed.test(name)),
    [],
  );
  const pages = readdirSync(join(ROOT, 'docs'), { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => `docs/${name}`);
  const library = ['index', 'kysely', 'drizzle'];
  for (const name of [
    'LICENSE',
    'README.md',
    'SECURITY.md',
    'CHANGELOG.md',
    'protocol/SPEC.md',
    'bin/sqlsync.js',
    'dist/main.js',
    'dist/licenses.txt',
    'src/sqlite/native/addon.c',
    ...library.flatMap((entry) => [`dist/${entry}.js`, `dist/src/${entry}.js`]),
    ...pages,
  ])
    assert.ok(names.includes(name), name);
});

function runApplication(folder: string): unknown {
  const { stdout, stderr } = spawnSync(process.execPath, ['application.mjs'], {
    cwd: folder,
    encoding: 'utf8',
  });
  assert.notEqual(stdout, '', stderr);
  return JSON.parse(stdout);
}
