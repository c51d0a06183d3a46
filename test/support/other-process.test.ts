import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from './compare.ts';
import { OtherProcess } from './other-process.ts';

test('whatever is asked of another process fails once that has ended, before and after it is asked', async (t) => {
  const other = new OtherProcess(t);
  const connection = await other.open(join(tempDir(t), 'a.db'));
  const endless = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT max(i) FROM n';
  const asked = assert.rejects(connection.rows(endless), /the other process ended: SIGKILL/);
  process.kill(other.pid, 'SIGKILL');
  await asked;
  await assert.rejects(connection.rows('SELECT 1'), /the other process ended: SIGKILL/);
  await other.end();
  await assert.rejects(other.open('b.db'), /the other process ended: SIGKILL/);
});
