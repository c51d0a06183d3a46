import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { allowedAlgorithms } from '../../src/transport/ssh/ssh-algorithms.ts';
import type { SshAlgorithms } from '../../src/transport/ssh/ssh-algorithms.ts';
import { parseHostConfig, resolveHost } from '../../src/transport/ssh/ssh-config.ts';
import type { HostConfig, HostRequest } from '../../src/transport/ssh/ssh-config.ts';
import { parseJumpHost, resolveRoute } from '../../src/transport/ssh/ssh-route.ts';

/** The home as OpenSSH finds it, from the password database. */
const home = userInfo().homedir;
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-ssh-config-'));
after(() => rmSync(folder, { recursive: true }));
const skip = spawnSync('ssh', ['-V']).status === 0 ? false : 'ssh is missing';

let count = 0;

function configFile(...lines: string[]): string {
  const path = join(folder, `config_${count++}`);
  writeFileSync(path, `${lines.join('\n')}\n`, { mode: 0o600 });
  return path;
}

/** The configuration of `Host db1` with these lines, by the real `ssh -G`. */
function resolved(lines: string[], request: Partial<HostRequest> = {}): Promise<HostConfig> {
  return resolveHost({ host: 'db1', configFile: configFile('Host db1', ...lines), ...request });
}

