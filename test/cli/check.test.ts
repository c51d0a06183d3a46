import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { maskedPages, tempDir } from '../support/compare.ts';
import { change, damage, smallDatabase } from '../pages/databases.ts';
import { runRelayed } from '../support/relay-near.ts';
import { assertRefused, jsonLines, sqlsync } from './command.ts';
import type { Summary } from './command.ts';

/** An origin with an index that lacks what its table has, which only integrity_check notices. */
function damaged(t: TestContext): { origin: string; replica: string } {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { journalMode: 'delete' });
  change(
    origin,
    'CREATE TABLE kept (x); CREATE INDEX kept_x ON kept (x); INSERT INTO kept VALUES (77777777)',
  );
  const at = readFileSync(origin).lastIndexOf(Buffer.from('04a2cb71', 'hex'));
  assert.ok(at > 0);
  damage(origin, at, Buffer.from('04a2cb72', 'hex'));
  return { origin, replica: join(folder, 'replica.db') };
}

describe('--check', () => {
  test('ends with status 1 and says what is damaged, and the copy is exact', async (t) => {
    const { origin, replica } = damaged(t);
    const { status, stdout, stderr } = await sqlsync([origin, replica, '--check']);
    assert.equal(status, 1, stderr);
    assert.match(stdout, /is now an exact copy/);
    assert.match(stderr, /SQLite finds it damaged:\n.*(kept_x|row 1)/);
    assert.deepEqual(maskedPages(readFileSync(replica)), maskedPages(readFileSync(origin)));
  });

  test('is made of a replica that is up to date as well, and --json has all findings', async (t) => {
    const { origin, replica } = damaged(t);
    assert.equal((await sqlsync([origin, replica])).status, 0, 'without --check nobody looks');
    const { status, stdout } = await sqlsync([origin, replica, '--check', '--json']);
    const summary = jsonLines(stdout).find(({ type }) => type === 'summary') as Summary;
    assert.equal(status, 1);
    assert.equal(summary['outcome'], 'unchanged');
    assert.match((summary['findings'] as string[]).join(), /kept_x|row 1/);
  });

  test('of a sound database ends with status 0 and no findings', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    smallDatabase(origin);
    const { status, stdout } = await sqlsync([origin, join(folder, 'replica.db'), '--check', '--json']);
    assert.equal(status, 0);
    assert.deepEqual(jsonLines(stdout).at(-1)?.['findings'], []);
  });

  test('finds a schema that SQLite cannot parse', async (t) => {
    const { origin, replica } = damaged(t);
    const at = readFileSync(origin).indexOf('CREATE TABLE kept');
    damage(origin, at, Buffer.from('CREATE TUBLE'));
    const { status, stderr } = await sqlsync([origin, replica, '--check']);
    assert.equal(status, 1);
    assert.match(stderr, /malformed database schema/);
  });

  test('is made by the far replica agent of a push', async (t) => {
    const { origin, replica } = damaged(t);
    const done: string[] = [];
    const { near } = await runRelayed('push', { origin, replica, check: true }, ({ message }) => {
      if (message.type === 'done') done.push(...message.findings);
      return [message];
    });
    assert.equal(near, undefined);
    assert.match(done.join(), /kept_x|row 1/);
  });

  test('with --dry-run is refused: there is nothing to check', async (t) => {
    const { origin, replica } = damaged(t);
    const expected = { code: 'USAGE', status: 2, says: /exclude each other/ } as const;
    await assertRefused([origin, replica, '--check', '--dry-run'], expected);
  });
});
