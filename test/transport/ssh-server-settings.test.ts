import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { connectRsh } from '../../src/transport/rsh.ts';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { ECHO_PROGRAM, digest } from './transport-suite.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-server-'));
const banner = join(folder, 'banner');
writeFileSync(banner, 'Authorized use only.\n');
const started = await startSshd({
  config: ['MaxSessions 1', 'RekeyLimit 1M', `Banner ${banner}`, 'PrintLastLog yes', 'AllowTcpForwarding no'],
});
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

/** The host and the client exchange keys anew after this many bytes, in either direction. */
const MEBIBYTES = 12;

interface Way {
  name: string;
  connect: (port: number, keepaliveMs: number, command: string) => Promise<Transport>;
}

const WAYS: Way[] = [
  {
    name: 'the SSH built in',
    connect: (port, keepaliveIntervalMs, command) =>
      connectSsh({
        host: '127.0.0.1',
        port,
        user: sshd.user,
        configFile: 'none',
        knownHostsFiles: [knownHostsFor(port)],
        identityFiles: [sshd.clientKey],
        agentSocket: false,
        ask: false,
        keepaliveIntervalMs,
        command,
      }),
  },
  {
    name: '--rsh ssh',
    connect: (port, keepaliveMs, command) =>
      connectRsh({
        rsh: `ssh -F none -o BatchMode=yes -o ServerAliveInterval=${Math.ceil(keepaliveMs / 1000)} -o ServerAliveCountMax=1`,
        host: '127.0.0.1',
        user: sshd.user,
        remoteCommand: [command],
        ssh: { port, knownHostsFiles: [knownHostsFor(port)], identityFiles: [sshd.clientKey] },
      }),
  },
];

/** A proxy on another port, which has the host's key, may be in between. */
function knownHostsFor(port: number): string {
  const path = join(folder, `known_${port}`);
  writeFileSync(path, readFileSync(sshd.knownHostsFile, 'utf8').replace(`]:${sshd.port} `, `]:${port} `));
  return path;
}

/** Lets everything pass to sshd until it stalls: then nothing, and it tells neither side. */
async function startStallingProxy(context: TestContext): Promise<{ port: number; stall: () => void }> {
  const sockets: Socket[] = [];
  const server = createServer((near) => {
    const far = createConnection(sshd.port, sshd.host);
    sockets.push(near, far);
    near.on('error', () => {}).on('close', () => far.destroy());
    far.on('error', () => {}).on('close', () => near.destroy());
    near.pipe(far);
    far.pipe(near);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const stall = (): void => {
    for (const socket of sockets) socket.unpipe().pause();
  };
  return { port: (server.address() as AddressInfo).port, stall };
}

describe('a host with one session, a banner and a limit for the keys of a connection', { skip }, () => {
  for (const { name, connect } of WAYS) {
    test(`a host with these settings carries any number of bytes, over many exchanges of keys, by ${name}`, async (context) => {
      const transport = await connect(sshd.port, 5000, `node -e '${ECHO_PROGRAM}'`);
      context.after(() => transport.terminate());
      const bytes = randomBytes(1024 * 1024);
      const received = digest(transport.input);
      for (let i = 0; i < MEBIBYTES; i++) {
        if (!transport.output.write(bytes)) await once(transport.output, 'drain');
      }
      transport.output.end();
      assert.equal((await received).byteCount, MEBIBYTES * bytes.length);
      assert.equal((await transport.exited).status, 0);
    });

    test(`a host that falls silent in mid-connection is lost after a few keepalives, by ${name}`, async (context) => {
      const proxy = await startStallingProxy(context);
      const transport = await connect(proxy.port, 200, 'echo up; cat');
      context.after(() => transport.terminate());
      await once(transport.input, 'data');
      proxy.stall();
      // OpenSSH's input just ends, after bytes have come; its status and stderr say why.
      const outcome = await digest(transport.input).catch((error: unknown) => error);
      const { status, stderr } = await transport.exited;
      if (name === '--rsh ssh')
        assert.match(`${status} ${stderr}`, /^255 .*Timeout, server .* not responding/s);
      else assert.equal((outcome as { code?: string }).code, 'CONNECTION_LOST');
    });
  }

  test('a host that allows no forwarding is no jump host, and the error says so', async () => {
    const attempt = connectSsh({
      host: 'localhost',
      port: sshd.port,
      user: sshd.user,
      jump: `${sshd.user}@127.0.0.1:${sshd.port}`,
      configFile: 'none',
      knownHostsFiles: [sshd.knownHostsFile],
      identityFiles: [sshd.clientKey],
      agentSocket: false,
      ask: false,
      command: 'true',
    });
    await assert.rejects(attempt, { code: 'CONNECT_FAILED', hint: /allows TCP forwarding/ });
  });
});
