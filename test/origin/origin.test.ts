import assert from 'node:assert/strict';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  renameSync,
  statSync,
  truncateSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import {
  Command,
  Hold,
  NEEDS_ROOT,
  NOBODY,
  assertRefused,
  folderState,
  jsonLines,
  sqlsync,
  untilGone,
} from '../cli/command.ts';
import { assertReplicaOf, sha256File } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { syncHere } from '../support/sync.ts';
import {
  addPageChecksums,
  change,
  column,
  damage,
  largeDatabase,
  names,
  openFolder,
  smallDatabase,
} from '../pages/databases.ts';

interface Place {
  /** The folder of the origin; every user may read it. */
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
}

/** An origin, and a folder of its own for the replica, which NOBODY may write to. */
function place(t: TestContext, make: (path: string) => void = smallDatabase): Place {
  const folder = openFolder(t);
  const replicas = openFolder(t);
  chmodSync(replicas, 0o777);
  const origin = join(folder, 'origin.db');
  make(origin);
  chmodSync(origin, 0o644);
  return { folder, origin, replica: join(replicas, 'r.db') };
}

async function killInTransaction(t: TestContext, path: string, sql: string): Promise<void> {
  const other = new OtherProcess(t);
  const writer = await other.open(path);
  await writer.exec(`PRAGMA cache_size = 5; BEGIN IMMEDIATE; ${sql}`);
  await other.end();
}

async function openWriter(t: TestContext, path: string): Promise<OtherConnection> {
  return new OtherProcess(t).open(path);
}

describe('the origin of another user', { skip: NEEDS_ROOT }, () => {
  test('the origin of another user that is idle in WAL mode is refused, with a hint, and no -wal or -shm is made', async (t) => {
    const { folder, origin, replica } = place(t);
    chmodSync(folder, 0o777);
    const expected = { code: 'ORIGIN_PERMISSION', status: 3, says: /idle in WAL mode/, hint: /as the owner/ };
    await assertRefused([origin, replica], expected as never, { user: NOBODY });
    assert.deepEqual(statFiles(folder), ['origin.db']);
    assert.equal(existsSync(replica), false);
    const writer = await openWriter(t, origin);
    await writer.exec("INSERT INTO item (label) VALUES ('still writable')");
  });

  test('the origin of another user that its application has open is copied', async (t) => {
    const { folder, origin, replica } = place(t);
    chmodSync(folder, 0o777);
    const writer = await openWriter(t, origin);
    await writer.exec("INSERT INTO item (label) VALUES ('not checkpointed')");
    for (const suffix of ['-wal', '-shm']) chmodSync(origin + suffix, 0o666);
    const run = await sqlsync([origin, replica], { user: NOBODY });
    assert.equal(run.status, 0, run.stderr);
    await writer.exec("INSERT INTO item (label) VALUES ('still writable')");
    assert.deepEqual(column(replica, "SELECT count(*) FROM item WHERE label = 'not checkpointed'"), [1]);
  });

  test('the origin of another user that is idle in rollback mode is copied', async (t) => {
    const { origin, replica } = place(t, (path) => smallDatabase(path, { journalMode: 'delete' }));
    const run = await sqlsync([origin, replica], { user: NOBODY });
    assert.equal(run.status, 0, run.stderr);
    assertReplicaOf(origin, replica);
  });

  test('the origin of another user that may not be read is refused', async (t) => {
    const { origin, replica } = place(t);
    chmodSync(origin, 0o600);
    const expected = { code: 'ORIGIN_PERMISSION', status: 3, says: /EACCES/, hint: /Allow this user/ };
    await assertRefused([origin, replica], expected as never, { user: NOBODY });
  });

  test('the origin of another user in a folder that may not be entered is refused', async (t) => {
    const { folder, origin, replica } = place(t);
    chmodSync(folder, 0o700);
    const expected = { code: 'ORIGIN_PERMISSION', status: 3, says: /EACCES/, hint: /enter its folder/ };
    await assertRefused([origin, replica], expected as never, { user: NOBODY });
  });
});

