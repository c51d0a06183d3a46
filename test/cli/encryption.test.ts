import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { assertRefused, Command, sqlsync, summaryOf } from './command.ts';
import type { CommandOptions, Run, Summary } from './command.ts';

const SECRET = 'unmistakable-password-7f3a';
/** In the database, and in nothing that sqlsync writes elsewhere than to a database. */
const CONTENT = 'unmistakable-content-91c4';

describe('the commands on an encrypted store', () => {
  test('every command works on an encrypted store, and leaves no secret anywhere', async (t) => {
    const { folder, run, options } = here(t);
    const outputs: string[] = [];
    const say = async (status: number, ...args: string[]): Promise<Run> => {
      const ran = await sqlsync(args, options);
      assert.equal(ran.status, status, `${args.join(' ')}: ${ran.stdout}${ran.stderr}`);
      outputs.push(ran.stderr);
      return ran;
    };
    const origin = join(folder, 'a.db');
    await say(0, 'init', 'store', '--encrypt', '--grace', '0', '-v');
    await say(0, 'backup', 'a.db', 'store', '--verify', '-v');
    cpSync(origin, join(folder, 'first.db'));
    change(origin, 'UPDATE item SET amount = -1 WHERE id % 7 = 0');
    await say(0, 'backup', 'a.db', 'store', '-v');
    change(origin, 'DELETE FROM item WHERE id % 3 = 0');
    await say(0, 'backup', 'a.db', 'store', '--skip-if-unchanged');
    const ids = ((await run('snapshots', 'store'))['snapshots'] as { id: string }[]).map(({ id }) => id);
    assert.equal(ids.length, 3);
    await say(0, 'restore', `store#${ids[0]}`, 'back.db');
    assertReplicaOf(join(folder, 'first.db'), join(folder, 'back.db'));
    await say(0, 'restore', 'store', 'back.db', '--overwrite');
    assertReplicaOf(origin, join(folder, 'back.db'));
    const { stdout } = await sqlsync(['restore', `store#${ids[0]}`, '-'], options);
    assert.ok(stdout.startsWith('SQLite format 3'));
    await say(0, 'verify', 'store', 'a.db');
    await say(0, 'diff', `store#${ids[0]}`, '#latest');
    assert.match((await say(0, 'dump', 'store', 'note')).stdout, new RegExp(CONTENT));
    const shown = await say(0, 'open', 'store', '--exec', `sh ${join(folder, 'processes.sh')}`);
    assert.match(shown.stdout, /sqlsync\.js/);
    outputs.push(shown.stdout);
    await say(0, 'stats', 'store');
    await say(0, 'forget', 'store', ids[1] as string, '--prune');
    await say(0, 'prune', 'store', '--max-unused', '0%');
    await say(0, 'check', 'store', '--read-data');
    await say(0, 'restore', 'store', 'back.db', '--overwrite');
    assertReplicaOf(origin, join(folder, 'back.db'));

    rmSync(join(folder, 'store', 'config'));
    await say(0, 'repair', 'store');
    const [index = ''] = readdirSync(join(folder, 'store', 'indexes'));
    rmSync(join(folder, 'store', 'indexes', index));
    await say(0, 'repair', 'store', '--dry-run');
    await say(0, 'repair', 'store', '--read-data');
    await say(0, 'check', 'store', '--read-data');

    writeFileSync(join(folder, 'wrong'), 'another\n');
    await say(27, 'snapshots', 'store', '--password-file', 'wrong');
    await say(27, 'snapshots', 'store', '--password-command', 'cat password; exit 3');
    for (const text of outputs) assert.ok(!text.includes(SECRET), text);
    for (const path of filesBelow(folder)) {
      const bytes = readFileSync(path);
      if (!path.endsWith('password')) assert.ok(!bytes.includes(SECRET), `${path} has the password`);
      if (!/\.db(-\w+)?$/.test(path)) assert.ok(!bytes.includes(CONTENT), `${path} has content`);
    }
    for (const name of ['hashes', 'blocks']) {
      const cached = filesBelow(join(folder, 'cache', 'sqlsync', name));
      assert.ok(cached.length > 0, name);
      for (const path of cached) assert.equal(readFileSync(path).toString('latin1', 0, 8), 'SQLSYNE2', path);
    }
    assert.deepEqual(readdirSync(join(folder, 'tmp')), []);
    assert.equal(readdirSync(join(folder, 'store')).includes('cache'), false);
  });

  test('snapshots are copied between stores that are not encrypted, and stores with other keys', async (t) => {
    const { folder, run, options } = here(t);
    const plain = { ...options, env: { ...options.env, SQLSYNC_PASSWORD_FILE: '' } };
    writeFileSync(join(folder, 'other'), 'two\n');
    const to = ['--password-file', 'other'];
    const from = ['--from-password-file', 'password'];
    await summaryOf(['init', 'plain'], plain);
    await summaryOf(['backup', 'a.db', 'plain'], plain);
    await run('init', 'first', '--encrypt');
    await run('init', 'second', '--encrypt', ...to);
    assert.equal(((await run('copy', 'plain', 'first'))['copied'] as unknown[]).length, 1);
    await run('copy', 'first', 'second', ...to, ...from);
    await summaryOf(['init', 'again'], plain);
    await assertRefused(
      ['copy', 'second', 'again', ...to],
      { code: 'STORE_PASSWORD', status: 27, says: /NOT encrypted/ },
      plain,
    );
    const inTheClear = ['copy', 'second', 'again', '--from-password-file', 'other'];
    const usage = { code: 'USAGE', status: 2, says: /is encrypted, and .* is NOT/ } as const;
    await assertRefused(inTheClear, usage, plain);
    await assertRefused([...inTheClear, '--dry-run'], usage, plain);
    await summaryOf([...inTheClear, '--plain'], plain);
    await summaryOf(['restore', 'again', 'back.db'], plain);
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
    await run('check', 'second', '--read-data', ...to);
  });

  test('a password that is changed or added by a killed command opens the store, or the old one does', async (t) => {
    const { folder, run, options } = here(t);
    writeFileSync(join(folder, 'next'), 'next\n');
    await run('init', 'made', '--encrypt');
    for (const action of ['passwd', 'add'])
      for (const afterMs of [0, 150, 300, 450, 600, 750]) {
        rmSync(join(folder, 'store'), { recursive: true, force: true });
        cpSync(join(folder, 'made'), join(folder, 'store'), { recursive: true });
        const more = ['--accept-new-store', '--new-password-file', 'next'];
        const command = new Command(['key', action, 'store', ...more], options);
        await delay(afterMs);
        command.child.kill('SIGKILL');
        await command.done;
        const opens = await Promise.all(
          ['password', 'next'].map((file) =>
            sqlsync(['snapshots', 'store', '--password-file', file], options),
          ),
        );
        assert.ok(
          opens.some(({ status }) => status === 0),
          `${action} after ${afterMs} ms: ${opens.map(({ stderr }) => stderr).join('\n')}`,
        );
      }
  });
});

