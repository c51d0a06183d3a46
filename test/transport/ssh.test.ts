import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { SqlsyncError } from '../../src/errors.ts';
import { hostKeyFingerprint } from '../../src/transport/ssh/known-hosts.ts';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import type { SshOptions } from '../../src/transport/ssh/ssh.ts';
import { parsePublicKeyFile } from '../../src/transport/ssh/ssh-key-file.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { startAgent } from '../support/ssh-agent.ts';
import { SSHD_MISSING, makeSshKey, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { ECHO_PROGRAM, digest, transportSuite } from './transport-suite.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-ssh-'));
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

function connectTo(server: Sshd, options: Partial<SshOptions> & { command: string }): Promise<Transport> {
  return connectSsh({
    host: server.host,
    port: server.port,
    user: server.user,
    knownHostsFiles: [server.knownHostsFile],
    identityFiles: [server.clientKey],
    agentSocket: false,
    configFile: 'none',
    ask: false,
    ...options,
  });
}

async function open(
  context: TestContext,
  options: Partial<SshOptions> & { command: string },
  server: Sshd = sshd,
): Promise<Transport> {
  const transport = await connectTo(server, options);
  context.after(() => transport.terminate());
  return transport;
}

function fingerprintOf(privateKey: string): string {
  const key = parsePublicKeyFile(readFileSync(`${privateKey}.pub`, 'utf8'));
  assert.ok(key !== undefined);
  return hostKeyFingerprint(key);
}

async function refusal(attempt: Promise<unknown>): Promise<SqlsyncError> {
  let refused: unknown;
  await assert.rejects(attempt, (error) => {
    refused = error;
    return true;
  });
  const error = refused as SqlsyncError;
  assert.equal(error.name, 'SqlsyncError', String(error.stack));
  assert.ok(error.hint !== undefined, `no hint: ${error.message}`);
  return error;
}

transportSuite(
  'ssh',
  async (context) => {
    const transport = await open(context, { command: `node -e '${ECHO_PROGRAM}'` });
    return { transport, mediumBytes: 24 * 1024 * 1024 };
  },
  skip,
);

describe('the remote command', { skip }, () => {
  test('the remote command is found on the PATH of the remote user, and its exit status and stderr come back', async (context) => {
    sshd.addExecutable('sqlsync', '#!/bin/sh\necho "agent $1"; echo "some trouble" >&2; exit 7\n');
    const seen: string[] = [];
    const transport = await open(context, { command: 'sqlsync agent', onStderr: (text) => seen.push(text) });
    const answer: Buffer[] = [];
    for await (const chunk of transport.input as AsyncIterable<Buffer>) answer.push(chunk);
    assert.equal(Buffer.concat(answer).toString(), 'agent agent\n');
    assert.deepEqual(await transport.exited, { status: 7, signal: null, stderr: 'some trouble' });
    assert.equal(seen.join(''), 'some trouble\n');
    assert.match(transport.description, /^ssh .*@127\.0\.0\.1/);
  });

  test("a missing remote command fails the input with REMOTE_EXE_NOT_FOUND, the host, the command and the shell's message", async (context) => {
    const transport = await open(context, { command: 'sqlsync-that-nobody-has agent' });
    const error = await refusal(digest(transport.input));
    assert.equal(error.code, 'REMOTE_EXE_NOT_FOUND');
    for (const part of [/127\.0\.0\.1/, /sqlsync-that-nobody-has agent/, /not found/])
      assert.match(error.message, part);
    assert.match(error.hint ?? '', /--remote-exe/);
    assert.equal((await transport.exited).status, 127);
  });

  test('a remote command that is killed ends the input cleanly, and `exited` names the signal', async (context) => {
    const transport = await open(context, { command: 'echo some; kill -TERM $$' });
    assert.equal((await digest(transport.input)).byteCount, 5);
    assert.deepEqual(await transport.exited, { status: null, signal: 'SIGTERM', stderr: '' });
  });

  test('a remote command that ends while we write fails the writes', async (context) => {
    const transport = await open(context, { command: 'true' });
    await digest(transport.input);
    await transport.exited;
    assert.ok((await lastWrite(transport)) instanceof Error);
  });

  test('a remote command without a channel is REMOTE_EXE_NOT_FOUND', async (context) => {
    const closed = await startSshd({ config: ['MaxSessions 0'] });
    assert.ok(closed !== undefined);
    context.after(() => closed.stop());
    const error = await refusal(connectTo(closed, { command: 'true' }));
    assert.equal(error.code, 'REMOTE_EXE_NOT_FOUND');
  });
});

