import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { AuthContext } from 'ssh2';
import { makeSshKey } from './sshd.ts';

export interface SshHost {
  readonly port: number;
  readonly knownHostsFile: string;
}

/**
 * A host whose `authenticate` decides who may log in, and which answers every command with `hello`. No test
 * can give a real sshd a user with a password, so it is ssh2's own server; its key lies below `folder`.
 */
export async function startHost(
  context: TestContext,
  folder: string,
  authenticate: (request: AuthContext) => void,
): Promise<SshHost> {
  const { Server } = (await import('ssh2')).default;
  const hostKey = makeSshKey(join(mkdtempSync(join(folder, 'host-')), 'key'));
  const server = new Server({ hostKeys: [readFileSync(hostKey)] }, (client) => {
    client.on('error', () => {});
    client.on('authentication', authenticate);
    client.on('session', (accept) => {
      accept().on('exec', (acceptExec) => {
        const channel = acceptExec();
        channel.exit(0);
        channel.end('hello\n');
      });
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  context.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const knownHostsFile = `${hostKey}_known`;
  writeFileSync(knownHostsFile, `[127.0.0.1]:${port} ${readFileSync(`${hostKey}.pub`, 'utf8')}`);
  return { port, knownHostsFile };
}
