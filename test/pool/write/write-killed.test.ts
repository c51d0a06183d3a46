import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { SqlsyncError } from '../../../src/errors.ts';
import { systemErrorCode } from '../../../src/errors.ts';
import { openDatabase } from '../../../src/pool/database.ts';
import { nextTurn } from '../../../src/pool/event-loop.ts';
import type { Database } from '../../../src/pool/types.ts';
import { tempDir } from '../../support/compare.ts';
import { OtherProcess } from '../../support/other-process.ts';

const CHILD = fileURLToPath(new URL('writing-child.ts', import.meta.url));

async function openLog(t: TestContext): Promise<Database> {
  const db = await openDatabase(join(tempDir(t), 'a.db'), { busyTimeoutMs: 20_000 });
  t.after(() => db.close());
  await db.write.exec(`
    CREATE TABLE log (writer TEXT, number INTEGER);
    CREATE TABLE total (n INTEGER);
    INSERT INTO total VALUES (0)`);
  return db;
}

/** A process that writes until it is killed. */
class WritingProcess {
  readonly name: string;
  readonly acknowledged: string[] = [];
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  #onLine: () => void = () => undefined;

  constructor(t: TestContext, path: string, name: string, mode: 'count' | 'hold') {
    this.name = name;
    this.#child = spawn(process.execPath, [CHILD, path, name, mode], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const { stdout } = this.#child;
    assert.ok(stdout !== null);
    // The pipe's end comes after the last of its messages.
    const lines = createInterface(stdout);
    this.#closed = once(lines, 'close');
    lines.on('line', (line) => {
      this.acknowledged.push(line);
      this.#onLine();
    });
    t.after(() => this.kill());
  }

  async hasSaid(lines: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#onLine = () => this.acknowledged.length >= lines && resolve();
    this.#child.once('exit', () => reject(new Error(`${this.name} ended by itself`)));
    this.#onLine();
    await promise;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#closed;
  }
}

describe('a writer that is killed', () => {
  test('a writer killed within a transaction leaves nothing of it, and those who wait for its place go on', async (t) => {
    const db = await openLog(t);
    const holder = new WritingProcess(t, db.path, 'holder', 'hold');
    await holder.hasSaid(1);
    const neighbour = new WritingProcess(t, db.path, 'neighbour', 'count');
    const own = db.write.run(`INSERT INTO log VALUES ('own', 0)`);
    await holder.kill();
    await own;
    await neighbour.hasSaid(3);
    await neighbour.kill();
    const writers = await db.read.all('SELECT DISTINCT writer FROM log ORDER BY writer');
    assert.deepEqual(writers, [{ writer: 'neighbour' }, { writer: 'own' }]);
  });

  test('a writer killed at any moment loses no acknowledged write and doubles none, while others go on', async (t) => {
    const db = await openLog(t);
    const { path } = db;
    const children = [0, 1, 2].map((n) => new WritingProcess(t, path, `child ${n}`, 'count'));
    let own = 0;
    let isOver = false;
    const writing = (async () => {
      while (!isOver) {
        await db.write.transaction(async (tx) => {
          await tx.run('INSERT INTO log VALUES (?, ?)', ['own', own]);
          await nextTurn();
          await tx.run('UPDATE total SET n = n + 1');
        });
        own += 1;
      }
    })();
    for (const [n, child] of children.entries()) {
      await child.hasSaid(20 * (n + 1));
      await child.kill();
    }
    isOver = true;
    await writing;

    for (const { name, acknowledged } of children) {
      const rows = await db.read.all<{ number: number }>(
        'SELECT number FROM log WHERE writer = ? ORDER BY rowid',
        [name],
      );
      const numbers = rows.map(({ number }) => number);
      assert.deepEqual(numbers, [...numbers.keys()], `${name}: each once, in order`);
      // The last write may be committed before its message came.
      const unsaid = numbers.length - acknowledged.length;
      assert.ok(unsaid === 0 || unsaid === 1, `${name}: ${numbers.length} rows, ${acknowledged.length} said`);
    }
    const [counted] = await db.read.all('SELECT count(*) AS n FROM log');
    assert.deepEqual(await db.read.all('SELECT n FROM total'), [counted]);
    assert.deepEqual(await db.read.all(`SELECT count(*) AS n FROM log WHERE writer = 'own'`), [{ n: own }]);
  });
});

/** Large enough that its recovery takes some hundredths of a second. */
const WAL_ROWS = 8000;

