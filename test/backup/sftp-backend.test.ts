import assert from 'node:assert/strict';
import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { SftpClient, SftpRefused } from '../../src/backup/backends/sftp/sftp-client.ts';
import { SftpFiles } from '../../src/backup/backends/sftp/sftp-files.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { tempDir } from '../support/compare.ts';
import { backendSuite } from './backend-suite.ts';

/** Where Debian, Alpine, Fedora and macOS have OpenSSH's server. */
const SERVER = [
  '/usr/lib/openssh/sftp-server',
  '/usr/lib/ssh/sftp-server',
  '/usr/libexec/openssh/sftp-server',
  '/usr/libexec/sftp-server',
].find((path) => existsSync(path));

const skip = SERVER === undefined ? 'NOT TESTED: OpenSSH’s sftp-server is missing' : false;

/** A server on this host, without SSH. */
function server(...args: string[]): Transport {
  return spawnProcess({ command: SERVER as string, args, description: 'sftp-server' });
}

function open(t: TestContext, ...args: string[]): Promise<() => SftpFiles> {
  const folder = tempDir(t);
  mkdirSync(join(folder, 'home'));
  const path = join(folder, 'home', 'deep', 'store');
  return Promise.resolve(() => {
    const connect = () => Promise.resolve(server(...args));
    const files = new SftpFiles({ address: `sftp:here:${path}`, path, connect });
    t.after(() => files.close());
    return files;
  });
}

if (SERVER === undefined) test('SFTP backends', { skip }, () => {});
else {
  backendSuite('SFTP', (t) => open(t));
  backendSuite('SFTP without extensions', (t) => open(t, '-P', 'hardlink,fsync,posix-rename,statvfs'));
}

/** What a program of the shell sends, as an SFTP server. */
function shell(script: string): Transport {
  return spawnProcess({ command: 'sh', args: ['-c', script], description: 'the server' });
}

for (const [what, script, says] of [
  [
    'a text that a login prints',
    `echo Welcome to this host; exec ${SERVER}`,
    /does not speak SFTP; it sent "Welcome/,
  ],
  ['nothing', 'exit 0', /ended the connection/],
  ['a packet that ends too early', String.raw`printf '\000\000\000\002\002\000'; sleep 5`, /ends too early/],
  ['a packet of 4 GB', String.raw`printf '\377\377\377\377\002'; sleep 5`, /does not speak SFTP/],
] as const) {
  test(`a server that sends ${what} is refused`, { skip }, async (t) => {
    const transport = shell(script);
    t.after(() => transport.terminate());
    await assert.rejects(SftpClient.open(transport), says);
  });
}

test(
  'a server that answers what was not requested is lost, with all requests under way',
  { skip },
  async (t) => {
    const version = String.raw`\000\000\000\005\002\000\000\000\003`;
    const status = String.raw`\000\000\000\011\145\000\000\000\143\000\000\000\000`;
    const transport = shell(`printf '${version}'; head -c 12 > /dev/null; printf '${status}'; sleep 5`);
    t.after(() => transport.terminate());
    const client = await SftpClient.open(transport);
    const outcomes = await Promise.allSettled([client.stat('/a'), client.stat('/b')]);
    assert.deepEqual(
      outcomes.map(({ status: outcome }) => outcome),
      ['rejected', 'rejected'],
    );
    assert.ok(client.isLost);
  },
);

test('a refusal has the status and the words of the server', { skip }, async (t) => {
  const transport = server();
  t.after(() => transport.terminate());
  const client = await SftpClient.open(transport);
  await assert.rejects(
    client.stat('/no/such/file'),
    (error) => error instanceof SftpRefused && error.status === 2,
  );
});
