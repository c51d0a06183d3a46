import assert from 'node:assert/strict';
import { mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { change, column, names, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';
import { sqlsync } from './command.ts';

/** Names of which each has broken some tool. */
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
  // Each name is the replica of the one before it and the origin of the one after it.
  test('as a new replica and as an origin, on the command line', async (t) => {
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
    test(`as an existing replica that is written: ${JSON.stringify(name)}`, async (t) => {
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
      // SQLite of this process would read some of the names in its own way.
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

  test('a relative path is one of the folder that the command runs in', async (t) => {
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
