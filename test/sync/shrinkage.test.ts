import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { backup, sync } from '../../src/index.ts';
import { inspectOrigin } from '../../src/origin/origin-file.ts';
import { assertRefused, jsonLines, PROGRAM, sqlsync } from '../cli/command.ts';
import { change, column, largeDatabase, smallDatabase } from '../pages/databases.ts';
import { sha256File, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';

interface Scene {
  readonly app: string;
  readonly copy: string;
  readonly store: string;
}

/** A database of about 200 pages of 4 KiB, its copy and a store with one snapshot of it. */
async function scene(t: TestContext, journalMode: 'wal' | 'delete' = 'wal'): Promise<Scene> {
  const folder = tempDir(t);
  const [app, copy, store] = [join(folder, 'app.db'), join(folder, 'copy.db'), join(folder, 'store')];
  largeDatabase(app, 800_000, journalMode);
  for (const args of [
    ['-q', app, copy],
    ['init', '-q', store],
    ['backup', '-q', app, store],
  ]) {
    const { status, stderr } = await sqlsync(args);
    assert.equal(status, 0, stderr);
  }
  return { app, copy, store };
}

async function snapshotsIn(store: string): Promise<number> {
  const { stdout } = await sqlsync(['snapshots', store, '--json']);
  return (jsonLines(stdout).at(-1)?.['snapshots'] as unknown[] | undefined)?.length ?? 0;
}

describe('an origin of 0 bytes is not taken for an empty one', () => {
  for (const [mode, suffix] of [
    ['wal', '-wal'],
    ['delete', '-journal'],
  ] as const) {
    test(`an origin of 0 bytes is not taken for an empty one if ${suffix} beside it has content`, async (t) => {
      const { app, copy, store } = await scene(t, mode);
      const writer = new OtherProcess(t);
      const connection = await writer.open(app);
      if (mode === 'delete') await connection.exec('PRAGMA cache_size = 1; BEGIN');
      await connection.exec('UPDATE t SET x = randomblob(8000)');
      await writer.end();
      truncateSync(app, 0);
      assert.ok(statSync(app + suffix).size > 0);
      const [before, wal] = [sha256File(copy), readFileSync(app + suffix)];
      const refusal = {
        code: 'ORIGIN_UNREADABLE',
        status: 3,
        says: new RegExp(`app\\.db has 0 bytes, but .*app\\.db${suffix} has \\d+`),
      } as const;
      for (const args of [
        [app, copy],
        ['-n', app, copy],
        ['--max-shrink', '100', app, copy],
        [app, `${copy}.new`],
        ['verify', app, copy],
        ['backup', app, store, '--keep-last', '1'],
      ]) {
        await assertRefused(args, refusal);
      }
      assert.equal(sha256File(copy), before);
      assert.deepEqual(readFileSync(app + suffix), wal);
      assert.equal(await snapshotsIn(store), 1);
    });
  }

  test('an origin of 0 bytes is empty beside the journal of its first transaction', async (t) => {
    const folder = tempDir(t);
    const [app, copy] = [join(folder, 'app.db'), join(folder, 'copy.db')];
    const connection = await new OtherProcess(t).open(app);
    await connection.exec('PRAGMA cache_spill = 0; BEGIN; CREATE TABLE t (x)');
    assert.equal(statSync(app).size, 0);
    const { status, stderr } = await sqlsync(['-q', app, copy]);
    assert.equal(status, 0, stderr);
  });
});

for (const mode of ['delete', 'truncate']) {
  test(`journals of first transactions (${mode}) that come and go beside an origin of 0 bytes do not make it count as cut off`, async (t) => {
    const app = join(tempDir(t), 'app.db');
    writeFileSync(app, '');
    const writer = spawn(process.execPath, ['-e', FIRST_TRANSACTIONS, app, mode], {
      cwd: import.meta.dirname,
      stdio: 'inherit',
    });
    t.after(() => writer.kill('SIGKILL'));
    const states = new Set<boolean>();
    // Until the test has seen both, at least.
    for (let look = 0; look < 20_000 || states.size < 2; look++) {
      states.add((statSync(`${app}-journal`, { throwIfNoEntry: false })?.size ?? 0) > 0);
      assert.equal(inspectOrigin(app).file.stats.size, 0);
      if (look % 1000 === 0) await nextTurn();
    }
  });
}

/** Makes a journal and removes it again, for ever. */
const FIRST_TRANSACTIONS = `
  const database = require('better-sqlite3')(process.argv[1]);
  database.pragma('journal_mode = ' + process.argv[2]);
  for (;;) database.exec('BEGIN IMMEDIATE; ROLLBACK');`;

const SILENT = { status: 0, signal: null, stdout: '', stderr: '' };

describe('an origin that lost nearly everything', () => {
  const LOSSES = {
    'is empty': { sql: undefined, says: /The origin is empty, and the replica .* has \d+ pages/ },
    'has less than a tenth': {
      sql: 'DELETE FROM t WHERE id > 3; VACUUM',
      says: /The origin has \d+ pages, and the replica .* has \d+/,
    },
  };
  for (const [name, { sql, says }] of Object.entries(LOSSES)) {
    test(`an origin that ${name} is copied with a warning that -q does not hide`, async (t) => {
      const { app, copy } = await scene(t);
      const lose = (): void => {
        if (sql === undefined) writeFileSync(app, '');
        else change(app, sql);
      };
      lose();
      const [, before] = [sha256File(app), sha256File(copy)];
      await assertRefused(['--max-shrink', '50', '-q', app, copy], {
        code: 'ORIGIN_SHRUNK',
        status: 6,
        says,
      });
      await assert.rejects(sync({ origin: app, replica: copy, maxShrinkPercent: 89 }), {
        code: 'ORIGIN_SHRUNK',
      });
      assert.equal(sha256File(copy), before);
      const dry = await sqlsync(['-n', '-q', app, copy]);
      assert.match(dry.stderr, says);
      const { status, stderr } = await sqlsync(['-q', app, copy]);
      assert.equal(status, 0);
      assert.match(stderr, says);
      assert.match(stderr, /^warning: /);
      // In the next sync it is no news.
      assert.equal((await sqlsync(['-q', app, copy])).stderr, '');
    });
  }

  test('the far agent of a push refuses and warns of an origin that lost nearly everything as well', async (t) => {
    const { app, copy } = await scene(t);
    const shell = join(tempDir(t), 'shell');
    writeFileSync(shell, `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' agent\n`, { mode: 0o755 });
    const push = ['-q', app, `host:${copy}`, '--rsh', shell];
    change(app, 'DELETE FROM t WHERE id > 3; VACUUM');
    const before = sha256File(copy);
    const says =
      /The other side: The origin has \d+ pages, and the replica .* has \d+: more than 0 % of them/;
    const refusal = { code: 'ORIGIN_SHRUNK', status: 6, says } as const;
    await assertRefused([...push, '--max-shrink', '0'], refusal);
    assert.equal(sha256File(copy), before);
    const dry = await sqlsync([...push, '-n']);
    assert.equal(dry.status, 0);
    assert.match(dry.stderr, /^warning: .*The origin has \d+ pages, and the replica/);
    assert.deepEqual(await sqlsync([...push, '--max-shrink', '100']), SILENT);
    assert.ok((column(copy, 'SELECT count(*) FROM t')[0] as number) <= 3);
  });

  test('an origin that lost nearly everything is copied without a warning if that is allowed, or the loss is a common one', async (t) => {
    const { app, copy } = await scene(t);
    change(app, 'DELETE FROM t WHERE id > (SELECT max(id) FROM t) / 2; VACUUM');
    await assertRefused(['--max-shrink', '10', app, copy], {
      code: 'ORIGIN_SHRUNK',
      status: 6,
      says: /more than 10 %/,
    });
    assert.deepEqual(await sqlsync(['-q', app, copy]), { status: 0, signal: null, stdout: '', stderr: '' });
    change(app, 'DELETE FROM t; VACUUM');
    const allowed = await sqlsync(['-q', '--max-shrink', '100', app, copy]);
    assert.deepEqual(allowed, { status: 0, signal: null, stdout: '', stderr: '' });
    assert.deepEqual(column(copy, 'SELECT count(*) FROM t'), [0]);
  });

  test('a replica of another page size, or a small one, does not count as a loss', async (t) => {
    const folder = tempDir(t);
    const [app, copy] = [join(folder, 'app.db'), join(folder, 'copy.db')];
    smallDatabase(app, { rows: 250, pageSize: 1024, journalMode: 'delete' });
    await sqlsync(['-q', app, copy]);
    change(app, 'PRAGMA page_size = 16384; VACUUM');
    const { status, stderr } = await sqlsync(['--replace', '-q', app, copy]);
    assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
  });

  test('a backup of an origin that lost nearly everything forgets no earlier snapshot', async (t) => {
    const { app, store } = await scene(t);
    writeFileSync(app, '');
    const says = /The origin is empty, and its snapshot [0-9a-f]{8} has \d+ pages/;
    const args = ['backup', app, store, '--keep-last', '1', '-q'];
    await assertRefused([...args, '--max-shrink', '50'], { code: 'ORIGIN_SHRUNK', status: 6, says });
    await assert.rejects(backup({ origin: app, store, maxShrinkPercent: 0 }), { code: 'ORIGIN_SHRUNK' });
    assert.equal(await snapshotsIn(store), 1);
    const { status, stderr } = await sqlsync(args);
    assert.equal(status, 0, stderr);
    assert.match(stderr, says);
    assert.match(stderr, /No older snapshot of .*app\.db is forgotten this time/);
    assert.equal(await snapshotsIn(store), 2);
    // With the user's consent it forgets as usual.
    assert.equal((await sqlsync([...args, '--max-shrink', '100'])).stderr, '');
    assert.equal(await snapshotsIn(store), 1);
  });

  test('a shrunk origin and a limit that is no percentage have different errors', async () => {
    for (const value of ['101', '-1', 'half', '']) {
      await assertRefused([`--max-shrink=${value}`, 'a.db', 'b.db'], {
        code: 'USAGE',
        status: 2,
        says: /max-shrink/,
      });
    }
  });
});
