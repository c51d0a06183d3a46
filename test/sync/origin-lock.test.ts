import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { Frame } from '../support/sync.ts';
import { change, syncHere } from '../support/sync.ts';

describe('the origin', () => {
  for (const earlier of [
    'a new replica',
    'a replica to update',
    'a replica that is the same',
    'a part file',
  ] as const) {
    test(`an origin in WAL mode lets others begin to write at every message (${earlier})`, async (t) => {
      const [origin, replica] = paths(tempDir(t));
      generateDatabase(origin, { pageSize: 512, rows: 300 });
      await prepare(earlier, origin, replica);
      // Connected before the sync and during it, without any patience.
      const other = new OtherProcess(t);
      const connected = await other.open(origin, { timeoutMs: 0 });
      const seen = new Set<Frame['name']>();
      const { outcomeName } = await syncHere({
        origin,
        replica,
        onFrame: async ({ name }) => {
          await connected.exec('BEGIN IMMEDIATE; ROLLBACK');
          // A write before the snapshot would belong to it.
          if (seen.has('snapshot')) await connected.exec('UPDATE item SET amount = amount + 1 WHERE id = 7');
          seen.add(name);
          const late = await other.open(origin, { timeoutMs: 0 });
          await late.exec('BEGIN IMMEDIATE; ROLLBACK');
          await late.call('close');
        },
      });
      for (const name of ['hello', 'open', 'snapshot', 'getRoot', 'root', 'done'] as const) {
        assert.ok(seen.has(name), `${name} was never seen`);
      }
      assert.equal(outcomeName, earlier === 'a replica that is the same' ? 'unchanged' : 'committed');
      assert.equal(seen.has('pages'), outcomeName === 'committed');
    });
  }

  test('an origin in rollback mode makes writers wait, and a warning says so before a page is sent', async (t) => {
    const [origin, replica] = paths(tempDir(t));
    generateDatabase(origin, { rows: 300, journalMode: 'delete' });
    const writer = await new OtherProcess(t).open(origin, { timeoutMs: 0 });
    const refused: Frame['name'][] = [];
    const warnings: string[] = [];
    await syncHere({
      origin,
      replica,
      onWarning: (warning) => warnings.push(warning),
      onFrame: async ({ name }) => {
        if (name === 'pages') assert.match(warnings.join('\n'), /rollback mode: its writers wait/);
        try {
          await writer.exec('BEGIN IMMEDIATE; UPDATE item SET amount = amount + 1; COMMIT');
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'SQLITE_BUSY');
          if (await writer.call('inTransaction')) await writer.exec('ROLLBACK');
          refused.push(name);
        }
      },
    });
    // The warning is true during the snapshot, and only then.
    assert.ok(refused.includes('pages') && !refused.includes('done'), refused.join(', '));
  });

  test('an origin in WAL mode brings no such warning', async (t) => {
    const [origin, replica] = paths(tempDir(t));
    generateDatabase(origin, { rows: 10 });
    await syncHere({ origin, replica, onWarning: (warning) => assert.fail(warning) });
  });
});

async function prepare(earlier: string, origin: string, replica: string): Promise<void> {
  if (earlier === 'a new replica') return;
  if (earlier === 'a part file') {
    const cut = syncHere({ origin, replica, onFrame: ({ name }) => (name === 'root' ? 'cut' : undefined) });
    await assert.rejects(cut, { code: 'CONNECTION_LOST' });
  } else {
    await syncHere({ origin, replica });
  }
  if (earlier !== 'a replica that is the same') change(origin, (db) => db.exec('UPDATE item SET amount = 1'));
}

function paths(folder: string): [origin: string, replica: string] {
  return [join(folder, 'origin.db'), join(folder, 'replica.db')];
}
