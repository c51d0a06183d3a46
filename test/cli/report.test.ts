import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import type { DatabaseReport } from '../../src/report/report.ts';
import { assertRefused, sqlsync } from './command.ts';
import { here } from './store-here.ts';

const HOSTILE = '<img src=x onerror=alert(1)>';

function change(path: string, sql: string): void {
  const database = new DatabaseSync(path);
  database.exec(sql);
  database.close();
}

test('a report of a store has snapshots, growth, the pages that changed, and commands that restore', async (t) => {
  const { folder, run } = await here(t);
  const path = join(folder, 'a.db');
  await run('backup', 'a.db', 'store');
  change(
    path,
    `CREATE TABLE "${HOSTILE}" AS WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 500) SELECT i, hex(randomblob(40)) AS text FROM n`,
  );
  await run('backup', 'a.db', 'store');
  await run('backup', 'b.db', 'store');
  const { databases, output } = await run('report', 'store', '--path', 'a.db', '-o', 'report.html');
  const [a, ...others] = databases as DatabaseReport[];
  assert.ok(a !== undefined);
  assert.deepEqual([others, output, a.name, a.remarks], [[], 'report.html', path, []]);
  const grown = a.growth?.parts[0];
  assert.deepEqual([a.growth?.moments.length, grown?.name, grown?.bytes[0]], [2, HOSTILE, 0]);
  const owner = a.map?.owners.find(({ name }) => name === HOSTILE);
  assert.ok(owner !== undefined && owner.changed > 5 && owner.changed === owner.pages, JSON.stringify(a.map));
  const html = readFileSync(join(folder, 'report.html'), 'utf8');
  assert.ok(html.includes('&#60;img src=x onerror=alert(1)&#62;') && !html.includes('<img'));

  // The command of the first snapshot, as a shell reads it.
  const word = /^sqlsync restore '(.*)' restored\.db$/.exec(a.moments[0]?.restore ?? '')?.[1] ?? '';
  await run('restore', word, 'restored.db');
  const restored = new DatabaseSync(join(folder, 'restored.db'), { readOnly: true });
  assert.equal(
    restored.prepare('SELECT count(*) AS count FROM sqlite_schema WHERE name = ?').get(HOSTILE)?.['count'],
    0,
  );
  restored.close();

  const limited = await run('report', `store#${a.moments[0]?.id}`, '--max-size', '1K');
  const [first] = limited['databases'] as DatabaseReport[];
  assert.deepEqual([first?.growth, first?.map, first?.moments.length], [undefined, undefined, 2]);
  assert.match(first?.remarks.join('') ?? '', /larger than 1\.02 kB/);
});

test('a report of two databases has a map of the pages that differ', async (t) => {
  const { folder, run } = await here(t);
  await run('sync', 'a.db', 'copy.db');
  change(join(folder, 'copy.db'), 'CREATE TABLE more AS SELECT randomblob(9000) AS bytes');
  const { databases } = await run('report', 'a.db', 'copy.db');
  const [pair] = databases as DatabaseReport[];
  assert.deepEqual(pair?.growth?.moments, ['a.db', 'copy.db']);
  const more = pair?.map?.owners.find(({ name }) => name === 'more');
  assert.deepEqual([more?.pages, more?.changed], [3, 3]);
});

test('a report replaces only a report', async (t) => {
  const { folder, run } = await here(t);
  const before = readFileSync(join(folder, 'a.db'));
  const refused = { code: 'USAGE', status: 2, says: /a\.db is there, and is no report/ } as const;
  await assertRefused(['report', 'store', '-o', 'a.db'], refused, { cwd: folder });
  assert.deepEqual(readFileSync(join(folder, 'a.db')), before);
  await run('report', 'store', '-o', 'report.html');
  await run('report', 'store', '-o', 'report.html');
  assert.deepEqual(
    readdirSync(folder).filter((name) => name.endsWith('.new')),
    [],
  );
  const none = { code: 'USAGE', status: 2, says: /expected a file to write/ } as const;
  await assertRefused(['report', 'store'], none, { cwd: folder });
  const alone = { code: 'USAGE', status: 2, says: /a\.db is no store/ } as const;
  await assertRefused(['report', 'a.db', '-o', 'x.html'], alone, { cwd: folder });
  // Found before anything is read: of two databases that are missing it says nothing.
  const nowhere = { code: 'SYSTEM_ERROR', status: 26, says: /no such file or directory.*nowhere/ } as const;
  await assertRefused(['report', 'no.db', 'none.db', '-o', 'nowhere/x.html'], nowhere, { cwd: folder });
  const { status } = await sqlsync(['report', 'a.db', 'missing.db', '-o', 'x.html'], { cwd: folder });
  assert.notEqual(status, 0);
  assert.equal(existsSync(join(folder, 'x.html')), false);
});