describe('the host key', { skip }, () => {
  function knownHosts(name: string, text: string): string {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  }

  test('a host key that is another than expected is HOST_KEY_MISMATCH, with the file, the line and how to forget it', async () => {
    const wrong = makeSshKey(join(folder, 'wrong_host'));
    const text = `# first\n[127.0.0.1]:${sshd.port} ${readFileSync(`${wrong}.pub`, 'utf8')}`;
    const path = knownHosts('known wrong', text);
    const error = await refusal(connectTo(sshd, { command: 'true', knownHostsFiles: [path] }));
    assert.equal(error.code, 'HOST_KEY_MISMATCH');
    assert.ok(error.message.includes(`${path} line 2`));
    assert.ok(error.message.includes(fingerprintOf(sshd.hostKeys.ed25519 ?? '')));
    assert.ok(error.message.includes(fingerprintOf(wrong)));
    // The hint is a command that works.
    const command = /`(ssh-keygen [^`]*)`/.exec(error.hint ?? '')?.[1] ?? '';
    execFileSync('sh', ['-c', command], { stdio: 'ignore' });
    const again = await refusal(connectTo(sshd, { command: 'true', knownHostsFiles: [path] }));
    assert.equal(again.code, 'HOST_KEY_UNKNOWN');
  });

  test('the key of an unknown host is HOST_KEY_UNKNOWN, with its fingerprint and what to do', async () => {
    const missing = join(folder, 'no-such-file');
    const error = await refusal(connectTo(sshd, { command: 'true', knownHostsFiles: [missing] }));
    assert.equal(error.code, 'HOST_KEY_UNKNOWN');
    assert.ok(error.message.includes(fingerprintOf(sshd.hostKeys.ed25519 ?? '')));
    assert.match(error.hint ?? '', new RegExp(`ssh -p ${sshd.port} 127\\.0\\.0\\.1`));
  });

  test('a host key is never accepted if known_hosts exists and cannot be read', async () => {
    const error = await refusal(
      connectTo(sshd, { command: 'true', knownHostsFiles: [sshd.knownHostsFile, folder] }),
    );
    assert.equal(error.code, 'HOST_KEY_UNKNOWN');
    assert.match(error.message, /EISDIR/);
  });

  test('a host key that is revoked is refused', async () => {
    const known = readFileSync(sshd.knownHostsFile, 'utf8');
    const path = knownHosts('revoked', `${known}@revoked ${known}`);
    const error = await refusal(connectTo(sshd, { command: 'true', knownHostsFiles: [path] }));
    assert.equal(error.code, 'HOST_KEY_MISMATCH');
    assert.match(error.message, /revoked/);
  });

  test('a host key is asked for by a type that known_hosts holds, though the host has another that we would prefer', async (context) => {
    const many = await startSshd({ hostKeyTypes: ['ed25519', 'ecdsa', 'rsa'] });
    assert.ok(many !== undefined);
    context.after(() => many.stop());
    const lines = readFileSync(many.knownHostsFile, 'utf8').split('\n');
    for (const type of ['ssh-ed25519', 'ecdsa-sha2-nistp256', 'ssh-rsa']) {
      const path = knownHosts(type, lines.filter((line) => line.includes(` ${type} `)).join('\n'));
      const transport = await open(context, { command: 'echo hello', knownHostsFiles: [path] }, many);
      assert.equal((await digest(transport.input)).byteCount, 6);
    }
  });

  test('a host key of another type than the known one is HOST_KEY_UNKNOWN, and the error says which is known', async () => {
    const rsa = makeSshKey(join(folder, 'rsa_host'), 'rsa');
    const path = knownHosts('other-type', `[127.0.0.1]:${sshd.port} ${readFileSync(`${rsa}.pub`, 'utf8')}`);
    const error = await refusal(connectTo(sshd, { command: 'true', knownHostsFiles: [path] }));
    assert.equal(error.code, 'HOST_KEY_UNKNOWN');
    assert.match(error.message, /only a ssh-rsa key is known .*other-type line 1/);
  });
});

describe('authentication', { skip }, () => {
  test('authentication with a key file works', async (context) => {
    const transport = await open(context, { command: 'echo hello' });
    assert.equal((await digest(transport.input)).byteCount, 6);
  });

  test('authentication with a key that only an agent holds works', async (context) => {
    const agent = await startAgent(context, folder, [sshd.clientKey]);
    const transport = await open(context, { command: 'echo hello', agentSocket: agent, identityFiles: [] });
    assert.equal((await digest(transport.input)).byteCount, 6);
  });

  test('authentication with an RSA key works, from a file and from an agent', async (context) => {
    const rsa = makeSshKey(join(folder, 'client_rsa'), 'rsa');
    appendFileSync(sshd.authorizedKeysFile, readFileSync(`${rsa}.pub`));
    const agent = await startAgent(context, folder, [rsa]);
    for (const options of [{ identityFiles: [rsa] }, { identityFiles: [], agentSocket: agent }]) {
      const transport = await open(context, { command: 'echo hello', ...options });
      assert.equal((await digest(transport.input)).byteCount, 6);
    }
  });

  test('authentication with an encrypted key file works if the agent holds that key, though it holds many others', async (context) => {
    const encrypted = join(folder, 'client_encrypted');
    writeFileSync(encrypted, readFileSync(sshd.clientKey), { mode: 0o600 });
    execFileSync('ssh-keygen', ['-q', '-p', '-N', 'open sesame', '-f', encrypted]);
    // More than the six keys that a host lets anyone try.
    const others = Array.from({ length: 7 }, (_, index) => makeSshKey(join(folder, `other_${index}`)));
    const agent = await startAgent(context, folder, [...others, sshd.clientKey]);
    const transport = await open(context, {
      command: 'echo hello',
      agentSocket: agent,
      identityFiles: [encrypted],
    });
    assert.equal((await digest(transport.input)).byteCount, 6);
    const error = await refusal(connectTo(sshd, { command: 'true', agentSocket: agent, identityFiles: [] }));
    assert.equal(error.code, 'AUTH_FAILED');
    assert.match(error.message, /[Tt]oo many/);
  });

  test('authentication with a wrong key is AUTH_FAILED, and says which key was tried and what the host accepts', async () => {
    const wrong = makeSshKey(join(folder, 'wrong_client'));
    const error = await refusal(connectTo(sshd, { command: 'true', identityFiles: [wrong] }));
    assert.equal(error.code, 'AUTH_FAILED');
    assert.ok(error.message.includes(wrong) && error.message.includes(fingerprintOf(wrong)));
    assert.match(error.message, /accepts publickey/);
  });

  test('authentication with an encrypted key and no agent is AUTH_FAILED, and says so plainly', async () => {
    const encrypted = makeSshKey(join(folder, 'encrypted'), 'ed25519', 'open sesame');
    const error = await refusal(connectTo(sshd, { command: 'true', identityFiles: [encrypted] }));
    assert.equal(error.code, 'AUTH_FAILED');
    assert.match(error.message, /encrypted with a passphrase/);
    assert.match(error.hint ?? '', /ssh-add/);
  });

  test('authentication with no key at all, a missing key or a file that is none is AUTH_FAILED', async () => {
    const none = await refusal(connectTo(sshd, { command: 'true', identityFiles: [] }));
    assert.equal(none.code, 'AUTH_FAILED');
    assert.match(none.message, /no key to offer/);
    const files = [join(folder, 'missing'), sshd.knownHostsFile];
    const bad = await refusal(connectTo(sshd, { command: 'true', identityFiles: files }));
    assert.equal(bad.code, 'AUTH_FAILED');
    assert.match(bad.message, /ENOENT.*not a private key/);
  });

  test('authentication goes on with the key files if the agent is gone', async (context) => {
    const agentSocket = join(folder, 'no-agent');
    const transport = await open(context, { command: 'echo hello', agentSocket });
    assert.equal((await digest(transport.input)).byteCount, 6);
    const error = await refusal(connectTo(sshd, { command: 'true', agentSocket, identityFiles: [] }));
    assert.match(error.message, /agent failed/);
  });
});

describe('connecting', () => {
  const nowhere = {
    command: 'true',
    configFile: 'none',
    ask: false,
    user: 'nobody',
    agentSocket: false,
    identityFiles: [],
    knownHostsFiles: [],
  } as const;
  const options = (port: number): SshOptions => ({
    ...nowhere,
    host: '127.0.0.1',
    port,
    identityFiles: [],
    knownHostsFiles: [],
  });

  test('connecting to a port where nobody listens is CONNECT_FAILED', async () => {
    const error = await refusal(connectSsh(options(await silentPort(true))));
    assert.equal(error.code, 'CONNECT_FAILED');
    assert.match(error.message, /refused/);
  });

  test('connecting to a name that does not exist is CONNECT_FAILED', async () => {
    const error = await refusal(connectSsh({ ...options(22), host: 'no-such-host.invalid' }));
    assert.equal(error.code, 'CONNECT_FAILED');
  });

  test('connecting to a host that never answers is CONNECT_FAILED after the time limit, and says what it waited for', async (context) => {
    const port = await silentPort(false, context);
    const error = await refusal(connectSsh({ ...options(port), connectTimeoutMs: 50 }));
    assert.equal(error.code, 'CONNECT_FAILED');
    assert.match(error.message, /0\.05 s/);
  });

  test('connecting to a server that speaks no SSH, or hangs up, is CONNECT_FAILED', async (context) => {
    for (const greeting of ['HTTP/1.1 400 Bad Request\r\n\r\n', '', 'SSH-2.0-x\r\n']) {
      const server = createServer((socket) => socket.on('error', () => {}).end(greeting)).listen(
        0,
        '127.0.0.1',
      );
      context.after(() => server.close());
      await once(server, 'listening');
      const error = await refusal(connectSsh(options((server.address() as AddressInfo).port)));
      assert.equal(error.code, 'CONNECT_FAILED', greeting);
    }
  });

  test('connecting is INTERRUPTED by its signal, before it began and while it waits', async (context) => {
    const early = await refusal(connectSsh({ ...options(22), signal: AbortSignal.abort() }));
    assert.equal(early.code, 'INTERRUPTED');
    const controller = new AbortController();
    const port = await silentPort(false, context, () => controller.abort());
    const late = await refusal(connectSsh({ ...options(port), signal: controller.signal }));
    assert.equal(late.code, 'INTERRUPTED');
  });
});

describe('a connection that drops', { skip }, () => {
  test('a connection that drops while we read is CONNECTION_LOST after the bytes that arrived', async (context) => {
    // The parent of the remote shell is the sshd process that serves this connection.
    const transport = await open(context, { command: 'head -c 300000 /dev/zero; read go; kill -9 $PPID' });
    let byteCount = 0;
    const error = await refusal(
      (async () => {
        for await (const chunk of transport.input as AsyncIterable<Buffer>) {
          byteCount += chunk.length;
          if (byteCount === 300_000) transport.output.write('go\n');
        }
      })(),
    );
    assert.equal(error.code, 'CONNECTION_LOST');
    assert.equal(byteCount, 300_000);
    assert.equal((await transport.exited).status, null);
  });

  test('a connection that drops fails the waiting writes, and ends every wait for `drain`', async (context) => {
    const untilOrphaned = 'echo up; while kill -0 $PPID 2>/dev/null; do sleep 0.1; done';
    const transport = await open(context, { command: untilOrphaned });
    await once(transport.input, 'data');
    const closed = once(transport.output, 'close');
    const write = lastWrite(transport);
    assert.equal(transport.output.writableNeedDrain, true);
    sshd.killSessions();
    assert.equal(((await write) as SqlsyncError).code, 'CONNECTION_LOST');
    await closed.catch(() => {});
    assert.equal((await refusal(digest(transport.input))).code, 'CONNECTION_LOST');
  });

  test('a connection that drops without a byte read is CONNECTION_LOST, not a missing program', async (context) => {
    // It may die before it could say that the command was started, or after.
    const reading = open(context, { command: 'kill -9 $PPID' }).then(({ input }) => digest(input));
    assert.equal((await refusal(reading)).code, 'CONNECTION_LOST');
  });
});

test('a host that sends more than the SSH window allows is cut off', { skip }, async (context) => {
  // No sshd does this; ssh2's own server does if it believes that the window is endless.
  const { Server } = (await import('ssh2')).default;
  const hostKey = makeSshKey(join(folder, 'flood_host'));
  const server = new Server({ hostKeys: [readFileSync(hostKey)] }, (client) => {
    client.on('error', () => {});
    client.on('authentication', (request) => request.accept());
    client.on('session', (accept) => {
      accept().on('exec', (acceptExec) => {
        const channel = acceptExec() as unknown as NodeJS.WritableStream & { outgoing: { window: number } };
        channel.outgoing.window = 2 ** 31;
        // A size that never fills the window exactly: then ssh2 would just drop the rest.
        for (let sent = 0; sent < 32 * 1024 * 1024; sent += 30_001) channel.write(Buffer.alloc(30_001));
      });
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const knownHostsFile = join(folder, 'flood_known_hosts');
  writeFileSync(knownHostsFile, `[127.0.0.1]:${port} ${readFileSync(`${hostKey}.pub`, 'utf8')}`);
  const transport = await open(context, { port, knownHostsFiles: [knownHostsFile], command: 'flood' });
  const [error] = (await once(transport.input, 'error')) as [SqlsyncError];
  assert.equal(error.code, 'PROTOCOL');
  await transport.exited;
});

/** Writes more than any medium holds, and returns how the last write ended. */
function lastWrite(transport: Transport): Promise<unknown> {
  transport.output.write(Buffer.alloc(32 * 1024 * 1024));
  return new Promise((resolve) => transport.output.write('x', resolve));
}

/** A port that accepts connections and says nothing, or, closed, refuses them. */
async function silentPort(
  closed: boolean,
  context?: TestContext,
  onConnection?: () => void,
): Promise<number> {
  const server = createServer((socket) => {
    context?.after(() => socket.destroy());
    onConnection?.();
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  if (closed) await new Promise((resolve) => server.close(resolve));
  else context?.after(() => server.close());
  return port;
}
