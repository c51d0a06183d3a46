import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { smallDatabase } from './databases.ts';
import { sqlsyncWith } from '../replica/kill.ts';

test('short reads lose no frame of the -wal of an origin', async (t) => {
  const [origin, replica] = [join(tempDir(t), 'origin.db'), join(tempDir(t), 'replica.db')];
  smallDatabase(origin);
  const writer = await new OtherProcess(t).open(origin);
  await writer.exec('PRAGMA wal_autocheckpoint = 0; UPDATE item SET amount = amount + 1');
  assert.ok(statSync(`${origin}-wal`).size > 20_000);
  const code = `
    const { readSync } = fs;
    fs.readSync = (file, into, offset, length, at) => readSync(file, into, offset, Math.min(length, 1000), at);`;
  const { status, stderr } = await sqlsyncWith(code, [origin, replica]);
  assert.equal(status, 0, stderr);
  await writer.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  assertReplicaOf(origin, replica);
});
