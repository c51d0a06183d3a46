import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import type { SpawnOptions } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, linkSync, lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { openRaw } from '../../src/sqlite/binding.ts';
import { tryExclusiveLock } from '../../src/sqlite/locks/exclusive-lock.ts';
import { LockFileError } from '../../src/sqlite/locks/lock-file.ts';
import { NEEDS_ROOT, NOBODY } from '../cli/command.ts';
import { tempDir } from '../support/compare.ts';

const TAKER = join(import.meta.dirname, 'lock-taker.ts');

/** Ends with the test; resolves with its first line. */
async function taker(t: TestContext, args: readonly string[], options: SpawnOptions = {}): Promise<string> {
  const child = spawn(process.execPath, [TAKER, ...args], {
    ...options,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (said += text));
  const closed = once(child, 'close');
  await new Promise<void>((resolve) => {
    child.stdout?.on('data', () => said.includes('\n') && resolve());
    void closed.then(() => resolve());
  });
  return said.trim();
}

/** Checks that the lock is taken, keeps another process out, and leaves nothing. */
async function assertLocks(t: TestContext, path: string): Promise<void> {
  const lock = tryExclusiveLock(path);
  assert.ok(lock, 'the lock is free');
  assert.equal(lstatSync(path).size, 0, 'a lock file has no content');
  assert.equal(await taker(t, ['once', path]), 'busy');
  lock.release();
  const name = path.slice(path.lastIndexOf('/') + 1);
  assert.deepEqual(
    readdirSync(join(path, '..')).filter((entry) => entry.startsWith(name)),
    [],
  );
}

function database(path: string, journalMode: string): void {
  const made = openRaw(path);
  made.exec(`PRAGMA journal_mode = ${journalMode}; CREATE TABLE t (x); INSERT INTO t VALUES ('theirs')`);
  made.close();
}

describe('a file in the place of a lock file that this user may remove', () => {
  const content: Record<string, (path: string) => void> = {
    'a line of text': (path) => writeFileSync(path, 'pid 4711\n'),
    'many lines of text': (path) => writeFileSync(path, 'pid 4711 host a\n'.repeat(1000)),
    zeros: (path) => writeFileSync(path, new Uint8Array(8192)),
    'a database': (path) => database(path, 'DELETE'),
    'a database in WAL mode': (path) => database(path, 'WAL'),
    'half a database': (path) => {
      database(path, 'DELETE');
      writeFileSync(path, readFileSync(path).subarray(0, 700));
    },
    'an empty file with a -journal and a -wal': (path) => {
      writeFileSync(path, '');
      writeFileSync(`${path}-journal`, Buffer.from('d9d505f920a163d7'.padEnd(1024, '0'), 'hex'));
      writeFileSync(`${path}-wal`, 'no WAL');
    },
    'content that nobody may read or write': (path) => writeFileSync(path, 'x', { mode: 0 }),
    'nothing, in a file that nobody may write': (path) => writeFileSync(path, '', { mode: 0o444 }),
  };
  for (const [name, make] of Object.entries(content)) {
    test(`${name} in the place of a lock file is replaced`, async (t) => {
      const path = join(tempDir(t), 'lock');
      make(path);
      await assertLocks(t, path);
    });
    test(
      `${name} in the place of a lock file is replaced for a user who is not root`,
      { skip: NEEDS_ROOT },
      async (t) => {
        const folder = tempDir(t);
        chownSync(folder, NOBODY.uid, NOBODY.gid);
        const path = join(folder, 'lock');
        make(path);
        for (const entry of readdirSync(folder)) chownSync(join(folder, entry), NOBODY.uid, NOBODY.gid);
        assert.equal(await taker(t, ['hold', path], NOBODY), 'taken');
        assert.equal(await taker(t, ['once', path], NOBODY), 'busy');
        assert.equal(tryExclusiveLock(path), undefined, 'root is kept out too');
      },
    );
  }

  test('a second name of a database in the place of a lock file is replaced, and the database stays as it is', async (t) => {
    const folder = tempDir(t);
    for (const mode of ['DELETE', 'WAL']) {
      const theirs = join(folder, `${mode}.db`);
      database(theirs, mode);
      const before = readFileSync(theirs);
      linkSync(theirs, join(folder, 'lock'));
      await assertLocks(t, join(folder, 'lock'));
      assert.deepEqual(readFileSync(theirs), before);
    }
  });

  test('a second name of an empty file in the place of a lock file is replaced, and the file is not locked', async (t) => {
    const folder = tempDir(t);
    writeFileSync(join(folder, 'theirs.db'), '');
    linkSync(join(folder, 'theirs.db'), join(folder, 'lock'));
    const lock = tryExclusiveLock(join(folder, 'lock'));
    assert.ok(lock);
    database(join(folder, 'theirs.db'), 'DELETE');
    lock.release();
  });
});

test('content that another program has locked stays in the lock file', async (t) => {
  const path = join(tempDir(t), 'lock');
  database(path, 'DELETE');
  const other = openRaw(path);
  other.exec('BEGIN EXCLUSIVE');
  assert.equal(await taker(t, ['once', path]), 'busy');
  other.close();
  assert.equal(await taker(t, ['once', path]), 'taken');
});

test('many processes that mend a lock file at once hold it one after the other', async (t) => {
  const path = join(tempDir(t), 'lock');
  writeFileSync(path, 'garbage');
  const said = await Promise.all([1, 2, 3, 4].map(() => taker(t, ['storm', path, '40'])));
  assert.deepEqual(said, ['alone', 'alone', 'alone', 'alone']);
});

describe('a folder, a link or a pipe in the place of a lock file', () => {
  const made: Record<string, { make: (path: string) => void; says: RegExp }> = {
    'a folder': { make: (path) => mkdirSync(path), says: /lock is a folder/ },
    'a symbolic link': {
      make: (path) => symlinkSync('elsewhere', path),
      says: /lock is a symbolic link/,
    },
    'a named pipe': { make: (path) => execFileSync('mkfifo', [path]), says: /lock is a named pipe/ },
  };
  for (const [name, { make, says }] of Object.entries(made)) {
    test(`${name} in the place of a lock file is refused by its name, at once`, { timeout: 60_000 }, (t) => {
      const folder = tempDir(t);
      make(join(folder, 'lock'));
      assert.throws(
        () => tryExclusiveLock(join(folder, 'lock')),
        (error) => error instanceof LockFileError && says.test(error.message) && /remove/.test(error.hint),
      );
      assert.equal(existsSync(join(folder, 'elsewhere')), false);
    });
  }
});

describe("another user's lock file", { skip: NEEDS_ROOT }, () => {
  /** A lock file in a folder of the user nobody, left by root. */
  function left(t: TestContext, mode: number, content = ''): string {
    const folder = tempDir(t);
    chownSync(folder, NOBODY.uid, NOBODY.gid);
    const path = join(folder, 'lock');
    writeFileSync(path, content);
    chmodSync(path, mode);
    return path;
  }

  for (const [mode, content] of [
    [0o644, ''],
    [0o600, ''],
    [0o644, 'text'],
    [0o666, 'text'],
  ] as const) {
    test(`another user's lock file of mode ${mode.toString(8)} with ${content.length} bytes is named with its owner, and stays`, async (t) => {
      const path = left(t, mode, content);
      const said = await taker(t, ['once', path], NOBODY);
      assert.match(said, /lock belongs to root \(uid 0\) and cannot be locked/);
      assert.match(said, /\| .*remove the file: rm .*lock$/);
      assert.equal(readFileSync(path, 'utf8'), content);
    });
  }

  test("another user's lock file is busy while that user holds it", async (t) => {
    const path = left(t, 0o644);
    const lock = tryExclusiveLock(path);
    assert.ok(lock);
    assert.equal(await taker(t, ['once', path], NOBODY), 'busy');
    lock.release();
  });

  test("another user's lock file is locked like any other if all may write to it", async (t) => {
    const path = left(t, 0o666);
    assert.equal(await taker(t, ['hold', path], NOBODY), 'taken');
    assert.equal(tryExclusiveLock(path), undefined);
  });

  test("another user's lock file is locked also in a folder where only its owner may remove it", async (t) => {
    const path = left(t, 0o666);
    chownSync(join(path, '..'), 0, 0);
    chmodSync(join(path, '..'), 0o1777);
    assert.equal(await taker(t, ['hold', path], NOBODY), 'taken');
    assert.equal(tryExclusiveLock(path), undefined);
  });
});

test('a lock file on a read-only file system cannot be locked', { skip: NEEDS_ROOT }, (t) => {
  const folder = tempDir(t);
  const mount = (options: string): void =>
    void execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', folder], { stdio: 'ignore' });
  try {
    mount('size=64k');
  } catch {
    return t.skip('NOT TESTED: only who may mount can have a read-only file system');
  }
  try {
    writeFileSync(join(folder, 'lock'), '');
    mount('remount,ro');
    for (const name of ['lock', 'absent']) {
      assert.throws(
        () => tryExclusiveLock(join(folder, name)),
        (error) => error instanceof LockFileError && error.message.includes(join(folder, name)),
      );
    }
  } finally {
    execFileSync('umount', [folder]);
  }
});
