import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { NEEDS_ROOT, NOBODY, assertRefused, folderState, sqlsync, summaryOf } from '../cli/command.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { change, names, smallDatabase } from '../pages/databases.ts';

function place(t: TestContext): { folder: string; origin: string; replica: string; elsewhere: string } {
  const origin = join(tempDir(t), 'origin.db');
  smallDatabase(origin, { rows: 40, journalMode: 'delete' });
  const folder = tempDir(t);
  const elsewhere = join(tempDir(t), 'precious');
  writeFileSync(elsewhere, 'somebody’s only copy');
  return { folder, origin, replica: join(folder, 'r.db'), elsewhere };
}

const REFUSED = { code: 'REPLICA_LINK', status: 6 } as const;

describe('a symbolic link', () => {
  test('a symbolic link in the place of the replica is refused, and the hint says what to do', async (t) => {
    const { folder, origin, replica, elsewhere } = place(t);
    symlinkSync(elsewhere, replica);
    const before = folderState(folder);
    const says = /Replica \S*r\.db is a symbolic link/;
    await assertRefused([origin, replica], { ...REFUSED, says, hint: /leads to, or add --follow-links/ });
    await assertRefused([origin, replica, '--overwrite', '--dry-run'], { ...REFUSED, says });
    assert.deepEqual(folderState(folder), before);
    assert.equal(readFileSync(elsewhere, 'utf8'), 'somebody’s only copy');
  });

  test('a symbolic link to nothing is refused too, and nothing is made where it leads', async (t) => {
    const { folder, origin, replica, elsewhere } = place(t);
    symlinkSync(`${elsewhere}-nothing`, replica);
    await assertRefused([origin, replica], { ...REFUSED, says: /symbolic link/ });
    const unwritable = { code: 'REPLICA_UNWRITABLE', status: 4, says: /ENOENT/ } as const;
    await assertRefused([origin, replica, '--follow-links'], unwritable);
    assert.deepEqual(names(folder), ['r.db']);
  });

  test('--follow-links follows a symbolic link, which stays', async (t) => {
    const { folder, origin } = place(t);
    mkdirSync(join(folder, 'real'));
    const [real, link] = [join(folder, 'real', 'r.db'), join(folder, 'link.db')];
    await syncHere({ origin, replica: real });
    change(origin, 'UPDATE item SET amount = -1');
    symlinkSync('real/r.db', link);
    const { status, stderr } = await sqlsync([origin, link, '--follow-links']);
    assert.equal(status, 0, stderr);
    assertReplicaOf(origin, real);
    assert.ok(lstatSync(link).isSymbolicLink());
    assert.deepEqual(names(folder), ['link.db', 'real']);
  });

  test('a symbolic link to the folder of the replica is as good as its real name', async (t) => {
    const { folder, origin } = place(t);
    mkdirSync(join(folder, 'real'));
    symlinkSync('real', join(folder, 'alias'));
    await syncHere({ origin, replica: join(folder, 'alias', 'r.db') });
    assertReplicaOf(origin, join(folder, 'real', 'r.db'));
  });

  for (const name of [
    'r.db-wal',
    'r.db-shm',
    'r.db-journal',
    '.r.db.sqlsync-part',
    '.r.db.sqlsync-spool',
    '.r.db.sqlsync-lock',
  ]) {
    for (const kind of ['new', 'existing'] as const) {
      test(`a symbolic link in the place of ${name} is refused, and nothing follows it (${kind} replica)`, async (t) => {
        const { folder, origin, replica, elsewhere } = place(t);
        if (kind === 'existing') {
          await syncHere({ origin, replica });
          change(origin, 'UPDATE item SET amount = -1');
        }
        symlinkSync(elsewhere, join(folder, name));
        const before = folderState(folder);
        const expected = {
          ...REFUSED,
          says: new RegExp(`${name.replaceAll('.', '\\.')} is a symbolic link`),
        };
        await assertRefused([origin, replica], expected);
        await assertRefused([origin, replica, '--follow-links', '--overwrite'], expected);
        assert.deepEqual(folderState(folder), before);
        assert.equal(readFileSync(elsewhere, 'utf8'), 'somebody’s only copy');
      });
    }
  }
});

describe('the folder of a replica', () => {
  for (const [mode, warns] of [
    [0o700, false],
    [0o755, false],
    [0o777, true],
    [0o1777, true],
  ] as const) {
    test(`a replica's folder of mode ${mode.toString(8)} gets ${warns ? 'a' : 'no'} warning`, async (t) => {
      const { folder, origin, replica } = place(t);
      chmodSync(folder, mode);
      const { warnings } = await syncHere({ origin, replica });
      assert.equal(warnings.length, warns ? 1 : 0, warnings.join('\n'));
      if (warns) assert.match(warnings[0] ?? '', /Other users may write to the folder .* \(mode 1?777\)/);
      const summary = await summaryOf([origin, replica]);
      const shown = (summary['warnings'] as string[]).filter((text) => text.includes('Other users'));
      assert.equal(shown.length, warns ? 1 : 0);
    });
  }

  test(
    "a replica's folder that a group may write to gets a warning, unless the group is its owner’s own",
    { skip: NEEDS_ROOT },
    async (t) => {
      const { folder, origin, replica } = place(t);
      chmodSync(folder, 0o770);
      assert.deepEqual((await syncHere({ origin, replica })).warnings, []);
      chownSync(folder, 0, NOBODY.gid);
      assert.match((await syncHere({ origin, replica })).warnings[0] ?? '', /mode 770/);
    },
  );
});

describe('the mark', () => {
  for (const [originMode, expected] of [
    [0o600, 0o600],
    [0o640, 0o640],
    [0o666, 0o644],
    [0o400, 0o600],
  ] as const) {
    test(`the mark of a replica of an origin of mode ${originMode.toString(8)} has ${expected.toString(8)}`, async (t) => {
      const { folder, origin, replica } = place(t);
      chmodSync(origin, originMode);
      await syncHere({ origin, replica });
      const { mode } = statSync(join(folder, '.r.db.sqlsync'));
      assert.equal((mode & 0o777).toString(8), expected.toString(8));
    });
  }
});
