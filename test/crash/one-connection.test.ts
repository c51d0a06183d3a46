import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Connection } from '../../src/sync/link/connection.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { CLI } from '../support/relay-kill.ts';
import { closeConnection, committed, copyOver, failureOf, nearConnection } from '../support/relay-near.ts';
import type { Role } from '../support/relay-near.ts';
import { Scenario } from '../support/relay-scenario.ts';
import type { ReplicaKind } from '../support/relay-scenario.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-one-connection-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 40, pageSize: 4096 });

function connect(context: TestContext, role: Role): { connection: Connection; transport: Transport } {
  const transport = spawnProcess({ command: process.execPath, args: [CLI, 'agent'] });
  context.after(() => transport.terminate());
  return { connection: nearConnection(transport, role), transport };
}

async function copyEach(
  connection: Connection,
  databases: readonly (readonly [Role, ReplicaKind])[],
): Promise<void> {
  for (const [role, kind] of databases) {
    const pair = scenario.pair(kind);
    const first = await copyOver(connection, role, pair);
    assert.ok(committed(first), `${role}, ${kind} replica`);
    assert.equal(scenario.state(kind, pair), 'new', `${role}, ${kind} replica`);
    const second = await copyOver(connection, role, pair);
    assert.ok(!committed(second) && second.pagesTransferred === 0, 'the same database once more');
  }
}

describe('one connection', () => {
  for (const role of ['pull', 'push'] as const) {
    test(`one connection carries several databases one after another, and ends with status 0 (${role})`, async (context) => {
      const { connection, transport } = connect(context, role);
      await copyEach(connection, [
        [role, 'wal'],
        [role, 'new'],
        [role, 'rollback'],
      ]);
      closeConnection(connection);
      assert.deepEqual(await transport.exited, { status: 0, signal: null, stderr: '' });
    });
  }

  test('one connection carries databases in both directions', async (context) => {
    const { connection, transport } = connect(context, 'pull');
    await copyEach(connection, [
      ['pull', 'wal'],
      ['push', 'new'],
      ['pull', 'rollback'],
      ['push', 'wal'],
    ]);
    closeConnection(connection);
    assert.equal((await transport.exited).status, 0);
  });

  test('a connection that ends without `close` after a finished database ends the far agent with status 15', async (context) => {
    const { connection, transport } = connect(context, 'push');
    await copyEach(connection, [['push', 'wal']]);
    connection.end();
    assert.equal((await transport.exited).status, 15);
  });

  test('a connection ends with the first database that fails; the ones before it stay done', async (context) => {
    const { connection, transport } = connect(context, 'pull');
    await copyEach(connection, [['pull', 'wal']]);
    const missing = { origin: join(folder, 'missing.db'), replica: scenario.pair('new').replica };
    const failure = await failureOf(copyOver(connection, 'pull', missing));
    assert.equal(failure?.code, 'ORIGIN_NOT_FOUND');
    connection.end();
    assert.equal((await transport.exited).status, 3);
  });
});
