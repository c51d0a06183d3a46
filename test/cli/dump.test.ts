import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import Database from 'better-sqlite3';
import { jsonLines, sqlsync } from './command.ts';
import { here } from './store-here.ts';

describe('a dump of a damaged database', () => {
  test('a dump without some rows ends with status 23 after all others, and names what is missing on stderr and in the SQL', async (t) => {
    const { folder, run } = await here(t);
    const path = join(folder, 'a.db');
    const database = new Database(path);
    database.unsafeMode(true);
    database.exec(`CREATE TABLE bad (x); PRAGMA writable_schema = ON;
      UPDATE sqlite_schema SET sql = 'CREATE TABLE bad (x ((' WHERE name = 'bad'`);
    database.close();
    await run('backup', 'a.db', 'store');
    const { status, stdout, stderr } = await sqlsync(['dump', 'store'], { cwd: folder });
    assert.equal(status, 23, stderr);
    assert.match(stderr, /left out: table bad: .*syntax error/);
    assert.match(stderr, /\[DUMP_PARTIAL\]/);
    assert.match(stdout, /^-- Left out: table bad: /m);
    const back = spawnSync('sqlite3', ['-bail', join(folder, 'back.db')], {
      input: stdout,
      encoding: 'utf8',
    });
    assert.deepEqual([back.status, back.stderr], [0, '']);
    const asJson = await sqlsync(['dump', 'store', '--json'], { cwd: folder });
    const last = jsonLines(asJson.stdout).at(-1);
    assert.deepEqual([asJson.status, last?.['type']], [23, 'summary']);
    assert.match(String(last?.['omissions']), /^table bad: /);
  });
});