describe('an origin in WAL mode in a folder without write permission', { skip: NEEDS_ROOT }, () => {
  test('a WAL origin in a folder without write permission is copied where it has neither -wal nor -shm, and none is made', async (t) => {
    const { folder, origin, replica } = place(t);
    const before = folderState(folder);
    const run = await sqlsync([origin, replica], { user: NOBODY });
    assert.equal(run.status, 0, run.stderr);
    assert.deepEqual(statFiles(folder), ['origin.db']);
    assert.deepEqual(folderState(folder), before);
    assertReplicaOf(origin, replica);
  });

  test('a WAL origin in a folder without write permission is copied if its owner is the one who may not write the folder', async (t) => {
    const { origin, replica } = place(t);
    chownSync(origin, NOBODY.uid, NOBODY.gid);
    const run = await sqlsync([origin, replica], { user: NOBODY });
    assert.equal(run.status, 0, run.stderr);
    assertReplicaOf(origin, replica);
  });

  test('a WAL origin in a folder without write permission is refused if it has content in -wal and no -shm: the error says what is missing', async (t) => {
    const { folder, origin, replica } = place(t);
    await leaveWal(t, origin, folder);
    const expected = {
      code: 'ORIGIN_PERMISSION',
      status: 3,
      says: /changes in its -wal file, but no -shm file/,
    };
    const before = folderState(folder);
    await assertRefused([origin, replica], { ...expected, hint: /allow this user/ } as never, {
      user: NOBODY,
    });
    assert.deepEqual(folderState(folder), before);
    assert.equal(existsSync(replica), false);
  });

  test('a WAL origin in a folder without write permission is copied while its application has it open', async (t) => {
    const { origin, replica } = place(t);
    const writer = await openWriter(t, origin);
    await writer.exec("INSERT INTO item (label) VALUES ('not checkpointed')");
    const run = await sqlsync([origin, replica], { user: NOBODY });
    assert.equal(run.status, 0, run.stderr);
    assert.deepEqual(column(replica, "SELECT count(*) FROM item WHERE label = 'not checkpointed'"), [1]);
    await writer.exec("INSERT INTO item (label) VALUES ('still writable')");
  });

  test('an origin that a program begins to write while it is read without locks is ORIGIN_CHANGED', async (t) => {
    const { origin, replica } = place(t);
    const hold = new Hold(t, 100);
    const command = new Command([origin, replica], { hold, user: NOBODY });
    // The agent, which runs as that user, writes the sign of the hold.
    await hold.reached(command);
    const writer = await openWriter(t, origin);
    await writer.exec("INSERT INTO item (label) VALUES ('new')");
    hold.release();
    const { status, stderr } = await command.done;
    assert.match(stderr, /\[ORIGIN_CHANGED\]/);
    assert.equal(status, 3);
    assert.equal(existsSync(replica), false);
  });

  test('an origin that a program has written and closed while it was read without locks is ORIGIN_CHANGED', async (t) => {
    const { origin, replica } = place(t);
    const hold = new Hold(t, 100);
    const command = new Command([origin, replica], { hold, user: NOBODY });
    // The agent, which runs as that user, writes the sign of the hold.
    await hold.reached(command);
    const writer = await openWriter(t, origin);
    await writer.exec("INSERT INTO item (label) VALUES ('new')");
    await writer.call('close');
    hold.release();
    const { status, stderr } = await command.done;
    assert.match(stderr, /\[ORIGIN_CHANGED\]/);
    assert.equal(status, 3);
    assert.equal(existsSync(replica), false);
  });
});