describe('another store in the place of an encrypted one', () => {
  test('a store that is not encrypted, or has another id, is refused until it is accepted', async (t) => {
    const { folder, run, options } = here(t);
    const plain = { ...options, env: { ...options.env, SQLSYNC_PASSWORD_FILE: '' } };
    await run('init', 'store', '--encrypt');
    await run('init', 'other', '--encrypt');
    cpSync(join(folder, 'store'), join(folder, 'first'), { recursive: true });
    await summaryOf(['init', 'plain'], plain);
    const place = (name: string): void => {
      rmSync(join(folder, 'store'), { recursive: true });
      cpSync(join(folder, name), join(folder, 'store'), { recursive: true });
    };
    const changed = { code: 'STORE_CHANGED', status: 28, says: /there was the encrypted store/ } as const;
    const files = filesBelow(join(folder, 'plain')).length;
    place('plain');
    for (const args of [
      ['backup', 'a.db', 'store'],
      ['snapshots', 'store'],
      ['repair', 'store'],
      ['prune', 'store'],
    ])
      await assertRefused(args, { ...changed, says: /NOT encrypted/ }, plain);
    assert.equal(filesBelow(join(folder, 'store')).length, files);
    place('other');
    await assertRefused(['backup', 'a.db', 'store'], { ...changed, says: /another store/ }, options);
    writeFileSync(join(folder, 'wrong'), 'wrong\n');
    const accept = ['snapshots', 'store', '--accept-new-store'];
    const { status } = await sqlsync([...accept, '--password-file', 'wrong'], options);
    assert.equal(status, 27);
    await run('prune', 'store', '--dry-run', '--accept-new-store');
    await assertRefused(['snapshots', 'store'], { ...changed, says: /another store/ }, options);
    await run('backup', 'a.db', 'store', '--accept-new-store');
    await run('backup', 'a.db', 'store');
    place('first');
    await assertRefused(['snapshots', 'store'], { ...changed, says: /another store/ }, options);
    rmSync(join(folder, 'store'), { recursive: true });
    await assertRefused(
      ['init', 'store'],
      { code: 'STORE_CHANGED', status: 28, says: /expected --encrypt, or --plain/ },
      plain,
    );
    await summaryOf(['init', 'store', '--plain'], plain);
    await summaryOf(['backup', 'a.db', 'store'], plain);
  });

  test('an older state of a store is noticed, but neither a forgotten snapshot nor a newer state', async (t) => {
    const { folder, run, options } = here(t);
    const warned = async (...args: string[]): Promise<boolean> => {
      const { status, stderr } = await sqlsync(args, options);
      assert.equal(status, 0, stderr);
      return stderr.includes('an older state of the store was put in its place');
    };
    await run('init', 'store', '--encrypt');
    await run('backup', 'a.db', 'store');
    cpSync(join(folder, 'store'), join(folder, 'older'), { recursive: true });
    await run('backup', 'a.db', 'store');
    renameSync(join(folder, 'store'), join(folder, 'newer'));
    cpSync(join(folder, 'older'), join(folder, 'store'), { recursive: true });
    assert.equal(await warned('snapshots', 'store'), true);
    assert.equal(await warned('backup', 'a.db', 'store', '-q'), true);
    assert.equal(await warned('backup', 'a.db', 'store', '-q'), true);
    await assertRefused(
      ['prune', 'store'],
      { code: 'STORE_CHANGED', status: 28, says: /an older state/ },
      options,
    );
    rmSync(join(folder, 'store'), { recursive: true });
    cpSync(join(folder, 'older'), join(folder, 'store'), { recursive: true });
    assert.equal(await warned('snapshots', 'store', '--accept-new-store'), false);
    assert.equal(await warned('snapshots', 'store'), false);
    rmSync(join(folder, 'store'), { recursive: true });
    renameSync(join(folder, 'newer'), join(folder, 'store'));
    const all = (await run('snapshots', 'store'))['snapshots'] as { id: string }[];
    await run('forget', 'store', all.at(-1)?.id ?? '');
    assert.equal(await warned('snapshots', 'store'), false);
  });

  test('a repair writes no config without encryption where an encrypted store was', async (t) => {
    const { folder, run, options } = here(t);
    const plain = { ...options, env: { ...options.env, SQLSYNC_PASSWORD_FILE: '' } };
    await run('init', 'store', '--encrypt');
    await summaryOf(['init', 'plain'], plain);
    await summaryOf(['backup', 'a.db', 'plain'], plain);
    rmSync(join(folder, 'store'), { recursive: true });
    cpSync(join(folder, 'plain'), join(folder, 'store'), { recursive: true });
    rmSync(join(folder, 'store', 'config'));
    for (const each of [plain, options]) {
      const { status } = await sqlsync(['repair', 'store'], each);
      assert.notEqual(status, 0);
      assert.equal(readdirSync(join(folder, 'store')).includes('config'), false);
    }
    await run('init', 'other', '--encrypt');
    cpSync(join(folder, 'other', 'keys'), join(folder, 'plain', 'keys'), { recursive: true });
    const lost = join(folder, 'plain', 'config');
    const config = readFileSync(lost);
    rmSync(lost);
    const [key = ''] = readdirSync(join(folder, 'plain', 'keys'));
    const says = new RegExp(`keys/${key} says that the store is encrypted`);
    for (const each of [plain, options])
      await assertRefused(['repair', 'plain'], { code: 'STORE_NOT_FOUND', status: 18, says }, each);
    writeFileSync(lost, config.subarray(0, config.length - 5));
    await assertRefused(['repair', 'plain'], { code: 'STORE_DAMAGED', status: 19, says }, plain);
    rmSync(join(folder, 'store'), { recursive: true });
    cpSync(join(folder, 'other'), join(folder, 'store'), { recursive: true });
    rmSync(join(folder, 'store', 'config'));
    const { status } = await sqlsync(['repair', 'store'], options);
    assert.notEqual(status, 0);
    assert.equal(readdirSync(join(folder, 'store')).includes('config'), false);
  });
});

