import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { shortageError, toSqlsyncError } from '../../src/errors.ts';
import { replicaError } from '../../src/replica/replica-error.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { PROGRAM, sqlsync } from './command.ts';

/** Runs sqlsync in a process that may have so many files open. */
function withFiles(
  count: number,
  args: readonly string[],
  cwd: string,
): { status: number | null; stderr: string } {
  const limited = ['-c', `ulimit -n ${count}; exec "$0" "$@"`, process.execPath, PROGRAM, ...args];
  const { status, stderr } = spawnSync('/bin/sh', limited, { cwd, encoding: 'utf8' });
  return { status, stderr };
}

describe('a process that may open no more files', () => {
  const COMMANDS = {
    sync: ['-q', 'app.db', 'copy.db'],
    verify: ['verify', '-q', 'app.db', 'app2.db'],
    backup: ['backup', '-q', 'app.db', 'store'],
    restore: ['restore', '-q', 'store#latest', 'restored.db'],
  };
  for (const [name, args] of Object.entries(COMMANDS)) {
    test(`${name} says that it may open no more files, and never calls it a bug`, async (t) => {
      const folder = tempDir(t);
      smallDatabase(join(folder, 'app.db'), { rows: 10, journalMode: 'delete' });
      smallDatabase(join(folder, 'app2.db'), { rows: 10, journalMode: 'delete' });
      await sqlsync(['init', '-q', 'store'], { cwd: folder });
      await sqlsync(['backup', '-q', 'app.db', 'store'], { cwd: folder });
      let told = 0;
      // Node.js itself needs some 20 descriptors before it runs anything.
      for (let count = 22; count <= 36; count += 2) {
        const { status, stderr } = withFiles(count, args, folder);
        if (!stderr.startsWith('sqlsync: ')) continue;
        assert.doesNotMatch(stderr, /\[INTERNAL\]/, `${count} files`);
        if (/\[SYSTEM_ERROR\]/.test(stderr)) {
          told++;
          assert.equal(status, 26, stderr);
        }
      }
      assert.ok(told > 0);
    });
  }
});

test('errors of the system have a name, and errors of our own are bugs', () => {
  const systemError = (code: string): Error =>
    Object.assign(new Error(`${code}: no, open '/x'`), { code, syscall: 'open' });
  for (const code of [
    'EMFILE',
    'ENFILE',
    'ENOMEM',
    'EAGAIN',
    'EACCES',
    'EIO',
    'ESTALE',
    'SQLITE_CANTOPEN',
    'SQLITE_NOMEM',
  ]) {
    const failure = toSqlsyncError(systemError(code));
    assert.equal(failure.code, 'SYSTEM_ERROR', code);
    assert.match(failure.message, new RegExp(code));
    assert.match(failure.hint ?? '', /\S/);
  }
  for (const error of [systemError('ERR_INVALID_ARG_TYPE'), new TypeError('x is undefined'), 'text']) {
    assert.equal(toSqlsyncError(error).code, 'INTERNAL');
  }
  assert.equal(shortageError('x', systemError('EACCES')), undefined);
  const replica = replicaError('/r.db', systemError('EMFILE'));
  assert.ok('code' in replica && replica.code === 'SYSTEM_ERROR');
});