describe('an origin with a hot journal', () => {
  test('an origin with a hot journal is refused with its own code, and neither file changes', async (t) => {
    const { folder, origin, replica } = place(t, (path) => largeDatabase(path, 2e6, 'delete'));
    await killInTransaction(t, origin, 'UPDATE t SET x = zeroblob(8000)');
    assert.ok(statSync(`${origin}-journal`).size > 0);
    const before = folderState(folder);
    const expected = {
      code: 'ORIGIN_HOT_JOURNAL',
      status: 3,
      says: /hot journal/,
      hint: /rolls the transaction/,
    };
    await assertRefused([origin, replica], expected as never);
    assert.deepEqual(folderState(folder), before);
    assert.equal(existsSync(replica), false);
  });

  test('an origin with a hot journal is copied after the application has opened it', async (t) => {
    const { origin, replica } = place(t, (path) => largeDatabase(path, 2e6, 'delete'));
    await killInTransaction(t, origin, 'UPDATE t SET x = zeroblob(8000)');
    assert.deepEqual(column(origin, 'SELECT count(*) FROM t WHERE x = zeroblob(8000)'), [0]);
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });
});

describe('an origin whose file is replaced under its name', () => {
  for (const journalMode of ['wal', 'delete'] as const) {
    test(`an origin that is replaced during the sync is ORIGIN_REPLACED, and the replica stays as it was (${journalMode})`, async (t) => {
      const { folder, origin, replica } = place(t, (path) => smallDatabase(path, { journalMode }));
      await syncHere({ origin, replica });
      change(origin, 'UPDATE item SET amount = -1');
      const other = join(folder, 'other.db');
      smallDatabase(other, { seed: 9, journalMode });
      const before = sha256File(replica);
      const hold = new Hold(t, 100);
      const command = new Command([origin, replica], { hold });
      await hold.reached(command);
      renameSync(other, origin);
      hold.release();
      const { status, stderr } = await command.done;
      assert.match(stderr, /\[ORIGIN_REPLACED\]/);
      assert.equal(status, 3);
      assert.equal(sha256File(replica), before);
      await syncHere({ origin, replica });
      assertReplicaOf(origin, replica);
    });
  }

  test('an origin that is removed during the sync is ORIGIN_REPLACED too', async (t) => {
    const { folder, origin, replica } = place(t);
    const hold = new Hold(t, 100);
    const command = new Command([origin, replica], { hold });
    await hold.reached(command);
    renameSync(origin, join(folder, 'elsewhere'));
    hold.release();
    const { status, stderr } = await command.done;
    assert.match(stderr, /\[ORIGIN_REPLACED\]/);
    assert.equal(status, 3);
    assert.equal(existsSync(replica), false);
  });
});

