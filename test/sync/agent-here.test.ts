import assert from 'node:assert/strict';
import { linkSync, readdirSync, readlinkSync, truncateSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { generateDatabase } from '../../fixtures/generate.ts';
import { connectAgent } from '../../src/sync/runs/conversation.ts';
import type { ConversationOptions } from '../../src/sync/runs/conversation.ts';
import { runSync } from '../../src/sync/runs/sync.ts';
import { runVerify } from '../../src/sync/runs/verify.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { change, syncHere } from '../support/sync.ts';

const HERE = 'the agent in this process';

/** The description of the agent that a run starts for `path`. */
async function agentFor(
  t: TestContext,
  path: string,
  options: Partial<ConversationOptions> = {},
): Promise<string> {
  const connection = await connectAgent({ kind: 'local', path }, 'opening', {
    run: {},
    mayShareProcess: true,
    onWarning: () => {},
    ...options,
  });
  t.after(() => connection.transport.terminate());
  return connection.transport.description;
}

/** The files below `folder` that this process has open. */
function openFiles(folder: string): string[] {
  return readdirSync('/proc/self/fd')
    .map((descriptor) => {
      try {
        return readlinkSync(join('/proc/self/fd', descriptor));
      } catch {
        return ''; // The folder's own descriptor.
      }
    })
    .filter((path) => path.startsWith(folder));
}

function place(t: TestContext, rows = 200): { origin: string; replica: string } {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  generateDatabase(origin, { rows });
  return { origin, replica: join(folder, 'r.db') };
}

describe('the agent for a local database', () => {
  test('the agent for a local database runs in the near process if the database is small', async (t) => {
    assert.equal(await agentFor(t, place(t).origin), HERE);
  });

  test('the agent has a process of its own if the caller may open the same file', async (t) => {
    assert.notEqual(await agentFor(t, place(t).origin, { mayShareProcess: false }), HERE);
  });

  test('the agent has a process of its own if the database is large', async (t) => {
    const { origin } = place(t);
    truncateSync(origin, 200 * 1024 * 1024);
    assert.notEqual(await agentFor(t, origin), HERE);
  });

  test('the agent has a process of its own if the rate is limited', async (t) => {
    assert.notEqual(await agentFor(t, place(t).origin, { run: { bandwidthBytesPerS: 1e9 } }), HERE);
  });

  test('the agent has a process of its own if SQLSYNC_AGENT_PROCESS is set', async (t) => {
    t.after(() => delete process.env['SQLSYNC_AGENT_PROCESS']);
    process.env['SQLSYNC_AGENT_PROCESS'] = '1';
    assert.notEqual(await agentFor(t, place(t).origin), HERE);
  });
});

describe('an agent in the near process', () => {
  test('an agent in the near process leaves no file open when the sync is done', async (t) => {
    const { origin, replica } = place(t);
    await runSync({ origin, replica });
    change(origin, (db) => db.exec('UPDATE item SET amount = 3'));
    await runSync({ origin, replica });
    assertReplicaOf(origin, replica);
    assert.deepEqual(openFiles(dirname(origin)), []);
  });

  test('an agent in the near process leaves no file open, and the replica as it was, when the sync is interrupted', async (t) => {
    const { origin, replica } = place(t, 20_000);
    await syncHere({ origin, replica });
    change(origin, (db) => db.exec('UPDATE item SET amount = 3'));
    const before = sha256File(replica);
    const controller = new AbortController();
    const run = runSync({
      origin,
      replica,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await assert.rejects(run, { code: 'INTERRUPTED' });
    assert.deepEqual(openFiles(dirname(origin)), []);
    assert.equal(sha256File(replica), before);
  });

  test('an agent in the near process leaves no file open when the sync is refused', async (t) => {
    const { origin } = place(t);
    await assert.rejects(runSync({ origin, replica: origin }), { code: 'SAME_FILE' });
    assert.deepEqual(openFiles(dirname(origin)), []);
  });

  test('an agent in the near process closes the origin when the replica fails', async (t) => {
    const { origin } = place(t);
    const replica = join(dirname(origin), 'missing', 'r.db');
    await assert.rejects(runSync({ origin, replica }));
    assert.deepEqual(openFiles(dirname(origin)), []);
  });

  test('verify compares two files in this process, and two names of one file in processes of their own', async (t) => {
    const { origin, replica } = place(t);
    change(origin, (db) => db.pragma('journal_mode = DELETE')); // SQLite keeps two names of a WAL database apart.
    await syncHere({ origin, replica });
    assert.equal(await isReadHereWhile(runVerify({ a: origin, b: replica }), origin), true);
    const link = join(dirname(origin), 'link.db');
    linkSync(origin, link);
    assert.equal(await isReadHereWhile(runVerify({ a: origin, b: link }), origin), false);
  });
});

/** True if this process had the file open at any time during `run`. */
async function isReadHereWhile(run: Promise<{ same: boolean }>, path: string): Promise<boolean> {
  let isRead = false;
  let isDone = false;
  const ended = run.finally(() => (isDone = true));
  while (!isDone) {
    isRead ||= openFiles(dirname(path)).length > 0;
    await nextTurn();
  }
  assert.equal((await ended).same, true);
  return isRead;
}
