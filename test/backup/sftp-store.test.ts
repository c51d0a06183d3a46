import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { parseSftpAddress } from '../../src/backup/backends/sftp/address.ts';
import { Command, NEEDS_ROOT, PROGRAM, sqlsync, summaryOf } from '../cli/command.ts';
import { change } from '../pages/databases.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { placed } from '../support/ssh-place.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

describe('the address of a store behind an SFTP server', () => {
  test('an address names a host, a port and a path', () => {
    for (const [text, expected] of [
      ['sftp:db1:store', { host: 'db1', path: 'store' }],
      ['sftp:me@db1:/srv/store/', { user: 'me', host: 'db1', path: '/srv/store' }],
      ['sftp:me@db1:2222:/srv/store', { user: 'me', host: 'db1', port: 2222, path: '/srv/store' }],
      ['sftp:[::1]:22:store', { host: '::1', port: 22, path: 'store' }],
      ['sftp://me@db1:2222/srv/a%20b', { user: 'me', host: 'db1', port: 2222, path: '/srv/a b' }],
      ['sftp://db1/~/store', { host: 'db1', path: 'store' }],
    ] as const)
      assert.deepEqual(parseSftpAddress(text), { kind: 'ssh', ...expected }, text);
  });

  test('an address without a host, a path or a proper port is refused, and so is one with a password', () => {
    for (const text of [
      'sftp:',
      'sftp:db1',
      'sftp:db1:',
      'sftp:/srv/store',
      'sftp:db1:99999:/srv',
      'sftp:-x:/srv',
      'sftp://db1',
      'sftp://me:secret@db1/srv',
    ])
      assert.throws(() => parseSftpAddress(text), { code: 'USAGE' }, text);
  });
});

const probe = await startSshd({ config: ['Subsystem sftp internal-sftp'] });

