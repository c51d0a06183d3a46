import assert from 'node:assert/strict';
import { chmodSync, chownSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { readMark, readOwnMark } from '../../src/beside/mark.ts';
import { NEEDS_ROOT, NOBODY, folderState, sqlsync } from '../cli/command.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { sqlsyncWith } from './kill.ts';

interface Place {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
  readonly mark: string;
}

/** A replica and its mark, in a folder of this mode and owner; the origin has changed since. */
async function synced(t: TestContext, mode: number, owner = 0): Promise<Place> {
  const origin = join(tempDir(t), 'origin.db');
  smallDatabase(origin, { rows: 40, journalMode: 'delete' });
  const folder = tempDir(t);
  const replica = join(folder, 'r.db');
  await syncHere({ origin, replica });
  change(origin, "UPDATE item SET label = 'secret'");
  chmodSync(folder, mode);
  chownSync(folder, owner, owner);
  return { folder, origin, replica, mark: join(folder, '.r.db.sqlsync') };
}

function giveTo(user: number, ...paths: readonly string[]): void {
  for (const path of paths) chownSync(path, user, user);
}

/** In this process, whose user is root. */
async function assertNotMarked(place: Place, message: RegExp): Promise<void> {
  await assert.rejects(syncHere(place), { code: 'REPLICA_NOT_MARKED', message, hint: /--overwrite/ });
}

describe('files that another user prepared in the place of a replica', { skip: NEEDS_ROOT }, () => {
  for (const [mode, owner] of [
    [0o1777, 0],
    [0o755, NOBODY.uid],
  ] as const) {
    test(`a mark of another user in a folder of mode ${mode.toString(8)} does not make a database a replica`, async (t) => {
      const place = await synced(t, mode, owner);
      const { folder, replica, mark } = place;
      chmodSync(replica, 0o666);
      giveTo(NOBODY.uid, replica, mark);
      const before = folderState(folder);
      const says = mode === 0o755 ? /not made by sqlsync/ : /belongs to another user \(65534\)/;
      await assertNotMarked(place, says);
      assert.deepEqual(folderState(folder), before);
      assert.doesNotMatch(readFileSync(replica, 'latin1'), /secret/);
    });
  }

  test('a mark of another user does not make our own file a replica', async (t) => {
    const place = await synced(t, 0o755);
    const { origin, replica, mark } = place;
    giveTo(NOBODY.uid, mark);
    await assertNotMarked(place, /not made by sqlsync/);
    // Once the user allowed it, the mark is ours.
    await syncHere({ origin, replica, overwrite: true });
    assert.equal(statSync(mark).uid, 0);
    change(origin, 'UPDATE item SET amount = -1');
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  for (const content of ['a database', 'nothing'] as const) {
    test(`a file with ${content} in it is not filled where others may write, unless the user asks for it`, async (t) => {
      const place = await synced(t, 0o1777);
      const { origin, replica, mark } = place;
      if (content === 'nothing') writeFileSync(replica, '');
      giveTo(NOBODY.uid, replica);
      await assertNotMarked(place, /belongs to another user/);
      assert.equal(statSync(mark).uid, 0);
      await syncHere({ origin, replica, overwrite: true });
      assertReplicaOf(origin, replica);
    });
  }
});

describe('a replica of a service, in its own folder', { skip: NEEDS_ROOT }, () => {
  test("root may write a replica of a service in that service's folder if root marked it, with a warning", async (t) => {
    const { origin, replica } = await synced(t, 0o755, NOBODY.uid);
    giveTo(NOBODY.uid, replica);
    const { warnings } = await syncHere({ origin, replica });
    assert.equal(warnings.length, 1);
    assert.match(
      warnings[0] ?? '',
      /Other users may write to the folder .* \(it belongs to the user 65534\)/,
    );
    assertReplicaOf(origin, replica);
    assert.equal(statSync(replica).uid, NOBODY.uid);
  });

  test('a service may write a replica in its own folder though root marked it', async (t) => {
    const { folder, origin, replica } = await synced(t, 0o755, NOBODY.uid);
    giveTo(NOBODY.uid, replica);
    chmodSync(join(origin, '..'), 0o755);
    const { status, stderr } = await sqlsync([origin, replica], { user: NOBODY });
    assert.equal(status, 0, stderr);
    assert.doesNotMatch(stderr, new RegExp(folder), 'no warning');
    assertReplicaOf(origin, replica);
  });
});

test(
  'a mark counts where all new files belong to another user, as on some mounts',
  { skip: NEEDS_ROOT },
  async (t) => {
    const { origin, replica, mark } = await synced(t, 0o1777);
    giveTo(NOBODY.uid, replica, mark);
    assert.notEqual(readMark(replica), undefined);
    assert.equal(readOwnMark(replica), undefined);
    // Not every host has a mount of one of those kinds.
    const everyFileIsNobodys = `const { fstatSync } = fs;
      fs.fstatSync = (...args) => Object.assign(fstatSync(...args), { uid: ${NOBODY.uid} });`;
    const { status, stderr } = await sqlsyncWith(everyFileIsNobodys, [origin, replica]);
    assert.equal(status, 0, stderr);
    assertReplicaOf(origin, replica);
  },
);

test(
  'a mark of another user’s still tells that the arguments are swapped',
  { skip: NEEDS_ROOT },
  async (t) => {
    const { origin, replica, mark } = await synced(t, 0o755);
    giveTo(NOBODY.uid, mark);
    renameSync(origin, `${origin}-kept`);
    await assert.rejects(syncHere({ origin: replica, replica: origin }), { code: 'SWAPPED' });
  },
);
