import assert from 'node:assert/strict';
import { copyFileSync, existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { change, column, names, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { assertRefused, sqlsync } from './command.ts';

/** Names that each have broken some tool. */
const NAMES = [
  'with a space.db',
  ' leading and trailing ',
  'trailing space.db ',
  `it's "quoted".db`,
  '$(touch executed).db',
  '`touch executed`.db',
  'a;touch executed;.db',
  'line\nbreak.db',
  'tab\there.db',
  'a?mode=memory.db',
  'a?immutable=1&vfs=none',
  'a#fragment.db',
  '100%.db',
  '%41.db',
  'back\\slash.db',
  'naïve-数据库-🗄.db',
  '*.db',
  ':memory:',
  'file:a.db',
  '-dash.db',
  '--overwrite',
  '.hidden',
  'a.db.sqlsync-part',
];

describe('a name that means something to shells, URIs or option parsers is just a name', () => {
  // Each name is the replica of the one before it, and the origin of the one after it.
  test('names that mean something to shells, URIs or option parsers are just names of a new replica and an origin on the command line', async (t) => {
    const folder = tempDir(t);
    const plain = join(folder, 'plain.db');
    smallDatabase(plain, { rows: 30, journalMode: 'delete' });
    const expected = sha256File(plain);
    let origin = 'plain.db';
    for (const name of NAMES) {
      const replica = join('sub', name);
      mkdirSync(join(folder, 'sub'));
      const { status, stdout, stderr } = await sqlsync([origin, replica], { cwd: folder });
      assert.equal(status, 0, `${JSON.stringify(name)}: ${stdout}${stderr}`);
      assert.deepEqual(names(join(folder, 'sub')), [`.${name}.sqlsync`, name].sort());
      assert.equal(sha256File(join(folder, replica)), expected, name);
      // In a folder of its own, so that no name can be taken for another.
      rmSync(join(folder, 'from'), { recursive: true, force: true });
      renameSync(join(folder, 'sub'), join(folder, 'from'));
      origin = join('from', name);
      assert.deepEqual(names(folder), ['from', 'plain.db']);
    }
  });

  for (const name of NAMES) {
    test(`such a name is just the name of an existing replica: ${JSON.stringify(name)}`, async (t) => {
      const folder = tempDir(t);
      const [origin, copy] = [join(folder, 'plain.db'), join(folder, 'copy.db')];
      const replica = join(folder, 'to', name);
      mkdirSync(join(folder, 'to'));
      smallDatabase(origin, { rows: 30, journalMode: 'delete' });
      await syncHere({ origin, replica });
      change(origin, 'UPDATE item SET amount = -1');
      assert.equal((await syncHere({ origin, replica })).outcomeName, 'committed');
      assert.deepEqual(names(join(folder, 'to')), [`.${name}.sqlsync`, name].sort());
      assert.deepEqual(names(folder), ['plain.db', 'to']);
      // This process's SQLite would read some of the names in its own way.
      renameSync(replica, copy);
      const amounts = 'SELECT DISTINCT amount FROM item';
      assert.deepEqual(column(copy, amounts), column(origin, amounts));
      assert.deepEqual(column(copy, amounts), [-1]);
    });
  }

  for (const [how, args] of [
    ['after ./', ['./-x.db', './-y.db']],
    ['after --', ['--', '-x.db', '-y.db']],
    ['after --, one on each side of the other', ['--', '-x.db', './-y.db']],
    ['after -- with options before it', ['--hash', 'sha256', '--', '-x.db', '-y.db']],
  ] as const) {
    test(`a leading dash ${how} is part of the name`, async (t) => {
      const folder = tempDir(t);
      smallDatabase(join(folder, '-x.db'), { rows: 30, journalMode: 'delete' });
      const { status, stderr } = await sqlsync(args, { cwd: folder });
      assert.equal(status, 0, stderr);
      assertReplicaOf(join(folder, '-x.db'), join(folder, '-y.db'));
    });
  }

  test('a colon after a slash does not make a host of what stands before it', async (t) => {
    const folder = tempDir(t);
    smallDatabase(join(folder, 'host:a.db'), { rows: 30, journalMode: 'delete' });
    const { status, stderr } = await sqlsync(['./host:a.db', './1:2:3'], { cwd: folder });
    assert.equal(status, 0, stderr);
    assertReplicaOf(join(folder, 'host:a.db'), join(folder, '1:2:3'));
  });

  test('a relative path is relative to the folder in which the command runs', async (t) => {
    const folder = tempDir(t);
    mkdirSync(join(folder, 'sub'));
    smallDatabase(join(folder, 'a.db'), { rows: 30, journalMode: 'delete' });
    const { status, stderr } = await sqlsync(['../a.db', '../sub/../b.db'], { cwd: join(folder, 'sub') });
    assert.equal(status, 0, stderr);
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'b.db'));
  });

  test('control characters of a name do not reach the terminal in a message', async (t) => {
    const folder = tempDir(t);
    const name = 'evil\u001b[31m\u0007.db';
    const { status, stderr } = await sqlsync([name, 'b.db'], { cwd: folder });
    assert.equal(status, 3);
    // oxlint-disable-next-line no-control-regex -- those are what is looked for
    assert.doesNotMatch(stderr, /[\u0000-\u0009\u000b-\u001f]/);
  });
});