describe('a store behind an SFTP server', { skip: probe === undefined ? SSHD_MISSING : false }, () => {
  const sshd = probe as Sshd;
  after(() => sshd.stop());

  test('an encrypted store behind an SFTP server is made, filled, checked and read', async (t) => {
    const { folder, env } = placed(t, sshd);
    writeFileSync(join(folder, 'password'), 'secret on the server\n');
    const state = { SQLSYNC_PASSWORD_FILE: join(folder, 'password'), XDG_STATE_HOME: join(folder, 'state') };
    const store = `sftp:sqlsync-test:${folder}/encrypted`;
    const run = (...args: string[]) => summaryOf(args, { cwd: folder, env: { ...env, ...state } });
    await run('init', store, '--encrypt');
    await run('backup', 'a.db', store);
    change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 50 = 0');
    await run('backup', 'a.db', store);
    await run('restore', store, 'back.db');
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
    await run('check', store, '--read-data');
    // It has the same files as a store in a folder, but another address, which this user does not know.
    await run('check', 'encrypted');
  });

  for (const [way, more] of [
    ['the SSH built in', {}],
    ['the ssh of SQLSYNC_RSH', { SQLSYNC_RSH: 'ssh' }],
  ] as const) {
    test(`a store is made, filled and read by ${way}, and pruned and copied`, async (t) => {
      const { folder, env } = placed(t, sshd);
      const store = `sftp:sqlsync-test:${folder}/deep/store`;
      const options = { cwd: folder, env: { ...env, ...more } };
      const run = (...args: string[]) => summaryOf(args, options);
      await run('init', store, '--grace', '0');
      await run('backup', 'a.db', store);
      await run('restore', store, 'first.db');
      assertReplicaOf(join(folder, 'a.db'), join(folder, 'first.db'));
      if (way !== 'the SSH built in') return;
      change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 50 = 0');
      await run('backup', 'a.db', store, '--verify');
      await run('restore', store, 'back.db');
      assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
      await run('check', store, '--read-data');
      await run('forget', store, '--keep-last', '1', '--prune');
      await run('init', 'here');
      await run('copy', store, 'here');
      await run('restore', 'here', 'again.db');
      assertReplicaOf(join(folder, 'a.db'), join(folder, 'again.db'));
      // The files are those of a store in a folder, and only their owner may read them.
      await run('check', 'deep/store', '--read-data');
      const [pack = ''] = readdirSync(join(folder, 'deep', 'store', 'packs'));
      assert.equal(statSync(join(folder, 'deep', 'store', 'packs', pack)).mode & 0o077, 0);
      const left = readdirSync(join(folder, 'deep'), { recursive: true, encoding: 'utf8' });
      assert.deepEqual(
        left.filter((name) => name.includes('.tmp-')),
        [],
      );
    });
  }

  test('a backup goes on over a new connection each time that it loses its own', async (t) => {
    const { folder, env } = placed(t, sshd);
    const store = `sftp:sqlsync-test:${folder}/store`;
    await summaryOf(['init', store], { cwd: folder, env });
    change(
      join(folder, 'a.db'),
      `CREATE TABLE big AS WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 60000)
      SELECT i, randomblob(800) AS x FROM i`,
    );
    const command = new Command(['backup', 'a.db', store], { cwd: folder, env });
    let killed = 0;
    const packs = join(folder, 'store', 'packs');
    const killer = setInterval(() => {
      // Only in the middle of a put, three times.
      if (killed >= 3 || !existsSync(packs) || !readdirSync(packs).some((name) => name.startsWith('.tmp-')))
        return;
      killed++;
      sshd.killSessions();
    }, 20);
    const { status, stderr } = await command.done;
    clearInterval(killer);
    assert.equal(status, 0, stderr);
    assert.ok(killed > 0, 'no connection was lost');
    await summaryOf(['restore', store, 'back.db'], { cwd: folder, env });
    assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
  });

  test('a program that has opened a store ends by itself', async (t) => {
    const { folder, env } = placed(t, sshd);
    const store = `sftp:sqlsync-test:${folder}/store`;
    await summaryOf(['init', store], { cwd: folder, env });
    const library = pathToFileURL(join(dirname(dirname(PROGRAM)), 'src', 'index.ts')).href;
    const program = `const { openStore } = await import('${library}');
      console.log((await (await openStore('${store}')).snapshots()).length)`;
    const said = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
      env,
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(said, '0\n');
  });

  test('a store that is not there, and a folder that may not be entered, are named', async (t) => {
    const { folder, env } = placed(t, sshd);
    const missing = await sqlsync(['snapshots', `sftp:sqlsync-test:${folder}/none`], { cwd: folder, env });
    assert.equal(missing.status, 18);
    assert.match(missing.stderr, /There is no store in sftp:sqlsync-test:.*none \[STORE_NOT_FOUND\]/);
    writeFileSync(join(folder, 'file'), '');
    const refused = await sqlsync(['init', `sftp:sqlsync-test:${folder}/file/store`], { cwd: folder, env });
    assert.equal(refused.status, 18);
    assert.match(refused.stderr, /\[STORE_UNAVAILABLE\]/);
    const unknown = await sqlsync(['snapshots', `sftp:127.0.0.1:${sshd.port}:/x`], { cwd: folder, env });
    assert.match(unknown.stderr, /Store sftp:127\.0\.0\.1:.*is not known.*\[STORE_UNAVAILABLE\]/s);
  });

  test('a full disk is named, and what prune frees can be used again', { skip: NEEDS_ROOT }, async (t) => {
    const { folder, env } = placed(t, sshd);
    const disk = join(folder, 'disk');
    mkdirSync(disk);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk], { stdio: 'ignore' });
    } catch {
      return t.skip('NOT TESTED: no file system can be mounted here');
    }
    try {
      const store = `sftp:sqlsync-test:${disk}/store`;
      await summaryOf(['init', store, '--grace', '0'], { cwd: folder, env });
      change(join(folder, 'a.db'), 'CREATE TABLE big AS SELECT randomblob(4000000) AS x');
      const full = await sqlsync(['backup', 'a.db', store], { cwd: folder, env });
      assert.equal(full.status, 18);
      assert.match(full.stderr, /\[STORE_UNAVAILABLE\]\n.*No space is left/s);
      await summaryOf(['prune', store], { cwd: folder, env });
      change(join(folder, 'a.db'), 'DROP TABLE big; VACUUM');
      await summaryOf(['backup', 'a.db', store], { cwd: folder, env });
      await summaryOf(['check', store, '--read-data'], { cwd: folder, env });
    } finally {
      execFileSync('umount', [disk]);
    }
  });
});

describe(
  'a store behind a chrooted SFTP server',
  { skip: probe === undefined ? SSHD_MISSING : NEEDS_ROOT },
  () => {
    let jail = '';
    let sshd: Sshd | undefined;

    before(async () => {
      // Every folder on the way has to be root's, and no one else's to write.
      jail = mkdtempSync('/run/sqlsync-jail-');
      chmodSync(jail, 0o755);
      mkdirSync(join(jail, 'box'));
      sshd = await startSshd({
        config: ['Subsystem sftp internal-sftp', 'ForceCommand internal-sftp', `ChrootDirectory ${jail}`],
      });
    });
    after(async () => {
      await sshd?.stop();
      rmSync(jail, { recursive: true, force: true });
    });

    test('a store in a chroot without a shell is used by a path relative to where the server begins, and by an absolute one', async (t) => {
      const { folder, env } = placed(t, sshd as Sshd);
      for (const path of ['box/relative', '/box/absolute']) {
        const store = `sftp:sqlsync-test:${path}`;
        await summaryOf(['init', store], { cwd: folder, env });
        await summaryOf(['backup', 'a.db', store], { cwd: folder, env });
        await summaryOf(['check', store, '--read-data'], { cwd: folder, env });
      }
      assert.deepEqual(readdirSync(join(jail, 'box')).toSorted(), ['absolute', 'relative']);
    });
  },
);