describe('the configuration of a host', { skip }, () => {
  test('the home is the one that OpenSSH has, whatever HOME says', async () => {
    assert.notEqual(homedir(), home, 'HOME is a folder of the tests');
    const files = await resolved(['IdentityFile ~/a', 'IdentityFile %d/b', 'UserKnownHostsFile ~/c %d/d']);
    assert.deepEqual(files.identityFiles, [join(home, 'a'), join(home, 'b')]);
    assert.deepEqual(files.knownHostsFiles.slice(0, 2), [join(home, 'c'), join(home, 'd')]);
  });

  test('a host has no key, not even a default one, with IdentityFile none', async () => {
    assert.deepEqual((await resolved(['IdentityFile none'])).identityFiles, []);
    assert.deepEqual((await resolved(['IdentityFile /k', 'IdentityFile none'])).identityFiles, ['/k']);
  });

  test('a host without configuration has the defaults of OpenSSH', async () => {
    const config = await resolveHost({ host: 'db1', configFile: 'none', user: 'deploy' });
    assert.deepEqual(
      [config.alias, config.host, config.port, config.user, config.jump],
      ['db1', 'db1', 22, 'deploy', undefined],
    );
    assert.equal(config.identityFiles, undefined);
    assert.equal(config.knownHostsFiles[0], join(home, '.ssh', 'known_hosts'));
    assert.equal(config.newHostKeysFile, config.knownHostsFiles[0]);
    assert.ok(config.knownHostsFiles.includes('/etc/ssh/ssh_known_hosts'));
    assert.deepEqual(config.allows, { publicKey: true, password: true, keyboardInteractive: true });
    assert.deepEqual(config.unused, []);
  });

  test('the configuration of a host is the same without an ssh, as far as sqlsync needs it', () => {
    const config = parseHostConfig({ host: 'db1', user: 'deploy', jump: 'a,b' }, '');
    assert.deepEqual([config.host, config.port, config.user, config.jump], ['db1', 22, 'deploy', 'a,b']);
    assert.ok(config.knownHostsFiles.includes(join(home, '.ssh', 'known_hosts')));
    assert.equal(config.promptCount, 3);
  });

  test('the configuration of a host has HostName, User, Port, HostKeyAlias and AddressFamily', async () => {
    const lines = [
      'HostName 10.1.2.3',
      'User deploy',
      'Port 2222',
      'HostKeyAlias vault',
      'AddressFamily inet',
    ];
    const config = await resolved(lines);
    assert.deepEqual(
      [config.alias, config.host, config.user, config.port, config.hostKeyAlias, config.addressFamily],
      ['db1', '10.1.2.3', 'deploy', 2222, 'vault', 4],
    );
    const given = await resolved(lines, { user: 'me', port: 1 });
    assert.deepEqual([given.user, given.port], ['me', 1], "the user's options win");
  });

  test('the configuration of a host has IdentityFile with its tokens and ~, IdentitiesOnly and IdentityAgent', async () => {
    const config = await resolved([
      'HostName 10.1.2.3',
      'User deploy',
      'IdentityFile ~/keys/%r@%h-%n-%p-100%%',
      'IdentityFile /k/id_rsa',
      'IdentitiesOnly yes',
      'IdentityAgent ~/agent',
    ]);
    const expected = [join(home, 'keys', 'deploy@10.1.2.3-db1-22-100%'), '/k/id_rsa'];
    assert.deepEqual(config.identityFiles, expected);
    assert.equal(config.identitiesOnly, true);
    assert.equal(config.agentSocket, join(home, 'agent'));
    assert.deepEqual((await resolved(['IdentityFile ~/.ssh/id_rsa'])).identityFiles, [
      join(home, '.ssh', 'id_rsa'),
    ]);
  });

  test('the configuration of a host has the agent of SSH_AUTH_SOCK, another variable, or none', async (context) => {
    const { SSH_AUTH_SOCK: before } = process.env;
    context.after(() => {
      if (before === undefined) delete process.env['SSH_AUTH_SOCK'];
      else process.env['SSH_AUTH_SOCK'] = before;
      delete process.env['SQLSYNC_TEST_AGENT'];
    });
    process.env['SSH_AUTH_SOCK'] = '/standard';
    process.env['SQLSYNC_TEST_AGENT'] = '/mine';
    assert.equal((await resolved([])).agentSocket, '/standard');
    assert.equal((await resolved(['IdentityAgent SSH_AUTH_SOCK'])).agentSocket, '/standard');
    assert.equal((await resolved(['IdentityAgent $SQLSYNC_TEST_AGENT'])).agentSocket, '/mine');
    assert.equal((await resolved(['IdentityAgent none'])).agentSocket, false);
  });

  test('the configuration of a host has the known hosts of the user and the system, with spaces in their paths', async () => {
    const spaced = join(folder, 'known hosts');
    writeFileSync(spaced, '');
    const config = await resolved([
      `UserKnownHostsFile "${spaced}" /b`,
      'GlobalKnownHostsFile /c',
      'HashKnownHosts yes',
    ]);
    assert.deepEqual(config.knownHostsFiles, [spaced, '/b', '/c']);
    assert.deepEqual([config.newHostKeysFile, config.hashKnownHosts], [spaced, true]);
    const none = await resolved(['UserKnownHostsFile none', 'GlobalKnownHostsFile none']);
    assert.deepEqual([none.knownHostsFiles, none.newHostKeysFile], [[], undefined]);
  });

  test('the configuration of a host has ConnectTimeout, ServerAlive*, Ciphers and HostKeyAlgorithms', async () => {
    const config = await resolved([
      'ConnectTimeout 7',
      'ServerAliveInterval 9',
      'ServerAliveCountMax 2',
      'Ciphers aes256-ctr,aes128-ctr',
      'HostKeyAlgorithms rsa-sha2-512',
    ]);
    assert.deepEqual(
      [config.connectTimeoutMs, config.keepaliveIntervalMs, config.keepaliveCountMax],
      [7000, 9000, 2],
    );
    assert.deepEqual(config.ciphers, ['aes256-ctr', 'aes128-ctr']);
    assert.deepEqual(config.hostKeyAlgorithms, ['rsa-sha2-512']);
    const plain = await resolved([]);
    assert.deepEqual([plain.connectTimeoutMs, plain.keepaliveIntervalMs], [undefined, undefined]);
  });

  test('sqlsync never asks with BatchMode, and asks nothing that the configuration switches off', async () => {
    assert.equal((await resolved(['BatchMode yes'])).promptCount, 0);
    const config = await resolved([
      'NumberOfPasswordPrompts 1',
      'PasswordAuthentication no',
      'KbdInteractiveAuthentication no',
      'PubkeyAuthentication no',
    ]);
    assert.equal(config.promptCount, 1);
    assert.deepEqual(config.allows, { publicKey: false, password: false, keyboardInteractive: false });
  });

  for (const line of [
    'ProxyCommand nc %h %p',
    'RevokedHostKeys /revoked',
    'KnownHostsCommand /usr/bin/keys %H',
  ]) {
    const [option] = line.split(' ') as [string];
    test(`a configuration with ${option} is refused, with --rsh as the remedy`, async () => {
      await assert.rejects(resolved([line]), {
        code: 'CONNECT_FAILED',
        message: new RegExp(option),
        hint: /--rsh ssh/,
      });
      await resolved([`${option} none`]);
    });
  }

  test('a configuration that ssh itself refuses is an error that says why', async () => {
    await assert.rejects(resolved(['NoSuchOption yes']), {
      code: 'CONNECT_FAILED',
      message: /db1.*NoSuchOption/is,
    });
    await assert.rejects(resolveHost({ host: 'db1', configFile: join(folder, 'gone') }), {
      code: 'CONNECT_FAILED',
      message: /gone/,
    });
  });

  test('the configuration names the certificates and hardware keys that only OpenSSH can use', async () => {
    const config = await resolved(['CertificateFile /c/id-cert.pub', 'PKCS11Provider /lib/p11.so']);
    assert.match(config.unused.join(), /certificate \/c\/id-cert\.pub.*\/lib\/p11\.so/);
  });
});

