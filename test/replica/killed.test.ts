import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { assertRefused, folderState, sqlsync, summaryOf } from '../cli/command.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { syncHere } from '../support/sync.ts';
import { change, column, largeDatabase, names, smallDatabase } from '../pages/databases.ts';
import { countWrites, killAtWrite, sqlsyncWith } from './kill.ts';

interface Place {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
}

function place(t: TestContext): Place {
  const origin = join(tempDir(t), 'origin.db');
  smallDatabase(origin);
  const folder = tempDir(t);
  return { folder, origin, replica: join(folder, 'r.db') };
}

async function existing(t: TestContext): Promise<Place> {
  const here = place(t);
  await syncHere(here);
  change(here.replica, 'PRAGMA journal_mode = delete');
  change(here.origin, 'UPDATE item SET amount = -1');
  return here;
}

/** Numbers of writes, spread over all of them. */
function spread(count: number): number[] {
  return [0.1, 0.3, 0.5, 0.75, 1].map((part) => Math.max(1, Math.round(count * part)));
}

/** Leaves `path` in the middle of a transaction whose process was killed. */
async function leaveHotJournal(t: TestContext, path: string, sql: string): Promise<void> {
  const other = new OtherProcess(t);
  const writer = await other.open(path);
  await writer.exec(`PRAGMA cache_size = 5; BEGIN IMMEDIATE; ${sql}`);
  await other.end();
  assert.ok(statSync(`${path}-journal`).size > 0, 'the transaction was spilled into the file');
}

const FILL = `CREATE TABLE big (x);
  WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
  INSERT INTO big SELECT randomblob(4000) FROM n`;

