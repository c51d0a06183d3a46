import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import type { SqlsyncError } from '../../src/errors.ts';
import { splitCommand } from '../../src/transport/command-words.ts';
import { connectRsh } from '../../src/transport/rsh.ts';
import type { RshOptions } from '../../src/transport/rsh.ts';
import { explainOpenssh } from '../../src/transport/rsh-exit.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { ECHO_PROGRAM, digest, transportSuite } from './transport-suite.ts';

const started = await startSshd();
const sshd = started as Sshd; // where it is missing, every test that needs it is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-rsh-'));
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

/** A remote shell that writes its arguments to a file, each ended by NUL, and fails. */
const argumentsFile = join(folder, 'arguments');
const teller = join(folder, 'teller');
writeFileSync(
  teller,
  `#!/bin/sh\n: > '${argumentsFile}'\nfor word in "$@"; do printf '%s\\0' "$word" >> '${argumentsFile}'; done\nexit 3\n`,
);
chmodSync(teller, 0o755);

function toldArguments(): string[] {
  return readFileSync(argumentsFile, 'utf8').split('\0').slice(0, -1);
}

/** Options that keep a user's configuration from putting other bytes into the stream. */
const BYTE_STREAM = [
  '-T',
  '-o',
  'RemoteCommand=none',
  '-o',
  'RequestTTY=no',
  '-o',
  'PermitLocalCommand=no',
  '-o',
  'ClearAllForwardings=yes',
];

async function argumentsOf(options: Partial<RshOptions>): Promise<string[]> {
  const transport = await connectRsh({
    rsh: teller,
    host: 'db1',
    remoteCommand: ['sqlsync', 'agent'],
    ...options,
  });
  await digest(transport.input);
  return toldArguments();
}

transportSuite(
  'rsh',
  async (context) => {
    const transport = await connectRsh({
      rsh: `ssh -F ${sshd.sshConfigFile}`,
      host: 'sqlsync-test',
      remoteCommand: ['node', '-e', `'${ECHO_PROGRAM}'`],
    });
    context.after(() => transport.terminate());
    return { transport, mediumBytes: 16 * 1024 * 1024 };
  },
  started === undefined ? SSHD_MISSING : false,
);

