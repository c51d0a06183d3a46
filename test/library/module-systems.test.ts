import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { build } from 'esbuild';
import { writeTypes } from '../../src/release/types.ts';
import { tempDir } from '../support/compare.ts';
import { install } from './installed-package.ts';

const ROOT = dirname(dirname(import.meta.dirname));
const TSC = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');

/**
 * What an application does with the library once it has it: the pools, a sync in a child process, and Drizzle, where
 * the application may have another copy of it than the library.
 */
const USE = `async function use({ openDatabase, sync, SqlsyncError }, { SqlsyncDialect }, { drizzle }, { sqliteTable, integer }) {
  const db = await openDatabase('a.db', { threads: 1 });
  await db.write.exec('CREATE TABLE IF NOT EXISTS t (x)');
  await db.write.run('INSERT INTO t VALUES (?)', [42]);
  const { outcome } = await sync({ origin: 'a.db', replica: 'r.db' });
  const [row] = await db.read.all('SELECT x FROM t');
  const t = sqliteTable('t', { x: integer() });
  const orm = drizzle(db, { schema: { t } });
  await orm.transaction((tx) => tx.insert(t).values({ x: 43 }));
  const [written] = await orm.batch([orm.insert(t).values({ x: 44 })]);
  const found = [written.changes, await orm.select().from(t), await orm.query.t.findFirst()];
  await db.close();
  const { code } = await sync({ origin: 'missing.db', replica: 'n.db' }).catch((error) => error instanceof SqlsyncError ? error : {});
  return { outcome, x: row.x, code, kysely: typeof SqlsyncDialect, found };
}`;
const USED = {
  outcome: 'committed',
  x: 42,
  code: 'ORIGIN_NOT_FOUND',
  kysely: 'function',
  found: [1, [{ x: 42 }, { x: 43 }, { x: 44 }], { x: 42 }],
};

const REQUIRE = `${USE}
use(require('sqlsync-db'), require('sqlsync-db/kysely'), require('sqlsync-db/drizzle'), require('drizzle-orm/sqlite-core'))`;
const IMPORT = `import * as library from 'sqlsync-db';
import * as kysely from 'sqlsync-db/kysely';
import * as drizzle from 'sqlsync-db/drizzle';
import * as sqliteCore from 'drizzle-orm/sqlite-core';
${USE}
use(library, kysely, drizzle, sqliteCore)`;
const PRINT = `.then((used) => console.log(JSON.stringify(used)));`;

let installed = '';
before(() => {
  installed = mkdtempSync(join(tmpdir(), 'sqlsync-installed-'));
  install(installed);
});
after(() => rmSync(installed, { recursive: true, force: true }));

/** The folder of an application with these files, in which the package is installed. */
function application(t: TestContext, files: Readonly<Record<string, string>>): string {
  const folder = tempDir(t);
  symlinkSync(join(installed, 'node_modules'), join(folder, 'node_modules'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

function assertWorks(folder: string, program: string): void {
  const { stdout, stderr } = spawnSync(process.execPath, [program], { cwd: folder, encoding: 'utf8' });
  assert.equal(stderr, '');
  assert.deepEqual(JSON.parse(stdout), USED);
}

describe('the installed package', () => {
  test('the installed package is imported by an ES module', (t) => {
    assertWorks(application(t, { 'main.mjs': `${IMPORT}${PRINT}` }), 'main.mjs');
  });

  test('the installed package is required by CommonJS, without a warning', (t) => {
    assertWorks(application(t, { 'main.cjs': `${REQUIRE}${PRINT}` }), 'main.cjs');
  });

  for (const [kind, worker] of [
    [
      'imported',
      `${IMPORT}.then((used) => parentPort.postMessage(used));\nimport { parentPort } from 'node:worker_threads';`,
    ],
    [
      'required',
      `const { parentPort } = require('node:worker_threads');\n${REQUIRE}.then((used) => parentPort.postMessage(used));`,
    ],
  ] as const) {
    test(`the installed package is ${kind} in a worker thread`, (t) => {
      const name = kind === 'imported' ? 'worker.mjs' : 'worker.cjs';
      const main = `import { Worker } from 'node:worker_threads';
        new Worker(new URL('${name}', import.meta.url)).on('message', (used) => console.log(JSON.stringify(used)));`;
      assertWorks(application(t, { 'main.mjs': main, [name]: worker }), 'main.mjs');
    });
  }

  for (const format of ['esm', 'cjs'] as const) {
    test(`the installed package stays outside of a bundle that esbuild makes as ${format}`, async (t) => {
      const folder = application(t, { 'main.ts': `${IMPORT}${PRINT}` });
      const outfile = join(folder, 'out', format === 'esm' ? 'main.mjs' : 'main.cjs');
      await build({
        absWorkingDir: folder,
        entryPoints: ['main.ts'],
        outfile,
        bundle: true,
        platform: 'node',
        format,
        external: ['sqlsync-db'],
        logLevel: 'silent',
      });
      assertWorks(folder, outfile);
    });
  }
});

describe('the types of the installed package', () => {
  before(() => writeTypes(join(installed, 'node_modules', 'sqlsync-db', 'dist', 'types')));

  const SOURCE = `import { openDatabase, sync } from 'sqlsync-db';
    import type { Database } from 'sqlsync-db';
    import { SqlsyncDialect } from 'sqlsync-db/kysely';
    import { drizzle } from 'sqlsync-db/drizzle';
    export async function main(): Promise<number> {
      const db: Database = await openDatabase('a.db');
      const [row] = await db.read.all<{ n: number }>('SELECT 1 AS n');
      new SqlsyncDialect({ database: db }); drizzle(db);
      const { outcome } = await sync({ origin: 'a.db', replica: 'r.db' });
      // @ts-expect-error -- the types are there: this one is wrong
      const wrong: number = outcome;
      return row?.n ?? wrong;
    }`;

  /** What the compiler says about a program with these settings. */
  function compile(t: TestContext, name: string, options: Readonly<Record<string, unknown>>): string {
    const compilerOptions = { target: 'es2023', strict: true, noEmit: true, skipLibCheck: true, ...options };
    const folder = application(t, {
      [name]: SOURCE,
      'tsconfig.json': JSON.stringify({
        compilerOptions: { types: ['node'], ...compilerOptions },
        files: [name],
      }),
    });
    return spawnSync(process.execPath, [TSC, '-p', folder], { encoding: 'utf8' }).stdout;
  }

  for (const [name, options] of [
    ['main.mts', { module: 'nodenext' }],
    ['main.cts', { module: 'nodenext' }],
    ['main.mts', { module: 'node16' }],
    ['main.cts', { module: 'node16' }],
    ['main.mts', { module: 'node18' }],
    ['main.cts', { module: 'node18' }],
    ['main.ts', { module: 'esnext', moduleResolution: 'bundler' }],
  ] as const) {
    test(`the types of the installed package are found by ${name} with ${Object.values(options).join(' and ')}`, (t) => {
      assert.equal(compile(t, name, options), '');
    });
  }
});
