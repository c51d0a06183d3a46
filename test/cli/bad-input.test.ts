import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { change, openFolder, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { NEEDS_ROOT, NOBODY, assertRefused, folderState } from './command.ts';

const GARBAGE: Record<string, (path: string) => void> = {
  'a text file': (path) => writeFileSync(path, 'Once upon a time there was no database.\n'.repeat(500)),
  'encrypted garbage': (path) => writeFileSync(path, randomBytes(40_960)),
  'a file shorter than a header': (path) => writeFileSync(path, 'SQLite format 3\0'),
  'a header with an impossible page size': (path) => {
    smallDatabase(path, { rows: 20 });
    const bytes = readFileSync(path);
    bytes.writeUInt16BE(1000, 16);
    writeFileSync(path, bytes);
  },
};

const UNLIKE_FILES: Record<string, (path: string) => void> = {
  'a folder': (path) => mkdirSync(path),
  'a fifo': (path) => assert.equal(spawnSync('mkfifo', [path]).status, 0),
  'a device': (path) => symlinkSync('/dev/null', path),
};

/** A folder with the good database a.db. */
function place(t: TestContext): { folder: string; good: string; bad: string } {
  const folder = tempDir(t);
  const good = join(folder, 'a.db');
  smallDatabase(good, { journalMode: 'delete', rows: 50 });
  return { folder, good, bad: join(folder, 'bad') };
}

describe('a bad origin', () => {
  for (const [what, make] of Object.entries({ ...GARBAGE, ...UNLIKE_FILES })) {
    test(`${what} as the origin is refused, and nothing is made or changed`, async (t) => {
      const { folder, good, bad } = place(t);
      make(bad);
      await syncHere({ origin: good, replica: join(folder, 'replica.db') });
      const before = folderState(folder);
      const expected = { code: 'ORIGIN_NOT_A_DATABASE', status: 3, says: /Origin \S*\/bad is/ } as const;
      await assertRefused([bad, join(folder, 'new.db')], expected);
      await assertRefused([bad, join(folder, 'replica.db')], expected);
      assert.deepEqual(folderState(folder), before);
    });
  }

  for (const [what, make] of Object.entries({
    'a file that is not there': () => {},
    'a link to nothing': (path: string) => symlinkSync('nowhere', path),
  })) {
    test(`${what} as the origin is refused, and nothing is made or changed`, async (t) => {
      const { folder, good, bad } = place(t);
      make(bad);
      await syncHere({ origin: good, replica: join(folder, 'replica.db') });
      const before = folderState(folder);
      const expected = { code: 'ORIGIN_NOT_FOUND', status: 3, says: /bad does not exist/ } as const;
      await assertRefused([bad, join(folder, 'replica.db')], expected);
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('an origin in a folder that does not exist is refused', async (t) => {
    const { folder, good } = place(t);
    const expected = { code: 'ORIGIN_NOT_FOUND', status: 3, says: /does not exist/ } as const;
    await assertRefused([join(folder, 'no/such/a.db'), join(folder, 'new.db')], expected);
    await assertRefused([join(good, 'a.db'), join(folder, 'new.db')], expected);
  });

  for (const [what, bytes] of [
    ['in the middle', 20_000],
    ['at a page', 5 * 4096],
  ] as const) {
    test(`an origin that is cut off ${what} is refused`, async (t) => {
      const { folder, good } = place(t);
      await syncHere({ origin: good, replica: join(folder, 'replica.db') });
      truncateSync(good, bytes);
      const before = folderState(folder);
      const expected = { code: 'ORIGIN_UNREADABLE', status: 3, says: /truncated/, hint: /backup/ } as const;
      await assertRefused([good, join(folder, 'new.db')], expected);
      await assertRefused([good, join(folder, 'replica.db')], expected);
      assert.deepEqual(folderState(folder), before);
    });
  }
});

describe('a bad replica', () => {
  for (const [what, make] of Object.entries({ ...GARBAGE, ...UNLIKE_FILES })) {
    test(`${what} as the replica is refused, even with --overwrite and --replace, and nothing is changed`, async (t) => {
      const { folder, good, bad } = place(t);
      make(bad);
      const before = folderState(folder);
      const expected = { code: 'REPLICA_NOT_A_DATABASE', status: 4, says: /Replica \S*(bad|null) / } as const;
      await assertRefused([good, bad, '--follow-links'], expected);
      await assertRefused([good, bad, '--follow-links', '--overwrite', '--replace'], expected);
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('a replica in a folder that does not exist is refused', async (t) => {
    const { folder, good } = place(t);
    const before = folderState(folder);
    const expected = { code: 'REPLICA_UNWRITABLE', status: 4, says: /ENOENT/, hint: /folder first/ } as const;
    await assertRefused([good, join(folder, 'no/such/r.db')], expected);
    assert.deepEqual(folderState(folder), before);
  });

  test('a replica in a folder without write permission is refused', { skip: NEEDS_ROOT }, async (t) => {
    const folder = openFolder(t);
    const good = join(folder, 'a.db');
    smallDatabase(good, { journalMode: 'delete', rows: 50 });
    chmodSync(good, 0o644);
    const before = folderState(folder);
    const expected = {
      code: 'REPLICA_UNWRITABLE',
      status: 4,
      says: /r\.db cannot be written/,
      hint: /Allow/,
    };
    await assertRefused([good, join(folder, 'r.db')], expected as never, { user: NOBODY });
    assert.deepEqual(folderState(folder), before);
  });

  test('a replica without write permission is refused', { skip: NEEDS_ROOT }, async (t) => {
    const folder = openFolder(t);
    const [good, replica] = [join(folder, 'a.db'), join(folder, 'r.db')];
    smallDatabase(good, { journalMode: 'delete', rows: 50 });
    chmodSync(good, 0o644);
    await syncHere({ origin: good, replica });
    change(good, 'UPDATE item SET amount = -1');
    chmodSync(folder, 0o777);
    const before = folderState(folder);
    const expected = {
      code: 'REPLICA_UNWRITABLE',
      status: 4,
      says: /r\.db cannot be written/,
      hint: /Allow/,
    };
    await assertRefused([good, replica], expected as never, { user: NOBODY });
    assert.deepEqual(folderState(folder), before);
  });
});

describe('origin and replica', () => {
  for (const [how, link] of [
    ['the same path', undefined],
    ['the same file by a symbolic link', symlinkSync],
    ['the same file by a hard link', linkSync],
  ] as const) {
    test(`origin and replica that are ${how} are refused, in either order, and nothing is changed`, async (t) => {
      const { folder, good } = place(t);
      const other = link === undefined ? join(folder, '.', 'a.db') : join(folder, 'link.db');
      link?.(good, other);
      const before = folderState(folder);
      const expected = { code: 'SAME_FILE', status: 2, says: /the same file/ } as const;
      await assertRefused([good, other, '--follow-links'], expected);
      await assertRefused([other, good, '--overwrite'], expected);
      assert.deepEqual(folderState(folder), before);
    });
  }

  for (const name of [
    'r.db-wal',
    'r.db-journal',
    '.r.db.sqlsync',
    ...['part', 'spool', 'lock'].map((kind) => `.r.db.sqlsync-${kind}`),
  ]) {
    test(`origin and replica with the names r.db and ${name} are refused, in either order, and nothing is changed`, async (t) => {
      const { folder, good } = place(t);
      const [database, other] = [join(folder, 'r.db'), join(folder, name)];
      const expected = { code: 'SAME_FILE', status: 2, says: /belongs to the other/ } as const;
      for (const [origin, replica] of [
        [database, other],
        [other, database],
      ] as const) {
        copyFileSync(good, origin);
        const before = folderState(folder);
        await assertRefused([origin, replica, '--overwrite'], expected);
        assert.deepEqual(folderState(folder), before);
        rmSync(origin);
      }
      copyFileSync(good, database);
      copyFileSync(good, other);
      const before = folderState(folder);
      await assertRefused([other, database, '--overwrite'], expected);
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('origin and replica that are both remote are refused, with the hint to run it on one of the hosts', async () => {
    const expected = {
      code: 'BOTH_REMOTE',
      status: 2,
      says: /both on other hosts/,
      hint: /one of the two hosts/,
    };
    await assertRefused(['one:a.db', 'me@two:b.db'], expected as never);
  });
});

test('an origin of 0 bytes is a database without pages, not a bad one', async (t) => {
  const { folder } = place(t);
  const empty = join(folder, 'empty.db');
  writeFileSync(empty, '');
  await syncHere({ origin: empty, replica: join(folder, 'new.db') });
  assert.ok(existsSync(join(folder, 'new.db')));
});