test('a line break in a name begins no line that could pass for another message', async (t) => {
  const folder = tempDir(t);
  const { stderr } = await sqlsync(['./gone\nsqlsync: all is well', 'b.db'], { cwd: folder });
  assert.match(stderr, /\[ORIGIN_NOT_FOUND\]/);
  assert.match(stderr, /\n {9}sqlsync: all is well/);
});

test('a replica whose name ends in white space can be updated, too', async (t) => {
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'), { rows: 30, journalMode: 'delete' });
  for (const _ of ['new', 'updated']) {
    const { status, stderr } = await sqlsync(['a.db', 'b.db '], { cwd: folder });
    assert.equal(status, 0, stderr);
    change(join(folder, 'a.db'), 'UPDATE item SET amount = amount + 1');
  }
  const { status } = await sqlsync(['verify', 'a.db', 'b.db '], { cwd: folder });
  assert.equal(status, 1, 'the last change is missing');
});

describe('a long path', () => {
  /** A path of exactly so many bytes, its folders made. */
  function long(folder: string, bytes: number): string {
    let path = folder;
    for (let left = bytes - Buffer.byteLength(folder) - '/x.db'.length; left > 0;) {
      const length = left > 202 ? 200 : left - 1;
      path = join(path, 'd'.repeat(length));
      left -= length + 1;
    }
    mkdirSync(path, { recursive: true });
    return join(path, 'x.db');
  }

  for (const bytes of [400, 490]) {
    test(`a path of ${bytes} bytes is like any other, as a replica and as an origin`, async (t) => {
      const folder = tempDir(t);
      smallDatabase(join(folder, 'a.db'), { rows: 30, journalMode: 'delete' });
      const path = long(folder, bytes);
      assert.equal(Buffer.byteLength(path), bytes);
      for (const [origin, replica] of [
        ['a.db', path],
        [path, 'b.db'],
      ] as const) {
        const { status, stderr } = await sqlsync([origin, replica], { cwd: folder });
        assert.equal(status, 0, stderr);
      }
      assert.equal(sha256File(path), sha256File(join(folder, 'a.db')));
      assert.equal(sha256File(join(folder, 'b.db')), sha256File(join(folder, 'a.db')));
    });
  }

  for (const bytes of [505, 4000]) {
    test(`a path of ${bytes} bytes is refused, as SQLite cannot open it, and nothing is made`, async (t) => {
      const folder = tempDir(t);
      smallDatabase(join(folder, 'a.db'), { rows: 30, journalMode: 'delete' });
      const path = long(folder, bytes);
      const says = new RegExp(`has a path of ${bytes} bytes .*SQLite can open 490`);
      await assertRefused([join(folder, 'a.db'), path], { code: 'REPLICA_UNWRITABLE', status: 4, says });
      assert.deepEqual(names(dirname(path)), []);
      copyFileSync(join(folder, 'a.db'), path);
      const origin = new RegExp(`has a path of ${bytes} bytes .*SQLite can open 504`);
      await assertRefused([path, join(folder, 'b.db')], {
        code: 'ORIGIN_UNREADABLE',
        status: 3,
        says: origin,
      });
      assert.equal(existsSync(join(folder, 'b.db')), false);
    });
  }

  test('a path that is too long for the system is refused', async (t) => {
    const folder = tempDir(t);
    smallDatabase(join(folder, 'a.db'), { rows: 30, journalMode: 'delete' });
    const path = `${folder}/${'d'.repeat(5000)}`;
    await assertRefused([join(folder, 'a.db'), path], {
      code: 'REPLICA_UNWRITABLE',
      status: 4,
      says: /ENAMETOOLONG/,
    });
    await assertRefused([path, join(folder, 'b.db')], {
      code: 'ORIGIN_UNREADABLE',
      status: 3,
      says: /ENAMETOOLONG/,
    });
  });
});
