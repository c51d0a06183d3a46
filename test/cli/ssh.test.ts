import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { agentsGone, installRemote, remote, runCli } from '../support/ssh-cli.ts';
import { makeSshKey, SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { assertRefused, folderState, sqlsync } from './command.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test that needs it is skipped
after(() => started?.stop());

/** How bin/sqlsync.js ends on a Node.js that is too old. */
const REFUSING = `#!/bin/sh
echo 'sqlsync needs Node.js 22.18 or newer, but this is Node.js 18.20.0 (/usr/bin/node).' >&2
exit 9
`;

describe('over a real sshd', { skip }, () => {
  for (const way of ['pull', 'push', 'verify'] as const) {
    test(`${way}: a far sqlsync whose Node.js is too old is NODE_UNSUPPORTED, with its own words`, async (t) => {
      const folder = tempDir(t);
      const [near, far] = [join(folder, 'a.db'), remote(sshd, join(folder, 'b.db'))];
      smallDatabase(near, { rows: 20 });
      sshd.addExecutable('refusing', REFUSING);
      const before = folderState(folder);
      const args =
        way === 'pull' ? [far, join(folder, 'c.db')] : [...(way === 'verify' ? [way] : []), near, far];
      const { status, events } = await runCli(sshd, args, { remoteExe: 'refusing' });
      const error = events.get('error');
      assert.deepEqual([status, error?.['code']], [9, 'NODE_UNSUPPORTED'], JSON.stringify(error));
      assert.match(
        String(error?.['message']),
        /^sqlsync on .*127\.0\.0\.1.* cannot run: sqlsync needs Node\.js 22\.18 .* 18\.20\.0/,
      );
      assert.match(String(error?.['hint']), /newer Node\.js there, or name a sqlsync/);
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('status 9 of the far side after its first bytes does not mean that its Node.js is too old', async (t) => {
    const folder = tempDir(t);
    sshd.addExecutable('talking', '#!/bin/sh\necho hello\nexit 9\n');
    const args = [remote(sshd, '/a.db'), join(folder, 'c.db')];
    const { events } = await runCli(sshd, args, { remoteExe: 'talking' });
    assert.notEqual(events.get('error')?.['code'], 'NODE_UNSUPPORTED');
  });

  for (const more of [[], ['-e', 'ssh']]) {
    test(`an alias of the SSH configuration is all that a copy and a verify need ${more.join(' ')}`, async (t) => {
      const folder = tempDir(t);
      const [origin, replica] = [join(folder, 'a.db'), join(folder, 'b.db')];
      smallDatabase(origin, { rows: 20 });
      installRemote(sshd, join(folder, 'agents'));
      const words = [`sqlsync-test:${origin}`, replica, '-F', sshd.sshConfigFile, ...more];
      const copied = await sqlsync(words);
      assert.equal(copied.status, 0, copied.stderr);
      const same = await sqlsync(['verify', ...words]);
      assert.equal(same.status, 0, same.stderr);
      await agentsGone(join(folder, 'agents'));
    });
  }

  test('a database of another host is backed up, and restored there', async (t) => {
    const folder = tempDir(t);
    const [origin, target, store] = ['a.db', 'b.db', 'store'].map((name) => join(folder, name)) as [
      string,
      string,
      string,
    ];
    smallDatabase(origin, { rows: 20 });
    installRemote(sshd, join(folder, 'agents'));
    const ssh = ['-F', sshd.sshConfigFile];
    for (const words of [
      ['init', store],
      ['backup', `sqlsync-test:${origin}`, store, '--verify', ...ssh],
      ['restore', store, `sqlsync-test:${target}`, ...ssh],
    ]) {
      const { status, stderr } = await sqlsync(words);
      assert.equal(status, 0, stderr);
    }
    assertReplicaOf(origin, target);
    await agentsGone(join(folder, 'agents'));
  });

  test('a refused login hints at an `ssh` command with the port where ssh wants it', async (t) => {
    const identity = makeSshKey(join(tempDir(t), 'key'));
    const args = [remote(sshd, '/a.db'), join(tempDir(t), 'c.db')];
    const { events } = await runCli(sshd, args, { identity });
    const error = events.get('error');
    assert.equal(error?.['code'], 'AUTH_FAILED');
    const login = `ssh -p ${sshd.port} ${sshd.user}@127.0.0.1`;
    assert.ok(String(error['hint']).includes(`\`${login}\``), String(error['hint']));
  });
});

test(
  'a user and a host that only a certificate vouches for are copied by --rsh ssh, and refused without it, with that remedy',
  { skip },
  async (t) => {
    const folder = tempDir(t);
    const authority = makeSshKey(join(folder, 'authority'));
    const sign = (key: string, ...how: string[]): void => {
      execFileSync('ssh-keygen', ['-q', '-s', authority, '-I', 'test', ...how, `${key}.pub`], {
        stdio: 'ignore',
      });
    };
    const [hostKey, userKey] = [makeSshKey(join(folder, 'host'), 'ecdsa'), makeSshKey(join(folder, 'user'))];
    sign(hostKey, '-h', '-n', '127.0.0.1');
    sign(userKey, '-n', sshd.user);
    const host = await startSshd({
      config: [
        `HostKey ${hostKey}`,
        `HostCertificate ${hostKey}-cert.pub`,
        `TrustedUserCAKeys ${authority}.pub`,
        'AuthorizedKeysFile none',
      ],
    });
    assert.ok(host !== undefined);
    t.after(() => host.stop());
    installRemote(host, join(folder, 'agents'));
    const knownHosts = join(folder, 'known');
    writeFileSync(
      knownHosts,
      `@cert-authority [127.0.0.1]:${host.port} ${readFileSync(`${authority}.pub`, 'utf8')}`,
    );
    const [origin, replica] = [join(folder, 'a.db'), join(folder, 'b.db')];
    smallDatabase(origin, { rows: 20 });
    const options = { identity: userKey, knownHosts };
    const args = [remote(host, origin), replica];
    const unknown = await runCli(host, args, options);
    assert.deepEqual([unknown.status, unknown.events.get('error')?.['code']], [11, 'HOST_KEY_UNKNOWN']);
    assert.match(JSON.stringify(unknown.events.get('error')), /cert-authority.*--rsh/);
    const refused = await runCli(host, args, { ...options, knownHosts: host.knownHostsFile });
    assert.deepEqual([refused.status, refused.events.get('error')?.['code']], [13, 'AUTH_FAILED']);
    const copied = await runCli(host, args, { ...options, rsh: 'ssh -o BatchMode=yes' });
    assert.equal(copied.status, 0, JSON.stringify([...copied.events.values()]));
  },
);

test('an identity file that is not there is a usage error, before anything connects', async (t) => {
  const folder = tempDir(t);
  writeFileSync(join(folder, 'here'), '');
  await assertRefused(['host.invalid:a.db', 'b.db', '-i', join(folder, 'here'), '-i', join(folder, 'gone')], {
    code: 'USAGE',
    status: 2,
    says: /--identity: \S*gone does not exist/,
  });
});

test('a host name that does not resolve hints at the SSH configuration', async () => {
  const { status, stderr } = await sqlsync(['alias.invalid:a.db', 'b.db', '-F', 'none']);
  assert.equal(status, 10);
  assert.match(stderr, /alias\.invalid: the host name could not be resolved/);
  assert.match(stderr, /an alias needs a HostName in your SSH configuration/);
});

test('SQLSYNC_RSH names a remote shell, and --rsh another one', async (t) => {
  const folder = tempDir(t);
  const tells = (name: string): string => {
    const path = join(folder, name);
    writeFileSync(path, `#!/bin/sh\necho "${name} was asked for $*" >&2\nexit 3\n`, { mode: 0o755 });
    return path;
  };
  const env = { SQLSYNC_RSH: `${tells('from-env')} -x` };
  const byEnv = await sqlsync(['db1:a.db', join(folder, 'b.db')], { env });
  assert.match(byEnv.stderr, /from-env was asked for -x db1 sqlsync agent/);
  const byOption = await sqlsync(['db1:a.db', join(folder, 'b.db'), '-e', tells('given')], { env });
  assert.match(byOption.stderr, /given was asked for db1 sqlsync agent/);
});

describe('limits', () => {
  test('--max-time ends a run that takes longer as TIMEOUT, and leaves nothing', async (t) => {
    const folder = tempDir(t);
    const silent = join(folder, 'silent');
    writeFileSync(silent, '#!/bin/sh\nexec cat > /dev/null\n', { mode: 0o755 });
    const words = ['db1:a.db', join(folder, 'b.db'), '-e', silent, '--max-time', '0.3'];
    const other = join(folder, 'other.db');
    smallDatabase(other, { rows: 20 });
    const before = folderState(folder);
    const verified = ['verify', 'db1:a.db', other, ...words.slice(2)];
    for (const line of [words, verified]) {
      const { status, stderr } = await sqlsync(line);
      assert.equal(status, 16, stderr);
      assert.match(stderr, /Not done after the 0\.3 s of --max-time \[TIMEOUT\]/);
    }
    assert.deepEqual(folderState(folder), before);
  });

  test('--bwlimit lets a copy through, and refuses what is no rate', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = [join(folder, 'a.db'), join(folder, 'b.db')];
    smallDatabase(origin, { rows: 20 });
    const { status, stderr } = await sqlsync([origin, replica, '--bwlimit', '2m']);
    assert.equal(status, 0, stderr);
    await assertRefused([origin, replica, '--bwlimit', 'fast'], {
      code: 'USAGE',
      status: 2,
      says: /--bwlimit: "fast" is not a rate/,
    });
  });

  for (const option of ['--max-time', '--connect-timeout']) {
    test(`${option} of 0 is refused: it is no time at all`, async () => {
      await assertRefused(['host.invalid:a.db', 'b.db', option, '0'], {
        code: 'USAGE',
        status: 2,
        says: new RegExp(`${option}: "0" is not a duration from 1 ms`),
      });
    });
  }

  test('--connect-timeout ends a login that takes longer', async (t) => {
    const server = createServer(() => {}).listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.after(() => server.close());
    const { port } = server.address() as AddressInfo;
    const words = ['x@127.0.0.1:a.db', join(tempDir(t), 'b.db'), '-F', 'none', '-p', String(port)];
    const { status, stderr } = await sqlsync([...words, '--connect-timeout', '0.2']);
    assert.equal(status, 10, stderr);
    assert.match(stderr, /still negotiating after 0\.2 s/);
  });
});