describe('the way to a host', { skip }, () => {
  const names = async (lines: string[], request: Partial<HostRequest> = {}): Promise<string[]> => {
    const route = await resolveRoute({ host: 'db1', configFile: configFile(...lines), ...request });
    return route.map(({ user, host, port }) => `${user}@${host}:${port}`);
  };

  test('the way to a host goes over the hosts of ProxyJump in their order, each with its own configuration', async () => {
    const lines = [
      'Host db1',
      'User u1',
      'ProxyJump j1,me@j2:7,ssh://j3:8',
      'Host j*',
      'User u2',
      'Host j1',
      'HostName 10.0.0.1',
      'Port 5',
    ];
    assert.deepEqual(await names(lines), ['u2@10.0.0.1:5', 'me@j2:7', 'u2@j3:8', 'u1@db1:22']);
  });

  test('the way goes over the jump hosts that the first jump host needs, and those of -J instead of the configured', async () => {
    const lines = [
      'Host db1',
      'ProxyJump j1',
      'Host j1',
      'ProxyJump j0',
      'Host j2',
      'ProxyJump x',
      'Host *',
      'User u',
    ];
    assert.deepEqual(await names(lines), ['u@j0:22', 'u@j1:22', 'u@db1:22']);
    assert.deepEqual(await names(lines, { jump: 'j9,j2' }), ['u@j9:22', 'u@j2:22', 'u@db1:22']);
    assert.deepEqual(await names(lines, { jump: 'none' }), ['u@db1:22']);
  });

  test('a way that turns in a circle is refused', async () => {
    await assert.rejects(names(['Host db1', 'ProxyJump j1', 'Host j1', 'ProxyJump db1']), {
      code: 'CONNECT_FAILED',
      message: /more than \d+ jump hosts/,
    });
  });
});

