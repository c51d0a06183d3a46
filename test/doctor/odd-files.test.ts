import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { sqlsync } from '../cli/command.ts';
import { change } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { LINUX } from './holders.ts';

test(
  'doctor does not wait for a FIFO that has the name of a file of the database',
  { skip: LINUX },
  async (t) => {
    for (const suffix of ['-shm', '-wal', '-journal']) {
      const path = join(tempDir(t), 'a.db');
      change(path, 'PRAGMA journal_mode = WAL; CREATE TABLE t (x)');
      execFileSync('mkfifo', [`${path}${suffix}`]);
      const { status, stdout } = await sqlsync(['doctor', path]);
      assert.equal(status, 1, suffix);
      assert.match(stdout, new RegExp(`a\\.db${suffix} is no regular file \\[odd-file\\]`));
      assert.equal((await sqlsync(['doctor', '--watch', '--max-time', '1', path])).status, 0, suffix);
    }
  },
);

test('a watch of a FIFO is refused', { skip: LINUX }, async (t) => {
  const path = join(tempDir(t), 'a.db');
  execFileSync('mkfifo', [path]);
  const { status, stderr } = await sqlsync(['doctor', '--watch', path]);
  assert.equal(status, 3);
  assert.match(stderr, /ORIGIN_NOT_A_DATABASE/);
});