describe('the word on encryption at init', () => {
  test('a password without --encrypt, and both words, are usage errors', async (t) => {
    const { options } = here(t);
    const usage = { code: 'USAGE', status: 2 } as const;
    await assertRefused(['init', 'store'], { ...usage, says: /not --encrypt/ }, options);
    await assertRefused(['init', 'store', '--encrypt', '--plain'], { ...usage, says: /exclude/ }, options);
    await assertRefused(
      ['init', 'store', '--encrypt', '--password-file', 'password', '--password-command', 'cat password'],
      { ...usage, says: /exclude/ },
      options,
    );
  });

  test('a password file that is missing, empty, has two lines or is not UTF-8 is refused', async (t) => {
    const { folder, options } = here(t);
    writeFileSync(join(folder, 'empty'), '\n');
    writeFileSync(join(folder, 'two'), 'a\nb\n');
    writeFileSync(join(folder, 'binary'), Buffer.from([0xff, 0xfe, 0x80, 0x0a]));
    for (const [file, says] of [
      ['none', /cannot be read/],
      ['empty', /has no password/],
      ['two', /more than one line/],
      ['binary', /is not UTF-8/],
    ] as const)
      await assertRefused(
        ['init', 'store', '--encrypt', '--password-file', file],
        { code: 'STORE_PASSWORD', status: 27, says },
        options,
      );
    assert.equal(readdirSync(folder).includes('store'), false);
  });
});