describe('a jump host', () => {
  for (const [text, expected] of [
    ['a', { host: 'a' }],
    ['u@x@a:22', { user: 'u@x', host: 'a', port: 22 }],
    ['[::1]:7', { host: '::1', port: 7 }],
    ['ssh://u@a:1', { user: 'u', host: 'a', port: 1 }],
  ] as const) {
    test(`a jump host may be ${text}`, () => assert.deepEqual(parseJumpHost(text, text), expected));
  }
  for (const text of ['', 'a:0', 'a:65536', '-oProxyCommand=x', 'u@-a', 'a b', 'a:b', '::1']) {
    test(`a jump host may not be ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseJumpHost(text, text), { code: 'USAGE', hint: /ProxyJump/ });
    });
  }
});

test('Match and Include count, as ssh resolves them', { skip }, async () => {
  const included = configFile('Match host db1.example user deploy', '  Port 2200', '  ProxyJump gate');
  const lines = [
    'Host db1',
    '  HostName db1.example',
    'Host *',
    `  Include ${included}`,
    'Match all',
    '  Port 23',
  ];
  const request = { host: 'db1', configFile: configFile(...lines) };
  const deploy = await resolveHost({ ...request, user: 'deploy' });
  assert.deepEqual([deploy.host, deploy.port, deploy.jump], ['db1.example', 2200, 'gate']);
  const other = await resolveHost({ ...request, user: 'other' });
  assert.deepEqual([other.host, other.port, other.jump], ['db1.example', 23, undefined]);
});

describe('the tokens of ProxyJump', { skip }, () => {
  const routeTo = async (jump: string, request: Partial<HostRequest> = {}): Promise<unknown[]> => {
    const lines = ['Host db1', 'HostName db1.example', 'User deploy', 'Port 2222', `ProxyJump ${jump}`];
    const route = await resolveRoute({ host: 'db1', configFile: configFile(...lines), ...request });
    return route.slice(0, -1).map(({ host, port, user }) => [user, host, port]);
  };

  test('the tokens of ProxyJump are those of the host that is reached through it', async () => {
    assert.deepEqual(await routeTo('%r@%n-gate%p-%h:23'), [['deploy', 'db1-gate2222-db1.example', 23]]);
    const more = { user: 'root', port: 24 };
    assert.deepEqual(await routeTo('%r@gate%p', more), [['root', 'gate24', 22]]);
  });

  test('the tokens of ProxyJump are expanded once, for all of several hosts, and by -J as well', async () => {
    const route = [
      ['deploy', 'a-db1', 22],
      ['deploy', 'b%h', 22],
    ];
    assert.deepEqual(await routeTo('%r@a-%n,%r@b%%h'), route);
    assert.deepEqual(await routeTo('none', { jump: '%r@a-%n,%r@b%%h' }), route);
  });
});

describe('algorithms that the configuration narrows', { skip }, () => {
  const ciphers = ['aes128-gcm@openssh.com', 'aes128-ctr'];
  const algorithms = async (...lines: string[]): Promise<SshAlgorithms> =>
    allowedAlgorithms(await resolved(lines), ciphers, 'db1');

  test('the algorithms of a configuration are offered as far as ssh2 has them', async () => {
    const lines = [
      'KexAlgorithms ecdh-sha2-nistp384,sntrup761x25519-sha512@openssh.com',
      'MACs hmac-sha2-512',
    ];
    assert.deepEqual(await algorithms(...lines), {
      kex: ['ecdh-sha2-nistp384'],
      cipher: ciphers,
      hmac: ['hmac-sha2-512'],
    });
    assert.ok((await algorithms()).kex.includes('curve25519-sha256'));
  });

  test('MAC codes that ssh2 lacks leave the ciphers that need none', async () => {
    const { cipher } = await algorithms('MACs umac-128@openssh.com');
    assert.deepEqual(cipher, ['aes128-gcm@openssh.com']);
  });

  for (const lines of [
    ['KexAlgorithms sntrup761x25519-sha512@openssh.com'],
    ['MACs umac-128@openssh.com', 'Ciphers aes128-ctr'],
    ['Ciphers aes256-cbc'],
  ]) {
    test(`a configuration with no algorithm of ours is refused, with --rsh as the remedy: ${lines.join(', ')}`, async () => {
      await assert.rejects(algorithms(...lines), {
        code: 'CONNECT_FAILED',
        message: new RegExp(`${lines[0]?.split(' ')[0]} .* allows none of`),
        hint: /--rsh ssh/,
      });
    });
  }
});