describe('a remote-shell command', () => {
  const rsync = spawnSync('rsync', ['--version']).status === 0;

  test(
    'a remote-shell command is split as rsync splits its -e',
    { skip: rsync ? false : 'rsync is missing' },
    (context) => {
      const seed = Number(process.env['SQLSYNC_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
      context.diagnostic(`to repeat: SQLSYNC_TEST_SEED=${seed}`);
      const letters = fc.constantFrom('a', 'B', ' ', ' ', "'", "'", '"', '"', '\\', '$', '\t', '*', '~', 'ä');
      fc.assert(
        fc.property(fc.string({ unit: letters, maxLength: 14 }), (tail) => {
          const command = `${teller} ${tail}`;
          rmSync(argumentsFile, { force: true });
          const { stderr } = spawnSync('rsync', ['-e', command, 'u@h:x', folder], { encoding: 'utf8' });
          if (/Missing trailing/.test(stderr)) {
            assert.throws(() => splitCommand(command), { code: 'USAGE', message: /closing/ }, command);
            return;
          }
          const told = toldArguments();
          assert.deepEqual(splitCommand(command).slice(1), told.slice(0, told.lastIndexOf('-l')), command);
        }),
        { seed, numRuns: 60 },
      );
    },
  );

  test('a remote-shell command that is empty or names no program is a usage error', () => {
    for (const command of ['', '  ', "''", 'ssh "a', 'a\0b']) {
      assert.throws(() => splitCommand(command), { code: 'USAGE' }, JSON.stringify(command));
    }
  });

  test('a remote-shell command gets the host and the remote command as rsync gives them, and no shell looks at them', async () => {
    const remoteCommand = ['$(touch pwned)', 'agent'];
    assert.deepEqual(await argumentsOf({ rsh: `${teller} -x '2  $HOME'`, user: 'deploy', remoteCommand }), [
      '-x',
      '2  $HOME',
      '-l',
      'deploy',
      'db1',
      ...remoteCommand,
    ]);
    assert.deepEqual(await argumentsOf({}), ['db1', 'sqlsync', 'agent']);
  });

  test('a remote-shell command that is no ssh refuses settings that it cannot take, and does not start', async () => {
    rmSync(argumentsFile, { force: true });
    for (const ssh of [{ port: 22 }, { identityFiles: ['k'] }, { knownHostsFiles: ['h'] }, { jump: 'j' }]) {
      await assert.rejects(connectRsh({ rsh: teller, host: 'db1', remoteCommand: [], ssh }), {
        code: 'USAGE',
        message: /--rsh teller cannot take the given/,
      });
    }
    assert.throws(() => readFileSync(argumentsFile));
  });

  test('ssh as the remote shell gets the settings as its own options, after those of the user', async () => {
    const asSsh = join(folder, 'ssh');
    writeFileSync(asSsh, readFileSync(teller), { mode: 0o755 });
    const ssh = {
      configFile: 'c f',
      port: 2222,
      identityFiles: ['a b', 'c'],
      knownHostsFiles: ['k%"1', 'k 2'],
      jump: 'j1,j2',
      connectTimeoutMs: 1500,
      acceptNewHostKey: true,
    };
    assert.deepEqual(await argumentsOf({ rsh: `${asSsh} -p 1`, ssh }), [
      '-p',
      '1',
      '-F',
      'c f',
      '-p',
      '2222',
      '-i',
      'a b',
      '-i',
      'c',
      '-J',
      'j1,j2',
      '-o',
      String.raw`UserKnownHostsFile="k%%\"1" "k 2"`,
      '-o',
      'GlobalKnownHostsFile=none',
      '-o',
      'StrictHostKeyChecking=accept-new',
      '-o',
      'ConnectTimeout=2',
      ...BYTE_STREAM,
      'db1',
      'sqlsync',
      'agent',
    ]);
  });

  test('ssh as the remote shell gets options to notice a host that is gone, unless the user has configured that', async () => {
    const asSsh = join(folder, 'keepalive', 'ssh');
    mkdirSync(dirname(asSsh));
    const real = `[ "$1" = -G ] && exec ssh "$@"\n`;
    writeFileSync(asSsh, readFileSync(teller, 'utf8').replace('\n', `\n${real}`), { mode: 0o755 });
    const added = ['-o', 'ServerAliveInterval=15', '-o', 'ServerAliveCountMax=3'];
    assert.deepEqual((await argumentsOf({ rsh: `${asSsh} -F none` })).slice(-7, -3), added);
    const config = join(folder, 'keepalive', 'config');
    writeFileSync(config, 'ServerAliveInterval 7\n', { mode: 0o600 });
    const words = await argumentsOf({ rsh: `${asSsh} -F ${config}` });
    assert.doesNotMatch(words.join(' '), /ServerAlive/);
    assert.deepEqual(words.slice(2, 2 + BYTE_STREAM.length), BYTE_STREAM);
  });

  const skip = started === undefined ? SSHD_MISSING : false;
  test(
    'ssh as the remote shell is a byte stream, though its configuration changes logins by hand',
    { skip },
    async (t) => {
      const path = join(folder, 'by_hand');
      const isNewer = spawnSync('ssh', ['-G', 'x'], { encoding: 'utf8' }).stdout.includes('sessiontype');
      const lines = [
        'RequestTTY force',
        'PermitLocalCommand yes',
        'LocalCommand echo from the local command',
        'RemoteCommand echo from the remote command',
        `LocalForward ${join(folder, 'forwarded')} 127.0.0.1:9`,
        ...(isNewer ? ['SessionType none', 'StdinNull yes', 'ForkAfterAuthentication yes'] : []),
      ];
      writeFileSync(path, `${lines.join('\n')}\n${readFileSync(sshd.sshConfigFile, 'utf8')}`, {
        mode: 0o600,
      });
      const transport = await connectRsh({
        rsh: `ssh -F ${path}`,
        host: 'sqlsync-test',
        remoteCommand: ['tr', 'a-z', 'A-Z'],
      });
      t.after(() => transport.terminate());
      transport.output.end('a line\nand another\r\n');
      const chunks: Buffer[] = [];
      for await (const chunk of transport.input) chunks.push(chunk as Buffer);
      assert.equal(Buffer.concat(chunks).toString(), 'A LINE\nAND ANOTHER\r\n');
      assert.equal(existsSync(join(folder, 'forwarded')), false);
    },
  );

  test('a remote-shell command that cannot be started is CONNECT_FAILED, and the error names it', async () => {
    const transport = await connectRsh({
      rsh: 'ssh-that-nobody-has',
      host: 'db1',
      remoteCommand: ['sqlsync'],
    });
    await assert.rejects(digest(transport.input), (error: SqlsyncError) => {
      assert.equal(error.code, 'CONNECT_FAILED');
      assert.match(error.message, /--rsh command "ssh-that-nobody-has" could not be started/);
      return true;
    });
  });
});

describe('status 255 of ssh', () => {
  for (const [stderr, code] of [
    ['@  WARNING: REVOKED HOST KEY DETECTED!  @\nHost key verification failed.', 'HOST_KEY_MISMATCH'],
    ['No ED25519 host key is known for [h]:1 and you have requested strict checking.', 'HOST_KEY_UNKNOWN'],
    ['Received disconnect from ::1 port 22:2: Too many authentication failures', 'AUTH_FAILED'],
    ['u@h: Permission denied (publickey,password).', 'AUTH_FAILED'],
    ['Connection to h closed by remote host.', 'CONNECTION_LOST'],
    ['Timeout, server h not responding.', 'CONNECTION_LOST'],
    ['kex_exchange_identification: Connection closed by remote host', 'CONNECT_FAILED'],
    ['ssh: Could not resolve hostname h: Name or service not known', 'CONNECT_FAILED'],
    ['', 'CONNECT_FAILED'],
  ] as const) {
    test(`status 255 of ssh is ${code} after ${JSON.stringify(stderr)}`, () => {
      const error = explainOpenssh('ssh h', stderr);
      assert.equal(error.code, code);
      assert.ok(error.hint !== undefined);
      assert.ok(!error.message.includes('@  '), error.message);
    });
  }
});
