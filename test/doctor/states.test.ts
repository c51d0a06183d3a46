import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chownSync,
  copyFileSync,
  existsSync,
  linkSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { collectFacts } from '../../src/doctor/collect/collect.ts';
import { isFileWhole } from '../../src/doctor/collect/still.ts';
import { judge } from '../../src/doctor/judge/judge.ts';
import { change, damage, largeDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { findingOf, HOLDERS, holders, ids, LINUX, lookUntil, ofDatabase } from './holders.ts';

function database(t: TestContext, sql: string): string {
  const path = join(tempDir(t), 'a.db');
  change(path, sql);
  return path;
}

const WAL = 'PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)';
const ROLLBACK = 'CREATE TABLE t (x); INSERT INTO t VALUES (1)';

/** Runs `work` while `writer` commits one short transaction after another. */
async function whileWriting(writer: OtherConnection, work: () => Promise<void>): Promise<void> {
  const signal = { isOver: false };
  const writing = (async () => {
    while (!signal.isOver) await writer.exec('INSERT INTO t VALUES (1)');
  })();
  try {
    await work();
  } finally {
    signal.isOver = true;
    await writing;
  }
}

const found = async (path: string): Promise<ReturnType<typeof judge>> => judge(await collectFacts(path));

describe('doctor and the WAL', { skip: LINUX }, () => {
  test('doctor names the reader that pins the WAL, with the frame at which it began', async (t) => {
    const path = database(t, WAL);
    const other = new OtherProcess(t);
    const [writer, sleeper] = [await other.open(path), new OtherProcess(t)];
    await writer.exec('PRAGMA wal_autocheckpoint = 0; INSERT INTO t VALUES (2)');
    const reader = await sleeper.open(path);
    await reader.exec('BEGIN; SELECT count(*) FROM t');
    const before = (await collectFacts(path)).wal.state?.frames;
    for (let i = 0; i < 1100; i++) await writer.exec('INSERT INTO t VALUES (3)');
    const facts = await collectFacts(path);
    const { title } = findingOf(judge(facts), 'wal-pinned');
    assert.match(
      title,
      new RegExp(`^PID ${sleeper.pid} .*pins the WAL at frame ${before} of ${facts.wal.state?.frames}$`),
    );
    await writer.exec('PRAGMA wal_checkpoint');
    assert.equal((await collectFacts(path)).wal.state?.checkpointed, before, 'the checkpoint stops there');
    await reader.exec('COMMIT');
    await writer.exec('PRAGMA wal_checkpoint');
    assert.ok(!ids(await found(path)).includes('wal-pinned'));
  });

  test('doctor names the reader that pins the WAL while another program commits all the time', async (t) => {
    const path = database(t, WAL);
    const sleeper = new OtherProcess(t);
    const [writer, reader] = [await new OtherProcess(t).open(path), await sleeper.open(path)];
    await writer.exec('PRAGMA synchronous = OFF');
    await reader.exec('BEGIN; SELECT count(*) FROM t');
    for (let i = 0; i < 2100; i++) await writer.exec('INSERT INTO t VALUES (3)');
    await whileWriting(writer, async () => {
      let busy = 0;
      await lookUntil(path, (all, { wal }) => {
        if ((wal.state?.newCommits ?? 0) === 0) return false;
        assert.match(findingOf(all, 'wal-pinned').title, new RegExp(`^PID ${sleeper.pid} .*pins the WAL`));
        assert.ok(!ids(all).includes('wal-not-checkpointed'));
        return ++busy === 3;
      });
      process.kill(sleeper.pid, 'SIGSTOP');
      const stopped = await lookUntil(path, (all) => ids(all).includes('holder-stopped'));
      process.kill(sleeper.pid, 'SIGCONT');
      assert.match(
        findingOf(stopped.found, 'holder-stopped').title,
        new RegExp(`^PID ${sleeper.pid} .*READ`),
      );
    });
  });

  test('doctor names a writer in locking_mode EXCLUSIVE that commits all the time, with and without a -shm', async (t) => {
    for (const first of ['SELECT x FROM t', 'PRAGMA locking_mode = EXCLUSIVE']) {
      const path = database(t, WAL);
      const other = new OtherProcess(t);
      const writer = await other.open(path);
      await writer.exec(`${first}; PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES (2)`);
      await whileWriting(writer, async () => {
        const all = await found(path);
        assert.match(findingOf(all, 'exclusive').title, new RegExp(`^PID ${other.pid} `), first);
        assert.ok(!ids(all).includes('write-lock-held'), first);
      });
    }
  });

  test('doctor says that overlapping readers keep a checkpointed WAL from beginning anew', async (t) => {
    const path = database(t, WAL);
    const one = new OtherProcess(t);
    const [writer, reader] = [await new OtherProcess(t).open(path), await one.open(path)];
    await writer.exec('PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0');
    await writer.exec(
      'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 11000) INSERT INTO t SELECT zeroblob(3000) FROM n',
    );
    await reader.exec('BEGIN; SELECT count(*) FROM t');
    await writer.exec('PRAGMA wal_checkpoint; INSERT INTO t VALUES (3)');
    assert.match(
      findingOf(await found(path), 'wal-not-restarted').meaning,
      new RegExp(`PID ${one.pid} .*reads`),
    );
    await reader.exec('COMMIT');
    await writer.exec('PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES (3)');
    assert.ok(!ids(await found(path)).includes('wal-not-restarted'));
  });

  test('doctor says that no program checkpoints a WAL that no reader pins', async (t) => {
    const path = database(t, WAL);
    const writer = await new OtherProcess(t).open(path);
    await writer.exec('PRAGMA wal_autocheckpoint = 0');
    for (let i = 0; i < 2100; i++) await writer.exec('INSERT INTO t VALUES (3)');
    findingOf(await found(path), 'wal-not-checkpointed');
    await writer.exec('PRAGMA wal_checkpoint(TRUNCATE)');
    assert.ok(!ids(await found(path)).includes('wal-not-checkpointed'));
  });

  test('doctor takes no -shm that a killed process left for the state of the -wal', async (t) => {
    const path = database(t, WAL);
    const other = new OtherProcess(t);
    await (await other.open(path)).exec('INSERT INTO t VALUES (2); PRAGMA wal_checkpoint');
    assert.equal(isFileWhole(path), true, 'it is checkpointed');
    await other.end();
    assert.ok(existsSync(`${path}-shm`));
    assert.equal(isFileWhole(path), false);
  });

  test('doctor says what a killed writer left in the -wal, and its line mends it', async (t) => {
    const path = database(t, WAL);
    const other = new OtherProcess(t);
    await (await other.open(path)).exec('INSERT INTO t VALUES (2)');
    assert.ok(!ids(await found(path)).includes('wal-without-process'), 'the writer lives');
    await other.end();
    const { mend } = findingOf(await found(path), 'wal-without-process');
    if (HOLDERS['shell']?.skip !== false) return t.diagnostic('NOT TESTED: sqlite3 is not installed');
    execFileSync('sh', ['-c', mend]);
    assert.ok(!ids(await found(path)).includes('wal-without-process'));
  });

  test('doctor warns to open a database that was emptied beside the -wal of a killed writer', async (t) => {
    for (const content of ['', 'another program wrote this']) {
      const path = database(t, WAL);
      const other = new OtherProcess(t);
      await (await other.open(path)).exec('INSERT INTO t VALUES (2)');
      await other.end();
      writeFileSync(path, content);
      const { severity, mend } = findingOf(await found(path), 'emptied');
      assert.equal(severity, 'danger');
      assert.match(mend, /cp \S+-wal \S+-wal\.saved;/);
      assert.ok(existsSync(`${path}-wal`), 'doctor left it there');
    }
  });

  test('doctor finds a -wal beside a database in rollback mode', async (t) => {
    const path = database(t, ROLLBACK);
    writeFileSync(`${path}-wal`, Buffer.alloc(5000, 1));
    assert.ok(!ids(await found(path)).includes('wal-beside-rollback'), 'SQLite ignores it');
    const foreign = database(t, WAL);
    const other = new OtherProcess(t);
    await (await other.open(foreign)).exec('INSERT INTO t VALUES (2)');
    await other.end();
    copyFileSync(`${foreign}-wal`, `${path}-wal`);
    const facts = await collectFacts(path);
    const { severity } = findingOf(judge(facts), 'wal-beside-rollback');
    assert.equal(severity, facts.sight === 'all' ? 'danger' : 'advice');
  });

  test(
    'doctor finds a -wal that another user owns',
    { skip: process.getuid?.() === 0 ? false : 'NOT TESTED: only root can give a file away' },
    async (t) => {
      const path = database(t, WAL);
      await (await new OtherProcess(t).open(path)).exec('INSERT INTO t VALUES (2)');
      assert.ok(!ids(await found(path)).includes('foreign-wal'));
      chownSync(`${path}-wal`, 65534, 65534);
      assert.match(findingOf(await found(path), 'foreign-wal').mend, /^chown 0 \S+-wal$/);
    },
  );
});

describe('doctor and the journal', { skip: LINUX }, () => {
  test('doctor tells the journal of a killed writer from that of a living one, and its line mends it', async (t) => {
    const path = database(t, ROLLBACK);
    const other = new OtherProcess(t);
    const writer = await other.open(path);
    // The cache is too small for the transaction, so that the journal is synced and the file is changed.
    await writer.exec('PRAGMA cache_size = 1; BEGIN');
    await writer.exec(
      'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT randomblob(3000) FROM n',
    );
    const living = await collectFacts(path);
    assert.deepEqual([living.journal?.isUnfinished, living.journal?.isHot], [true, false]);
    assert.deepEqual(holders(living, 'EXCLUSIVE'), [other.pid]);
    await other.end();
    const killed = await collectFacts(path);
    const { severity, mend } = findingOf(judge(killed), 'hot-journal');
    assert.equal(severity, killed.sight === 'all' ? 'danger' : 'advice');
    if (HOLDERS['shell']?.skip !== false) return t.diagnostic('NOT TESTED: sqlite3 is not installed');
    execFileSync('sh', ['-c', mend.slice(mend.indexOf('sqlite3 '))]);
    assert.ok(!ids(await found(path)).includes('hot-journal'));
  });

  test('doctor takes no journal for hot while a program commits in each mode', async (t) => {
    for (const mode of ['delete', 'truncate', 'persist']) {
      const path = database(t, ROLLBACK);
      const writer = await new OtherProcess(t).open(path);
      await writer.exec(`PRAGMA journal_mode = ${mode}; PRAGMA synchronous = OFF`);
      const signal = { isOver: false };
      const writing = (async () => {
        while (!signal.isOver) await writer.exec('INSERT INTO t VALUES (1)');
      })();
      for (let look = 0; look < 4; look++) assert.ok(!ids(await found(path)).includes('hot-journal'), mode);
      signal.isOver = true;
      await writing;
    }
  });
});

describe('doctor and the names of a database', { skip: LINUX }, () => {
  test('doctor finds a process that has the database open by another name, with another -wal', async (t) => {
    const path = database(t, WAL);
    const alias = join(dirname(path), 'alias.db');
    linkSync(path, alias);
    const [right, wrong] = [new OtherProcess(t), new OtherProcess(t)];
    await (await right.open(path)).exec('INSERT INTO t VALUES (2)');
    await (await wrong.open(alias)).exec('SELECT x FROM t');
    const all = await found(path);
    assert.equal(findingOf(all, 'hard-links').severity, 'danger');
    const { title, mend } = findingOf(all, 'other-wal');
    assert.match(title, new RegExp(`^PID ${wrong.pid} `));
    assert.ok(mend.includes(alias));
    assert.equal(all.filter(({ id }) => id === 'other-wal').length, 1);
  });

  test('doctor finds a process that still has the file open which another one replaced', async (t) => {
    const path = database(t, ROLLBACK);
    const copy = join(dirname(path), 'copy.db');
    copyFileSync(path, copy);
    const other = new OtherProcess(t);
    await (await other.open(path)).exec('SELECT x FROM t');
    assert.ok(!ids(await found(path)).includes('deleted-file'));
    renameSync(copy, path);
    assert.match(findingOf(await found(path), 'deleted-file').title, new RegExp(`^PID ${other.pid} `));
  });
});

describe('doctor and the settings of a database', { skip: LINUX }, () => {
  test('doctor finds nothing wrong with a database that is as it should be, idle or in use', async (t) => {
    const path = database(t, WAL);
    assert.deepEqual(ofDatabase(await found(path)), []);
    await (await new OtherProcess(t).open(path)).exec('SELECT x FROM t');
    assert.deepEqual(ofDatabase(await found(path)), []);
    assert.deepEqual(ofDatabase(await found(database(t, ROLLBACK))), []);
    assert.deepEqual(ofDatabase(await found(database(t, ''))), [], 'a database of 0 bytes');
  });

  test('doctor finds small pages, auto_vacuum FULL, a memory map, and rollback mode with several processes', async (t) => {
    const path = database(t, `PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL; ${ROLLBACK}`);
    const [one, two] = [new OtherProcess(t), new OtherProcess(t)];
    await (await one.open(path)).exec('PRAGMA mmap_size = 1000000; SELECT x FROM t');
    await (await two.open(path)).exec('SELECT x FROM t');
    const all = await found(path);
    const expected = ['small-pages', 'auto-vacuum-full', 'rollback-shared', 'memory-mapped'];
    for (const id of expected) findingOf(all, id);
    assert.match(findingOf(all, 'memory-mapped').title, new RegExp(`^PID ${one.pid} `));
    if (HOLDERS['shell']?.skip !== false) return t.diagnostic('NOT TESTED: sqlite3 is not installed');
    await Promise.all([one.end(), two.end()]);
    for (const id of ['rollback-shared', 'small-pages']) execFileSync('sh', ['-c', findingOf(all, id).mend]);
    // The lines were those of the database in rollback mode.
    change(path, 'PRAGMA journal_mode = WAL');
    assert.deepEqual(
      ids(await found(path)).filter((id) => expected.includes(id)),
      ['auto-vacuum-full'],
    );
  });

  test('the line for small pages leaves a database in WAL mode', async (t) => {
    if (HOLDERS['shell']?.skip !== false) return t.skip('NOT TESTED: sqlite3 is not installed');
    const path = database(t, `PRAGMA page_size = 1024; ${WAL}`);
    execFileSync('sh', ['-c', findingOf(await found(path), 'small-pages').mend]);
    const { header } = await collectFacts(path);
    assert.deepEqual([header?.isWal, header?.pageSize], [true, 4096]);
  });

  test('doctor finds the last writer to be of a version that damages a WAL', async (t) => {
    const { start, skip } = HOLDERS['shell'] as (typeof HOLDERS)[string];
    if (skip !== false) return t.skip(skip);
    const version = execFileSync('sqlite3', ['--version'], { encoding: 'utf8' }).split(' ')[0] ?? '';
    const path = database(t, WAL);
    const shell = await start(t, path);
    // In WAL mode the header is only written if page 1 changes anyhow.
    await shell.run('CREATE TABLE u (x); PRAGMA wal_checkpoint(TRUNCATE)');
    const isOld = version.localeCompare('3.51.3', 'en', { numeric: true }) < 0;
    const titles = (await found(path)).filter(({ id }) => id === 'wal-reset-bug').map(({ title }) => title);
    assert.deepEqual(titles, isOld ? [`The last writer was SQLite ${version}, which can damage a WAL`] : []);
  });

  test('doctor finds that most of a file holds nothing', async (t) => {
    const path = join(tempDir(t), 'a.db');
    largeDatabase(path, 40e6);
    change(path, 'DELETE FROM t WHERE id % 4 <> 0');
    const { mend } = findingOf(await found(path), 'much-free');
    assert.match(mend, /VACUUM/);
  });
});

describe('doctor and the health of a database', { skip: LINUX }, () => {
  test('doctor finds a file that was cut off, no database, and a broken list of free pages, without reading all', async (t) => {
    const path = join(tempDir(t), 'a.db');
    largeDatabase(path, 4e6, 'delete');
    change(path, 'DELETE FROM t WHERE id > 100');
    assert.deepEqual(ofDatabase(await found(path)), []);
    const cut = `${path}.cut`;
    writeFileSync(cut, execFileSync('head', ['-c', '40960', path]));
    assert.match(findingOf(await found(cut), 'damaged').title, /it was cut off/);
    const text = `${path}.txt`;
    writeFileSync(text, 'This is no database.'.repeat(50));
    assert.equal(findingOf(await found(text), 'not-a-database').severity, 'danger');
    const encrypted = `${path}.enc`;
    writeFileSync(encrypted, randomBytes(8192));
    const advice = findingOf(await found(encrypted), 'not-a-database');
    assert.equal(advice.severity, 'advice');
    assert.doesNotMatch(advice.mend, /restore/);
    const trunk = execFileSync('od', ['-An', '-tu1', '-j32', '-N4', path], { encoding: 'utf8' })
      .trim()
      .split(/\s+/);
    const page = trunk.reduce((sum, byte) => sum * 256 + Number(byte), 0);
    damage(path, (page - 1) * 4096 + 8, Buffer.from('7fffffff', 'hex'));
    assert.match(findingOf(await found(path), 'damaged').title, /list of free pages has page 2147483647/);
  });

  test('doctor follows no list of free pages without an end, and says so', async (t) => {
    const path = database(t, `PRAGMA page_size = 512; ${ROLLBACK}`);
    const TRUNKS = 1100;
    const first = statSync(path).size / 512 + 1;
    const trunks = Buffer.alloc(512 * TRUNKS);
    for (let i = 0; i < TRUNKS - 1; i++) trunks.writeUInt32BE(first + i + 1, i * 512);
    damage(path, (first - 1) * 512, trunks);
    const numbers = Buffer.alloc(12);
    for (const [i, number] of [first - 1 + TRUNKS, first, TRUNKS].entries())
      numbers.writeUInt32BE(number, 4 * i);
    damage(path, 28, numbers);
    const { health } = await collectFacts(path);
    assert.deepEqual(health.problems, []);
    assert.match(health.unchecked ?? '', /more pages than a quick look follows/);
  });

  test('doctor says that it did not follow the list of free pages while the WAL has newer ones', async (t) => {
    const path = database(t, WAL);
    await (await new OtherProcess(t).open(path)).exec('INSERT INTO t VALUES (2)');
    assert.match((await collectFacts(path)).health.unchecked ?? '', /newer pages/);
  });

  test('doctor refuses a database that is missing, or a folder', async (t) => {
    const folder = tempDir(t);
    await assert.rejects(collectFacts(join(folder, 'none.db')), { code: 'ORIGIN_NOT_FOUND' });
    await assert.rejects(collectFacts(folder), { code: 'ORIGIN_NOT_A_DATABASE' });
    const path = database(t, ROLLBACK);
    const { mtimeMs } = statSync(path);
    await collectFacts(path);
    assert.equal(statSync(path).mtimeMs, mtimeMs);
    assert.ok(!existsSync(`${path}-journal`));
    rmSync(path);
  });
});
