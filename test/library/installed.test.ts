import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

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
    `import { backup, initStore, openDatabase, restore, sync, verify } from 'sqlsync';
     import { SqlsyncDialect } from 'sqlsync/kysely';
     import 'sqlsync/drizzle';
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
  rmSync(join(folder, 'node_modules', 'sqlsync', 'bin'), { recursive: true });
  writeFileSync(
    application,
    `import { sync } from 'sqlsync';
     const { code } = await sync({ origin: 'a.db', replica: 'r.db' }).catch((error) => error);
     console.log(JSON.stringify(code));`,
  );
  assert.equal(runApplication(folder), 'NODE_UNSUPPORTED');
});

/** The unpacked result of `npm pack`; the dependencies and the binding are links. */
function install(folder: string): void {
  const modules = join(folder, 'node_modules');
  mkdirSync(join(modules, 'sqlsync'), { recursive: true });
  const packing = spawnSync('npm', ['pack', '--ignore-scripts', '--silent', '--pack-destination', folder], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  assert.equal(packing.status, 0, packing.stderr);
  const archive = join(folder, packing.stdout.trim());
  const target = join(modules, 'sqlsync');
  const unpacking = spawnSync('tar', ['-xf', archive, '-C', target, '--strip-components', '1']);
  assert.equal(unpacking.status, 0, String(unpacking.stderr));
  symlinkSync(join(ROOT, 'build'), join(target, 'build'));
  const others = readdirSync(join(ROOT, 'node_modules')).filter((name) => name !== 'sqlsync');
  for (const name of others) symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
}

function runApplication(folder: string): unknown {
  const { stdout, stderr } = spawnSync(process.execPath, ['application.mjs'], {
    cwd: folder,
    encoding: 'utf8',
  });
  assert.notEqual(stdout, '', stderr);
  return JSON.parse(stdout);
}