describe('a sync that is killed', () => {
  test('a sync killed between its mark and its publication authorizes nothing, and the next one goes on', async (t) => {
    const { folder, origin, replica } = place(t);
    assert.equal((await sqlsyncWith('fs.linkSync = kill;', [origin, replica])).signal, 'SIGKILL');
    assert.ok(existsSync(join(folder, '.r.db.sqlsync')), 'the mark is there before the replica');
    smallDatabase(replica, { seed: 9, journalMode: 'delete' });
    const before = sha256File(replica);
    const expected = { code: 'REPLICA_NOT_MARKED', status: 6, says: /not made by sqlsync/ } as const;
    await assertRefused([origin, replica], expected);
    assert.equal(sha256File(replica), before);
    rmSync(replica);
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a sync killed just after its publication leaves nothing that the next run does not remove', async (t) => {
    const { folder, origin, replica } = place(t);
    const code = 'const link = fs.linkSync; fs.linkSync = (a, b) => { link(a, b); kill(); };';
    assert.equal((await sqlsyncWith(code, [origin, replica])).signal, 'SIGKILL');
    assert.ok(names(folder).includes('.r.db.sqlsync-part'));
    assert.equal((await summaryOf([origin, replica, '-n']))['outcome'], 'dryRun');
    assert.ok(names(folder).includes('.r.db.sqlsync-part'), 'a dry run removes nothing');
    assert.equal((await summaryOf([origin, replica]))['outcome'], 'unchanged');
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
    assertReplicaOf(origin, replica);
  });

  test('a sync killed while it writes its mark leaves a part of it that the next run removes', async (t) => {
    const { folder, origin, replica } = place(t);
    assert.equal((await sqlsyncWith('fs.renameSync = kill;', [origin, replica])).signal, 'SIGKILL');
    assert.match(names(folder).join(' '), /\.r\.db\.sqlsync\.\d+-[0-9a-f]{8}/);
    await syncHere({ origin, replica });
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('without hard links, the next sync goes on after one was killed or failed between its placeholder and the rename over it', async (t) => {
    for (const fate of ['kill()', "throw Object.assign(new Error('EIO'), { code: 'EIO' })"]) {
      const { folder, origin, replica } = place(t);
      const code = `
        fs.linkSync = () => { throw Object.assign(new Error('EPERM'), { code: 'EPERM' }); };
        const { renameSync } = fs;
        fs.renameSync = (from, to) => { if (from.endsWith('-part')) ${fate}; renameSync(from, to); };`;
      const { status, signal } = await sqlsyncWith(code, [origin, replica]);
      if (signal === null) {
        assert.equal(status, 4);
        assert.ok(!existsSync(replica), 'nothing takes the name of the replica');
      }
      await syncHere({ origin, replica });
      assertReplicaOf(origin, replica);
      assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
    }
  });

  test('a sync killed after its commit leaves a spool that a run without a difference removes', async (t) => {
    const { folder, origin, replica } = await existing(t);
    const code = `const rm = fs.rmSync; let spools = 0;
      fs.rmSync = (path, ...rest) => {
        if (String(path).endsWith('-spool') && ++spools === 2) kill();
        return rm(path, ...rest);
      };`;
    assert.equal((await sqlsyncWith(code, [origin, replica])).signal, 'SIGKILL');
    assert.ok(names(folder).includes('.r.db.sqlsync-spool'));
    assert.equal((await syncHere({ origin, replica })).outcomeName, 'unchanged');
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a sync killed at any write while it fills a file of 0 bytes is made good by the next one', async (t) => {
    const { folder, origin, replica } = place(t);
    writeFileSync(replica, '');
    const writes = countWrites(t, [origin, replica]);
    for (const number of spread(writes)) {
      for (const name of names(folder)) rmSync(join(folder, name));
      writeFileSync(replica, '');
      killAtWrite([origin, replica], number);
      await syncHere({ origin, replica });
      assertReplicaOf(origin, replica);
      assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db'], `killed at write ${number} of ${writes}`);
    }
  });

  for (const [where, code] of [
    ['before it is marked', "if (to.endsWith('.sqlsync')) kill(); rename(from, to);"],
    ['when it is marked', "rename(from, to); if (to.endsWith('.sqlsync')) kill();"],
  ] as const) {
    test(`a sync killed at the first --overwrite, ${where}, never leaves a copy that the next one refuses`, async (t) => {
      const { origin, replica } = place(t);
      smallDatabase(replica, { seed: 3, journalMode: 'delete' });
      const preload = `const rename = fs.renameSync; fs.renameSync = (from, to) => { ${code} };`;
      const { signal } = await sqlsyncWith(preload, [origin, replica, '--overwrite']);
      assert.equal(signal, 'SIGKILL');
      const total = 'SELECT sum(amount) FROM item';
      const isCopy = column(replica, total)[0] === column(origin, total)[0];
      const { status, stderr } = await sqlsync([origin, replica]);
      assert.ok(status === 0 || (!isCopy && /REPLICA_NOT_MARKED/.test(stderr)), stderr);
    });
  }

  test('a sync killed at any write while it replaces another page size is made good by the next one', async (t) => {
    const { folder, origin } = place(t);
    const narrow = join(tempDir(t), 'narrow.db');
    smallDatabase(narrow, { pageSize: 1024, seed: 2, journalMode: 'delete' });
    const fresh = async (replica: string): Promise<string> => {
      await syncHere({ origin: narrow, replica });
      return replica;
    };
    const args = (replica: string): string[] => [origin, replica, '--replace', '--overwrite'];
    const writes = countWrites(t, args(await fresh(join(folder, 'first.db'))));
    for (const number of spread(writes)) {
      const replica = await fresh(join(folder, `r${number}.db`));
      killAtWrite(args(replica), number);
      await syncHere({ origin, replica, replace: true, overwrite: true });
      assertReplicaOf(origin, replica);
      const left = names(folder).filter((name) => name.includes(`r${number}.db`));
      assert.deepEqual(left, [`.r${number}.db.sqlsync`, `r${number}.db`]);
    }
  });
});

describe('a journal beside a replica', () => {
  test('a journal of a file whose first transaction was killed leads back to 0 bytes, then to the origin', async (t) => {
    const { folder, origin, replica } = place(t);
    writeFileSync(replica, '');
    await leaveHotJournal(t, replica, FILL);
    assert.ok(statSync(replica).size > 0);
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
    assert.deepEqual(names(folder), ['.r.db.sqlsync', 'r.db']);
  });

  test('a dry run does not roll back a journal, says so and writes nothing', async (t) => {
    const { folder, origin, replica } = await existing(t);
    await leaveHotJournal(t, replica, FILL);
    const torn = join(folder, 'torn.db');
    writeFileSync(torn, '');
    await leaveHotJournal(t, torn, FILL);
    const before = folderState(folder);
    const hint = /without --dry-run/;
    const expected = { code: 'REPLICA_UNWRITABLE', status: 4, says: /hot journal/, hint } as const;
    await assertRefused([origin, replica, '-n'], expected);
    await assertRefused([origin, torn, '--overwrite', '-n'], expected);
    assert.deepEqual(folderState(folder), before);
    await syncHere({ origin, replica });
    assertReplicaOf(origin, replica);
  });

  test('a journal of a database that was cut to 0 bytes holds the only copy of its pages, and is kept', async (t) => {
    const { folder, origin, replica } = await existing(t);
    await leaveHotJournal(t, replica, `UPDATE attachment SET payload = zeroblob(8000); ${FILL}`);
    truncateSync(replica, 0);
    const before = folderState(folder);
    const expected = { code: 'REPLICA_LEFTOVER', status: 4, says: /has 0 bytes/ } as const;
    await assertRefused([origin, replica, '--overwrite'], expected);
    assert.deepEqual(folderState(folder), before);
  });

  for (const suffix of ['-wal', '-journal']) {
    test(`a file of 0 bytes beside a ${suffix} that is no transaction of it is refused and kept`, async (t) => {
      const { folder, origin, replica } = place(t);
      writeFileSync(replica, '');
      writeFileSync(replica + suffix, 'the only copy of something');
      const before = folderState(folder);
      const says = new RegExp(`has 0 bytes, but .*r\\.db${suffix} has not, with 26 bytes`);
      await assertRefused([origin, replica], { code: 'REPLICA_LEFTOVER', status: 4, says });
      await assertRefused([origin, replica, '-n'], { code: 'REPLICA_LEFTOVER', status: 4, says });
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('a journal that appears just after the publication is reported, and the replica stays', async (t) => {
    const { origin, replica } = place(t);
    const code = `const link = fs.linkSync;
      fs.linkSync = (a, b) => { link(a, b); fs.writeFileSync(b + '-journal', 'of another program'); };`;
    const { status, stderr, stdout } = await sqlsyncWith(code, [origin, replica]);
    assert.equal(status, 0, stderr);
    assert.match(stdout + stderr, /r\.db-journal appeared/);
    assert.equal(readFileSync(`${replica}-journal`, 'utf8'), 'of another program');
    rmSync(`${replica}-journal`);
    assertReplicaOf(origin, replica);
  });
});

test('a dry run of a new replica makes no file, not even for a moment', async (t) => {
  const { folder, origin, replica } = place(t);
  const before = statSync(folder).mtimeMs;
  assert.equal((await summaryOf([origin, replica, '-n']))['outcome'], 'dryRun');
  assert.equal(statSync(folder).mtimeMs, before);
});

test('a page of an existing replica that cannot be read is an error of the replica', async (t) => {
  const origin = join(tempDir(t), 'origin.db');
  largeDatabase(origin, 3e6);
  const replica = join(tempDir(t), 'r.db');
  await syncHere({ origin, replica });
  const code = `const read = fs.readSync;
    fs.readSync = (file, ...rest) => {
      if (rest[2] > 100 && fs.fstatSync(file).ino === ${statSync(replica).ino}) {
        throw Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO' });
      }
      return read(file, ...rest);
    };`;
  const { status, stderr } = await sqlsyncWith(code, [origin, replica]);
  assert.equal(status, 4, stderr);
  assert.match(stderr, /\[REPLICA_UNWRITABLE\]/);
});

test('SQLite reads every page if the system does not list descriptors', async (t) => {
  const { origin, replica } = await existing(t);
  const code = `const list = fs.readdirSync;
    fs.readdirSync = (path, ...rest) => {
      if (path === '/proc/self/fd') throw Object.assign(new Error('ENOENT'), { code: 'ENOENT' });
      return list(path, ...rest);
    };`;
  const { status, stderr } = await sqlsyncWith(code, [origin, replica]);
  assert.equal(status, 0, stderr);
  assertReplicaOf(origin, replica);
  renameSync(replica, `${replica}.old`);
  assert.equal((await sqlsyncWith(code, [origin, replica])).status, 0);
  assertReplicaOf(origin, replica);
});