describe('an origin', () => {
  test('an origin of the checksum VFS is refused', async (t) => {
    const { origin, replica } = place(t, (path) => smallDatabase(path, { reservedBytes: 8 }));
    addPageChecksums(origin, 4096);
    const expected = { code: 'ORIGIN_CHECKSUM_VFS', status: 3, says: /checksum VFS/, hint: /reserve_bytes/ };
    await assertRefused([origin, replica], expected as never);
    assert.equal(existsSync(replica), false);
  });

  test('an origin with 8 reserved bytes of another use is copied', async (t) => {
    const { origin, replica } = place(t, (path) => smallDatabase(path, { reservedBytes: 8 }));
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
    change(origin, 'UPDATE item SET amount = -1 WHERE id % 9 = 0');
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  test('an origin with more pages than can be addressed is refused', async (t) => {
    const { origin, replica } = place(t, (path) =>
      smallDatabase(path, { pageSize: 512, journalMode: 'delete', rows: 20 }),
    );
    // A sparse file; another change counter makes SQLite count its pages by the file's size.
    truncateSync(origin, 512 * 2 ** 31);
    damage(origin, 92, Buffer.alloc(4));
    const expected = { code: 'ORIGIN_TOO_LARGE', status: 3, says: /2147483648 pages/, hint: /page size/ };
    await assertRefused([origin, replica], expected as never);
    assert.equal(existsSync(replica), false);
  });

  test('an origin in rollback mode that a writer locks for longer than --busy-timeout is BUSY', async (t) => {
    const { origin, replica } = place(t, (path) => smallDatabase(path, { journalMode: 'delete' }));
    const writer = await openWriter(t, origin);
    await writer.exec('BEGIN EXCLUSIVE');
    const expected = { code: 'BUSY', status: 5, says: /Origin .* still locked .* after 200 ms/ };
    await assertRefused([origin, replica, '--busy-timeout', '0.2'], expected as never);
    assert.equal(existsSync(replica), false);
  });

  test('an origin in rollback mode is announced before the copy: its writers wait', async (t) => {
    const { origin, replica } = place(t, (path) => smallDatabase(path, { journalMode: 'delete' }));
    const run = await sqlsync([origin, replica, '--json']);
    assert.equal(run.status, 0, run.stdout);
    const [first, ...others] = jsonLines(run.stdout);
    assert.equal(first?.type, 'warning');
    assert.match(String(first?.['message']), /rollback mode: its writers wait/);
    const warnings = others.at(-1)?.['warnings'] as string[];
    assert.equal(warnings[0], first?.['message']);
    assert.match(warnings[1] ?? '', /Other users may write to the folder/, 'this test is made for it');
    assert.equal(warnings.length, 2);
  });

  test('an origin in WAL mode is not kept from writing at any moment of a sync', async (t) => {
    const { origin, replica } = place(t);
    const writer = await openWriter(t, origin);
    const hold = new Hold(t, 100);
    const command = new Command([origin, replica, '--json'], { hold });
    await hold.reached(command);
    await writer.exec("BEGIN IMMEDIATE; INSERT INTO item (label) VALUES ('meanwhile'); COMMIT");
    await writer.exec('PRAGMA wal_checkpoint(PASSIVE)');
    hold.release();
    const { status, stdout } = await command.done;
    assert.equal(status, 0, stdout);
    assert.ok(Number(jsonLines(stdout).at(-1)?.['walGrowthBytes']) > 0, stdout);
    assert.deepEqual(column(replica, "SELECT count(*) FROM item WHERE label = 'meanwhile'"), [0]);
    await writer.call('close');
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  test('an origin that lost its agent in mid-transfer leaves the replica as it was', async (t) => {
    const { origin, replica } = place(t);
    await syncHere({ origin, replica });
    change(origin, 'UPDATE item SET amount = -1');
    const before = sha256File(replica);
    const hold = new Hold(t, 100);
    const command = new Command([origin, replica], { hold });
    await hold.reached(command);
    const [agent] = command.children();
    process.kill(agent as number, 'SIGKILL');
    const { status, stderr } = await command.done;
    assert.match(stderr, /\[CONNECTION_LOST\]/);
    assert.match(stderr, /SIGKILL/);
    assert.equal(status, 15);
    assert.equal(sha256File(replica), before);
  });

  test('an origin that is silent for longer than --timeout is TIMEOUT', async (t) => {
    const { origin, replica } = place(t);
    const hold = new Hold(t, 100);
    const command = new Command([origin, replica, '--timeout', '0.5'], { hold });
    await hold.reached(command);
    const agents = command.children();
    const { status, stderr } = await command.done;
    assert.match(stderr, /\[TIMEOUT\]/);
    assert.equal(status, 16);
    assert.equal(existsSync(replica), false);
    await untilGone(agents);
  });
});

/** Leaves at `origin` a database with changes in its -wal and without -shm, as a backup of the files has it. */
async function leaveWal(t: TestContext, origin: string, folder: string): Promise<void> {
  const busy = join(folder, 'busy');
  mkdirSync(busy);
  const source = join(busy, 'origin.db');
  copyFileSync(origin, source);
  const writer = await openWriter(t, source);
  await writer.exec("INSERT INTO item (label) VALUES ('only in the WAL')");
  copyFileSync(`${source}-wal`, `${origin}-wal`);
  chmodSync(`${origin}-wal`, 0o644);
  await writer.call('close');
  assert.ok(names(folder).length > 0);
}

function statFiles(folder: string): string[] {
  return ['origin.db', 'origin.db-wal', 'origin.db-shm'].filter((name) => existsSync(join(folder, name)));
}