describe('a password that another program gives', () => {
  test('comes through a pipe, whose writer may come later', async (t) => {
    const { folder, run, options } = here(t);
    await run('init', 'store', '--encrypt');
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    const opening = sqlsync(['snapshots', 'store', '--password-file', 'pipe'], options);
    await delay(300);
    const writing = promisify(execFile)('/bin/sh', ['-c', 'cat password > pipe'], { cwd: folder });
    const { status, stderr } = await opening;
    await writing;
    assert.equal(status, 0, stderr);
  });

  test('is no password if it has no end: neither a file nor a command fills the memory', async (t) => {
    const { run, options } = here(t);
    await run('init', 'store', '--encrypt');
    for (const [args, says] of [
      [['--password-file', '/dev/zero'], /has 8193 bytes; expected 1 to 4096/],
      [['--password-command', 'yes'], /printed more than 8192 bytes/],
    ] as const)
      await assertRefused(
        ['snapshots', 'store', ...args],
        { code: 'STORE_PASSWORD', status: 27, says },
        options,
      );
  });

  test('is waited for no longer than the command runs: a signal ends the wait for a program or a pipe', async (t) => {
    const { folder, run, options } = here(t);
    await run('init', 'store', '--encrypt');
    execFileSync('mkfifo', [join(folder, 'pipe')]);
    // A writer that writes nothing.
    const holder = spawn('/bin/sh', ['-c', 'exec 3<> pipe; echo; read line'], { cwd: folder });
    t.after(() => holder.kill());
    await once(holder.stdout, 'data');
    for (const [args, isWaiting] of [
      [['--password-command', 'touch asked; exec sleep 1000'], () => existsSync(join(folder, 'asked'))],
      [['--password-file', 'pipe'], (pid: number) => hasOpen(pid, join(folder, 'pipe'))],
    ] as const) {
      const command = new Command(['snapshots', 'store', ...args], options);
      while (!isWaiting(command.child.pid ?? 0)) await delay(20);
      command.child.kill('SIGTERM');
      const { status, stderr } = await command.done;
      assert.equal(status, 130, `${args.join(' ')}: ${stderr}`);
    }
  });
});

interface Here {
  readonly folder: string;
  /** The password comes from the environment's file. */
  readonly options: CommandOptions & { readonly env: NodeJS.ProcessEnv };
  readonly run: (...args: string[]) => Promise<Summary>;
}

/** A folder with a.db, in which everything that sqlsync writes lies, and a password file. */
function here(t: TestContext): Here {
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'), { rows: 400 });
  change(join(folder, 'a.db'), `CREATE TABLE note (text); INSERT INTO note VALUES ('${CONTENT}')`);
  for (const name of ['tmp', 'cache', 'state']) mkdirSync(join(folder, name), { mode: 0o700 });
  writeFileSync(join(folder, 'password'), `${SECRET}\n`, { mode: 0o600 });
  const list = `for each in /proc/[0-9]*; do tr '\\0' ' ' < $each/cmdline; tr '\\0' '\\n' < $each/environ; done 2>/dev/null; true\n`;
  writeFileSync(join(folder, 'processes.sh'), list);
  const env = {
    SQLSYNC_SCRYPT_N: String(2 ** 15),
    SQLSYNC_PASSWORD_FILE: join(folder, 'password'),
    TMPDIR: join(folder, 'tmp'),
    XDG_CACHE_HOME: join(folder, 'cache'),
    XDG_STATE_HOME: join(folder, 'state'),
  };
  // A group of its own: no terminal to ask on.
  const options = { cwd: folder, env, detached: true };
  return { folder, options, run: (...args) => summaryOf(args, options) };
}

/** True if a process has a file open. */
function hasOpen(pid: number, path: string): boolean {
  const folder = `/proc/${pid}/fd`;
  return readdirSync(folder).some((name) => {
    try {
      return readlinkSync(join(folder, name)) === realpathSync(path);
    } catch {
      return false;
    }
  });
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}