describe('a WAL that has to be recovered', { skip: process.platform !== 'linux' && 'needs /proc' }, () => {
  test('recovery of a WAL by another process makes opening wait, as SQLITE_BUSY_RECOVERY, and nothing is missing then', async (t) => {
    const path = join(tempDir(t), 'a.db');
    const killed = new OtherProcess(t);
    const writer = await killed.open(path);
    await writer.exec(`
      PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF;
      CREATE TABLE t (x);
      WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${WAL_ROWS})
      INSERT INTO t SELECT randomblob(8000) FROM n`);
    await killed.end();

    const recoverer = await stoppedInRecovery(t, path);
    const refused = (await openDatabase(path, { busyTimeoutMs: 30 }).catch((error) => error)) as SqlsyncError;
    assert.equal(refused.code, 'BUSY_TIMEOUT');
    assert.equal(systemErrorCode(refused.cause), 'SQLITE_BUSY_RECOVERY');
    const opening = openDatabase(path, { busyTimeoutMs: 20_000 });
    await recoverer.end();
    const db = await opening;
    t.after(() => db.close());
    assert.deepEqual(await db.read.get('SELECT count(*) AS n FROM t'), { n: WAL_ROWS });
  });

  test('recovery of a WAL by another process makes the first read wait, and no SQLITE_BUSY_RECOVERY reaches it', async (t) => {
    const path = join(tempDir(t), 'a.db');
    const db = await openDatabase(path, { walLimitBytes: 2 ** 40, admission: 'none' });
    t.after(() => db.close());
    await db.write.all('PRAGMA wal_autocheckpoint = 0');
    await db.write.exec(`
      CREATE TABLE t (x);
      WITH n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${WAL_ROWS})
      INSERT INTO t SELECT randomblob(8000) FROM n`);

    const recoverer = await stoppedInRecovery(t, path, () => spoilWalIndex(path));
    await assert.rejects(db.read.get('SELECT 1 FROM t', [], { deadlineMs: 30 }), (error: SqlsyncError) => {
      assert.deepEqual([error.code, systemErrorCode(error.cause)], ['READ_TIMEOUT', 'SQLITE_BUSY_RECOVERY']);
      return true;
    });
    const reads = [
      db.read.get('SELECT count(*) AS n FROM t', [], { deadlineMs: 20_000 }),
      db.read.snapshot((r) => r.get('SELECT count(*) AS n FROM t'), { deadlineMs: 20_000 }),
    ];
    await recoverer.end();
    assert.deepEqual(await Promise.all(reads), [{ n: WAL_ROWS }, { n: WAL_ROWS }]);
  });
});

/**
 * The WAL of a writer that is killed while it writes the header. Another process makes it, because of its
 * POSIX locks.
 */
function spoilWalIndex(path: string): void {
  const program = `fs.writeSync(fs.openSync(process.argv[1], 'r+'), Buffer.alloc(48, 1), 0, 48, 0)`;
  execFileSync(process.execPath, ['-e', program, `${path}-shm`]);
}

/** A process that is stopped (SIGSTOP) while it recovers the WAL and holds the locks for that. */
async function stoppedInRecovery(
  t: TestContext,
  path: string,
  prepare: () => void = () => undefined,
): Promise<OtherProcess> {
  for (let attempt = 0; attempt < 50; attempt += 1) {
    prepare();
    const recoverer = new OtherProcess(t);
    const connection = await recoverer.open(path);
    let isOver = false;
    // It ends by a kill.
    const reading = connection.rows('SELECT count(*) FROM t').then(
      () => (isOver = true),
      () => (isOver = true),
    );
    while (!isOver && !isRecovering(path, recoverer.pid)) await nextTurn();
    process.kill(recoverer.pid, 'SIGSTOP');
    while (!isOver && !isStopped(recoverer.pid)) await nextTurn();
    if (isRecovering(path, recoverer.pid)) return recoverer;
    await recoverer.end();
    await reading;
  }
  throw new Error('the recovery was over each time before it could be stopped');
}

/** This byte of the -shm file is SQLite's lock for recovery (wal.c: WAL_RECOVER_LOCK). */
const RECOVER_LOCK_BYTE = 122;

function isRecovering(path: string, pid: number): boolean {
  const inode = statSync(`${path}-shm`, { throwIfNoEntry: false })?.ino;
  if (inode === undefined) return false;
  const locks = readFileSync('/proc/locks', 'utf8').matchAll(
    /POSIX +\w+ +WRITE +(\d+) +[\da-f]+:[\da-f]+:(\d+) (\d+) (\d+)/g,
  );
  return [...locks].some(
    ([, owner, file, from, to]) =>
      Number(owner) === pid &&
      Number(file) === inode &&
      Number(from) <= RECOVER_LOCK_BYTE &&
      Number(to) >= RECOVER_LOCK_BYTE,
  );
}

function isStopped(pid: number): boolean {
  return /^State:\s+T/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}
