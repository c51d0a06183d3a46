import assert from 'node:assert/strict';
import { readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { ErrorCode } from '../../src/errors.ts';
import { smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { PROGRAM, assertRefused, folderState } from './command.ts';
import { here } from './store-here.ts';

describe('refusals of commands on a store', () => {
  const cases: [args: string[], code: ErrorCode, status: number, says: RegExp, hint?: RegExp][] = [
    [['snapshots', 'none'], 'STORE_NOT_FOUND', 18, /none/, /sqlsync init/],
    [['backup', 'a.db', 'none'], 'STORE_NOT_FOUND', 18, /none/],
    [['init', 'store'], 'STORE_EXISTS', 18, /already/],
    [['restore', 'store', 'x.db'], 'SNAPSHOT_NOT_FOUND', 18, /has no snapshot yet/],
    [['restore', 'store#0000', 'x.db'], 'SNAPSHOT_NOT_FOUND', 18, /0000/],
    [['restore', 'store#2020-02-31T', 'x.db'], 'USAGE', 2, /neither an id nor a time/],
    [['restore', 'store#2026-02-30', 'x.db'], 'USAGE', 2, /"2026-02-30" is neither an id nor a time/],
    [['open', 'store#zzzz'], 'USAGE', 2, /"zzzz" is neither/, /2026-11-21T08:00/],
    [['dump', 'store#012'], 'USAGE', 2, /"012" is neither/, /four digits/],
    [['diff', 'store#abcd', '#'], 'USAGE', 2, /Nothing follows the #/],
    [['restore', 'store#', 'x.db'], 'USAGE', 2, /Nothing follows the #/],
    [['restore', 'none#zzzz', 'x.db'], 'STORE_NOT_FOUND', 18, /none#zzzz/],
    [['snapshots', 'store#latest'], 'USAGE', 2, /names a snapshot; expected a store/],
    [['backup', 'a.db'], 'USAGE', 2, /one database or more, and a store/, /\.\/backup/],
    [['backup', 'a.db', 'store', '--keep-last', 'few'], 'USAGE', 2, /--keep-last/],
    [['backup', 'no*.db', 'store'], 'ORIGIN_NOT_FOUND', 3, /no\*\.db/],
    [['init', 'vault:'], 'USAGE', 2, /no path follows the host/],
    [['backup', 'a.db', 'ftp://vault/store'], 'USAGE', 2, /a scheme that sqlsync does not support/],
    [['forget', 'store'], 'USAGE', 2, /neither a policy nor an id/],
    [['forget', 'store', '--keep-last', '0'], 'USAGE', 2, /empty/],
    [['forget', 'store', 'latest'], 'USAGE', 2, /is not the id of a snapshot/],
    [['forget', 'store', 'abcd', '--keep-last', '1'], 'USAGE', 2, /exclude/],
    [['diff', 'store#abcd', 'other#abcd'], 'USAGE', 2, /two stores/],
    [['check', 'store', '--read-data-subset', '8/7'], 'USAGE', 2, /8\/7/],
    [['stats', 'store', '--overwrite'], 'USAGE', 2, /--overwrite of `sqlsync stats`/],
    [['open', 'store', '--exec', ''], 'USAGE', 2, /./],
    [['backup', 'store/config', 'store'], 'USAGE', 2, /lies within the store/, /elsewhere/],
    [['backup', 'link/x.db', './store/../store'], 'USAGE', 2, /lies within the store/],
  ];
  // One folder for all cases: none of them may change it.
  test('each refusal has its code, its exit status and a hint', async (t) => {
    const { folder } = await here(t);
    symlinkSync('store', join(folder, 'link'));
    for (const [args, code, status, says, hint] of cases) {
      const expected = { code, status, says, ...(hint === undefined ? {} : { hint }) };
      await assertRefused(args, expected, { cwd: folder });
    }
    assert.deepEqual(readdirSync(folder).sort(), ['a.db', 'b.db', 'link', 'store']);
  });

  test('a pattern that matches only databases of another host is refused', async (t) => {
    const { folder, run } = await here(t);
    const shell = join(folder, 'shell');
    writeFileSync(shell, `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' agent\n`, { mode: 0o755 });
    await assertRefused(
      ['backup', 'db1:/srv/*.db', 'store', '--rsh', shell],
      { code: 'ORIGIN_NOT_FOUND', status: 3, says: /of this host only/, hint: /each database on db1, or/ },
      { cwd: folder },
    );
    const path = join(folder, 'odd[1].db');
    smallDatabase(path, { rows: 5 });
    const { backups } = await run('backup', `db1:${path}`, 'store', '--rsh', shell);
    assert.equal((backups as { snapshot: { path: string } }[])[0]?.snapshot.path, path);
  });

  test('a restore into the folder of the store is refused, however the user names it', async (t) => {
    const { folder, run } = await here(t);
    await run('backup', 'a.db', 'store');
    symlinkSync('store/packs', join(folder, 'link'));
    const before = folderState(join(folder, 'store'));
    for (const target of [
      'store',
      'store/',
      'store/packs/x.db',
      'store/none/x.db',
      'link/x.db',
      `${folder}/store/config`,
    ]) {
      await assertRefused(
        ['restore', 'store', target, '--overwrite'],
        { code: 'USAGE', status: 2, says: /is the store itself|lies within the store/, hint: /elsewhere/ },
        { cwd: folder },
      );
    }
    assert.deepEqual(folderState(join(folder, 'store')), before);
    await run('restore', 'store', 'store.db');
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'store.db'));
  });

  test('a restore over an existing database is refused until --overwrite is given', async (t) => {
    const { folder, run } = await here(t);
    await run('backup', 'a.db', 'store');
    // The restore leaves no mark, so that a second one is refused as the first.
    for (let i = 0; i < 2; i++) {
      await assertRefused(
        ['restore', 'store', 'b.db'],
        {
          code: 'REPLICA_NOT_MARKED',
          status: 6,
          says: /b\.db exists, and a restore would replace its content/,
          hint: /--dry-run/,
        },
        { cwd: folder },
      );
      await run('restore', 'store', 'b.db', '--overwrite');
    }
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'b.db'));
  });
});
