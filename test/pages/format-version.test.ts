import assert from 'node:assert/strict';
import { copyFileSync, openSync, closeSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { assertRefused } from '../cli/command.ts';
import { sha256File, tempDir } from '../support/compare.ts';
import { smallDatabase } from './databases.ts';

test('a database of a format version that SQLite does not know is refused, and the error names the version', async (t) => {
  const folder = tempDir(t);
  const [app, wal2] = [join(folder, 'app.db'), join(folder, 'wal2.db')];
  smallDatabase(app, { rows: 10 });
  for (const [versions, says] of [
    [[3, 3], /wal2\.db is a database of format version 3, as the WAL2 mode/],
    [[2, 7], /wal2\.db is a database of format version 7; SQLite knows up to 2/],
  ] as const) {
    copyFileSync(app, wal2);
    const descriptor = openSync(wal2, 'r+');
    writeSync(descriptor, Buffer.from(versions), 0, 2, 18);
    closeSync(descriptor);
    const before = sha256File(wal2);
    const origin = { code: 'ORIGIN_NOT_A_DATABASE', status: 3, says } as const;
    await assertRefused([wal2, join(folder, 'copy.db')], origin);
    await assertRefused(['verify', app, wal2], origin);
    await assertRefused([app, wal2, '--overwrite'], { code: 'REPLICA_NOT_A_DATABASE', status: 4, says });
    assert.equal(sha256File(wal2), before);
  }
});
