import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import type { SshOptions } from '../../src/transport/ssh/ssh.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { startAgent } from '../support/ssh-agent.ts';
import { SSHD_MISSING, makeSshKey, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { ECHO_PROGRAM, digest, transportSuite } from './transport-suite.ts';

/** The host to log in to, and two hosts to go through. */
const started = await Promise.all([startSshd(), startSshd(), startSshd()]);
const skip = started.includes(undefined) ? SSHD_MISSING : false;
const [target, first, second] = started as [Sshd, Sshd, Sshd]; // where it is missing, every test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-route-'));
after(async () => {
  for (const sshd of started) await sshd?.stop();
  rmSync(folder, { recursive: true });
});

let count = 0;

/** The usual configuration for such hosts, by the names target, first and second. */
function configFile(...more: string[]): string {
  const hosts = { target, first, second };
  const path = join(folder, `config_${count++}`);
  const known = `${path}_known_hosts`;
  writeFileSync(
    known,
    Object.values(hosts)
      .map(({ knownHostsFile }) => readFileSync(knownHostsFile, 'utf8'))
      .join(''),
  );
  const lines = Object.entries(hosts).flatMap(([name, { host, port, user, clientKey }]) => [
    `Host ${name}`,
    `  HostName ${host}`,
    `  Port ${port}`,
    `  User ${user}`,
    `  IdentityFile ${clientKey}`,
  ]);
  const all = [
    'Host *',
    '  IdentityAgent none',
    `  UserKnownHostsFile ${known}`,
    '  GlobalKnownHostsFile none',
  ];
  writeFileSync(path, `${[...more, ...lines, ...all].join('\n')}\n`, { mode: 0o600 });
  return path;
}

async function open(
  context: TestContext,
  options: Partial<SshOptions> & { configFile: string },
): Promise<Transport> {
  const transport = await connectSsh({ host: 'target', command: 'echo hello', ask: false, ...options });
  context.after(() => transport.terminate());
  return transport;
}

async function greets(
  context: TestContext,
  options: Partial<SshOptions> & { configFile: string },
): Promise<void> {
  const transport = await open(context, options);
  assert.equal((await digest(transport.input)).byteCount, 6);
  assert.equal((await transport.exited).status, 0);
}

function loginsOf(sshd: Sshd): number {
  return sshd.log().match(/Accepted publickey/g)?.length ?? 0;
}

transportSuite(
  'ssh over a jump host',
  async (context) => {
    const options = { configFile: configFile('Host target', '  ProxyJump first') };
    const transport = await open(context, { ...options, command: `node -e '${ECHO_PROGRAM}'` });
    return { transport, mediumBytes: 32 * 1024 * 1024 };
  },
  skip,
);

describe('an alias of the SSH configuration', { skip }, () => {
  test('an alias of the SSH configuration is enough to log in', (context) =>
    greets(context, { configFile: configFile() }));

  test('an alias has its key under HostKeyAlias', async (context) => {
    const known = join(folder, 'known_by_alias');
    writeFileSync(known, readFileSync(target.knownHostsFile, 'utf8').replace(/^\S+/, 'vault'));
    const lines = ['Host target', '  HostKeyAlias vault', `  UserKnownHostsFile ${known}`];
    await greets(context, { configFile: configFile(...lines) });
    const without = configFile('Host target', `  UserKnownHostsFile ${known}`);
    await assert.rejects(open(context, { configFile: without }), { code: 'HOST_KEY_UNKNOWN' });
  });

  test('an alias logs in by the one cipher and host key algorithm that are allowed, and is refused if none is ours', async (context) => {
    await greets(context, {
      configFile: configFile('Host target', '  Ciphers aes256-ctr', '  HostKeyAlgorithms ssh-ed25519'),
    });
    for (const line of ['Ciphers aes256-cbc', 'HostKeyAlgorithms sk-ssh-ed25519@openssh.com']) {
      await assert.rejects(open(context, { configFile: configFile('Host target', line) }), {
        code: 'CONNECT_FAILED',
        message: new RegExp(`${line.split(' ')[0]} .*allows none`),
        hint: /--rsh ssh/,
      });
    }
  });

  test('an alias with IdentitiesOnly offers nothing but its keys, though the agent holds others', async (context) => {
    const other = makeSshKey(join(folder, `other_${count++}`));
    const agentSocket = await startAgent(context, folder, [target.clientKey]);
    const lines = ['Host target', '  IdentitiesOnly yes', `  IdentityFile ${other}`];
    const path = join(folder, 'only');
    writeFileSync(
      path,
      readFileSync(configFile(...lines), 'utf8').replaceAll(/  IdentityFile .*client.*\n/g, ''),
    );
    await assert.rejects(open(context, { configFile: path, agentSocket }), { code: 'AUTH_FAILED' });
    writeFileSync(path, readFileSync(path, 'utf8').replace('IdentitiesOnly yes', 'IdentitiesOnly no'));
    await greets(context, { configFile: path, agentSocket });
  });

  test('an alias whose key has a certificate that ssh2 cannot use says so, with --rsh as the remedy', async (context) => {
    const key = makeSshKey(join(folder, `certified_${count++}`));
    const authority = makeSshKey(join(folder, `authority_${count++}`));
    execFileSync('ssh-keygen', ['-q', '-s', authority, '-I', 'me', '-n', target.user, `${key}.pub`]);
    const config = readFileSync(configFile(), 'utf8').replaceAll(target.clientKey, key);
    const path = join(folder, 'certified');
    writeFileSync(path, config);
    await assert.rejects(open(context, { configFile: path }), {
      code: 'AUTH_FAILED',
      message: /cannot use the certificate \S+-cert\.pub/,
      hint: /--rsh ssh/,
    });
  });
});

describe('over jump hosts', { skip }, () => {
  test('a login goes through one jump host, two, and those of -J, and ends with the command', async (context) => {
    const one = configFile('Host target', '  ProxyJump first');
    for (const [options, jumps] of [
      [{ configFile: one }, [1, 0]],
      [{ configFile: configFile('Host target', '  ProxyJump second,first') }, [1, 1]],
      [{ configFile: one, jump: 'second' }, [0, 1]],
      [{ configFile: one, jump: 'none' }, [0, 0]],
    ] as const) {
      const before = [loginsOf(first), loginsOf(second)];
      await greets(context, options);
      assert.deepEqual([loginsOf(first) - (before[0] ?? 0), loginsOf(second) - (before[1] ?? 0)], jumps);
    }
  });

  test('the key of each jump host is checked', async (context) => {
    const wrong = makeSshKey(join(folder, `wrong_${count++}`));
    const known = join(folder, 'known_wrong');
    writeFileSync(known, `[127.0.0.1]:${first.port} ${readFileSync(`${wrong}.pub`, 'utf8')}`);
    const lines = ['Host target', '  ProxyJump first', 'Host first', `  UserKnownHostsFile ${known}`];
    await assert.rejects(open(context, { configFile: configFile(...lines) }), {
      code: 'HOST_KEY_MISMATCH',
      message: new RegExp(`\\[127\\.0\\.0\\.1\\]:${first.port}.*known_wrong line 1`),
    });
    const unknown = ['Host target', '  ProxyJump first', `  UserKnownHostsFile ${first.knownHostsFile}`];
    await assert.rejects(open(context, { configFile: configFile(...unknown) }), {
      code: 'HOST_KEY_UNKNOWN',
      message: new RegExp(`:${target.port} offered`),
    });
  });

  test('a jump host that cannot reach the host is CONNECT_FAILED, and the error names both', async (context) => {
    const lines = ['Host target', '  ProxyJump first', '  Port 1'];
    await assert.rejects(open(context, { configFile: configFile(...lines) }), {
      code: 'CONNECT_FAILED',
      message: /jump host .*first.* could not connect to 127\.0\.0\.1 port 1/,
    });
  });

  test('a jump host that is lost on the way is CONNECTION_LOST', async (context) => {
    const config = configFile('Host target', '  ProxyJump first');
    const transport = await open(context, { configFile: config, command: 'echo up; cat' });
    await new Promise((resolve) => transport.input.once('data', resolve));
    first.killSessions();
    await assert.rejects(digest(transport.input), { code: 'CONNECTION_LOST' });
    assert.equal((await transport.exited).status, null);
  });

  test(
    'the connection to each jump host ends with the command, and when it is terminated',
    { timeout: 120_000 },
    async (context) => {
      const ends = (): number =>
        first
          .log()
          .match(/Disconnected from|Connection (?:closed|reset)|Read error|Write failed|session closed/g)
          ?.length ?? 0;
      const ended = async (before: number): Promise<void> => {
        while (ends() === before) await delay(5);
      };
      const config = configFile('Host target', '  ProxyJump first');
      let before = ends();
      await greets(context, { configFile: config });
      await ended(before);
      before = ends();
      const transport = await open(context, { configFile: config, command: 'echo up; cat' });
      await new Promise((resolve) => transport.input.once('data', resolve));
      transport.terminate();
      await ended(before);
    },
  );
});

describe('--accept-new-host-key', { skip }, () => {
  const accepting = (
    path: string,
    more: Omit<Partial<SshOptions>, 'configFile'> = {},
  ): Partial<SshOptions> & { configFile: string } => ({
    configFile: configFile(),
    knownHostsFiles: [path],
    acceptNewHostKey: true,
    ...more,
  });

  test('--accept-new-host-key writes the key of an unknown host down, says so, and from then on it is checked', async (context) => {
    const path = join(folder, 'new', 'known_hosts');
    const warnings: string[] = [];
    const onWarning = (text: string): void => void warnings.push(text);
    await greets(context, accepting(path, { onWarning }));
    assert.equal(readFileSync(path, 'utf8'), readFileSync(target.knownHostsFile, 'utf8'));
    assert.deepEqual([statSync(path).mode & 0o777, statSync(dirname(path)).mode & 0o777], [0o600, 0o700]);
    assert.match(
      warnings.join(),
      /ssh-ed25519 key SHA256:\S+ of \[127\.0\.0\.1\]:\d+ is trusted from now on/,
    );
    await greets(context, accepting(path, { acceptNewHostKey: false, onWarning }));
    assert.equal(warnings.length, 1);
  });

  test('--accept-new-host-key is off by default', async (context) => {
    const path = join(folder, 'untouched');
    const options = accepting(path, { acceptNewHostKey: false });
    await assert.rejects(open(context, options), { code: 'HOST_KEY_UNKNOWN', hint: /--accept-new-host-key/ });
    assert.throws(() => statSync(path), { code: 'ENOENT' });
  });

  test('--accept-new-host-key keeps the existing lines, also one without an end, and hashes if HashKnownHosts says so', async (context) => {
    const path = join(folder, 'with-lines');
    writeFileSync(path, '# mine');
    const options = { ...accepting(path), configFile: configFile('HashKnownHosts yes') };
    await greets(context, options);
    const text = readFileSync(path, 'utf8');
    assert.match(text, /^# mine\n\|1\|\S+ ssh-ed25519 \S+\n$/);
    await greets(context, { ...options, acceptNewHostKey: false });
  });

  for (const [what, line] of [
    ['a changed key', (known: string, other: string): string => known.replace(/ \S+ \S+\n$/, ` ${other}`)],
    ['a revoked key', (known: string) => `@revoked ${known}`],
    ['a host of a certificate authority', (_: string, other: string) => `@cert-authority * ${other}`],
  ] as [string, (known: string, other: string) => string][]) {
    test(`--accept-new-host-key does not trust ${what}`, async (context) => {
      const other = readFileSync(`${makeSshKey(join(folder, `key_${count++}`))}.pub`, 'utf8');
      const path = join(folder, `known_${count++}`);
      const text = line(readFileSync(target.knownHostsFile, 'utf8'), other);
      writeFileSync(path, text);
      await assert.rejects(open(context, accepting(path)), { code: /HOST_KEY/ });
      assert.equal(readFileSync(path, 'utf8'), text);
    });
  }

  test('--accept-new-host-key does not trust a host with a known key of another type', async (context) => {
    const rsa = readFileSync(`${makeSshKey(join(folder, `rsa_${count++}`), 'rsa')}.pub`, 'utf8');
    const path = join(folder, `known_${count++}`);
    writeFileSync(path, `[127.0.0.1]:${target.port} ${rsa}`);
    await assert.rejects(open(context, accepting(path)), { code: 'HOST_KEY_UNKNOWN' });
  });

  test('--accept-new-host-key connects to nothing if the key cannot be written down', async (context) => {
    const path = join(folder, 'file', 'known_hosts');
    mkdirSync(dirname(dirname(path)), { recursive: true });
    writeFileSync(dirname(path), '');
    const before = loginsOf(target);
    await assert.rejects(open(context, accepting(path)), {
      code: 'HOST_KEY_UNKNOWN',
      message: /could not be written/,
    });
    assert.equal(loginsOf(target), before);
  });

  test('--accept-new-host-key holds for jump hosts too', async (context) => {
    const path = join(folder, 'jump-known');
    await greets(context, accepting(path, { jump: 'first' }));
    assert.equal(readFileSync(path, 'utf8').split('\n').length, 3);
  });
});
