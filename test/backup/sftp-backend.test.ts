import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { SftpClient, SftpRefused } from '../../src/backup/backends/sftp/sftp-client.ts';
import { SftpFiles } from '../../src/backup/backends/sftp/sftp-files.ts';
import { systemErrorCode } from '../../src/errors.ts';
import type { SqlsyncError } from '../../src/errors.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { tempDir } from '../support/compare.ts';
import { SFTP_SERVER, SFTP_SERVER_MISSING } from '../support/sftp-server.ts';
import { backendSuite } from './backend-suite.ts';

const skip = SFTP_SERVER === undefined ? SFTP_SERVER_MISSING : false;

/** A server on this host, without SSH. */
function server(...args: string[]): Transport {
  return spawnProcess({ command: SFTP_SERVER as string, args, description: 'sftp-server' });
}

function open(t: TestContext, start: () => Transport = server): Promise<() => SftpFiles> {
  const folder = tempDir(t);
  mkdirSync(join(folder, 'home'));
  const path = join(folder, 'home', 'deep', 'store');
  return Promise.resolve(() => {
    const connect = () => Promise.resolve(start());
    const files = new SftpFiles({ address: `sftp:here:${path}`, path, connect });
    t.after(() => files.close());
    return files;
  });
}

if (SFTP_SERVER === undefined) test('SFTP backends', { skip }, () => {});
else {
  backendSuite('SFTP', (t) => open(t));
  backendSuite('SFTP without extensions', (t) =>
    open(t, () => server('-P', 'hardlink,fsync,posix-rename,statvfs')),
  );
  const stripping = join(import.meta.dirname, 'stripping-sftp-server.ts');
  const real = SFTP_SERVER;
  for (const [what, flags] of [
    ['nothing', '0'],
    ['no mode', '9'],
  ] as const)
    test(`a server whose lists tell ${what} of files has all files all the same`, async (t) => {
      const command = process.execPath;
      const start = () => spawnProcess({ command, args: [stripping, real, flags], description: 'a server' });
      const backend = (await open(t, start))();
      await backend.put('packs/00', [Buffer.from('abc')]);
      await backend.put('packs/01', []);
      const listed = await backend.list('packs');
      assert.deepEqual(
        listed.map(({ name, bytes }) => `${name} ${bytes}`).toSorted((a, b) => (a < b ? -1 : 1)),
        ['00 3', '01 0'],
      );
      assert.ok(listed.every(({ modified }) => Math.abs(modified.getTime() - Date.now()) < 60_000));
    });

  test('a read that the server refuses once is no damage; refused twice it is an error of the disk there', async (t) => {
    const folder = tempDir(t);
    mkdirSync(join(folder, 'live'));
    const flaky = join(import.meta.dirname, '..', 'support', 'flaky-sftp-server.ts');
    const args = [flaky, real, folder];
    const start = () => spawnProcess({ command: process.execPath, args, description: 'a server' });
    const backend = (await open(t, start))();
    await backend.put('packs/00', [Buffer.from('abc')]);
    writeFileSync(join(folder, 'refuse'), 'once\n');
    assert.equal(Buffer.from(await backend.get('packs/00')).toString(), 'abc');
    writeFileSync(join(folder, 'refuse'), 'once\nagain\n');
    await assert.rejects(
      backend.get('packs/00'),
      (error: SqlsyncError) => error.code === 'STORE_UNAVAILABLE' && systemErrorCode(error.cause) === 'EIO',
    );
    assert.equal(readFileSync(join(folder, 'refuse'), 'utf8'), '');
  });

  test('a store that went away is not made again, and its files do not count as missing', async (t) => {
    const folder = join(tempDir(t), 'store');
    const connect = () => Promise.resolve(server());
    const files = new SftpFiles({ address: `sftp:here:${folder}`, path: folder, connect });
    const reader = new SftpFiles({ address: `sftp:here:${folder}`, path: folder, connect }, true);
    t.after(() => [files, reader].forEach((each) => each.close()));
    await files.put('config', [Buffer.from('a store')]);
    await files.put('packs/00', [Buffer.from('x')]);
    renameSync(folder, `${folder}-away`);
    for (const work of [
      () => files.put('packs/01', [Buffer.from('y')]),
      () => files.list('packs'),
      () => files.get('packs/00'),
      () => reader.get('packs/00'),
    ])
      await assert.rejects(work(), { code: 'STORE_UNAVAILABLE' });
    assert.equal(existsSync(folder), false);
  });
}

/** What a program of the shell sends, as an SFTP server. */
function shell(script: string): Transport {
  return spawnProcess({ command: 'sh', args: ['-c', script], description: 'the server' });
}

for (const [what, script, says] of [
  [
    'a text that a login prints',
    `echo Welcome to this host; exec ${SFTP_SERVER}`,
    /does not speak SFTP; it sent "Welcome/,
  ],
  ['nothing', 'exit 0', /ended the connection/],
  ['a packet that ends too early', String.raw`printf '\000\000\000\002\002\000'; sleep 50`, /ends too early/],
  [
    'an older version',
    String.raw`printf '\000\000\000\005\002\000\000\000\002'; sleep 50`,
    /version 2 of SFTP/,
  ],
  ['a packet of 4 GB', String.raw`printf '\377\377\377\377\002'; sleep 50`, /does not speak SFTP/],
] as const) {
  test(`a server that sends ${what} is refused`, { skip }, async (t) => {
    const transport = shell(script);
    t.after(() => transport.terminate());
    await assert.rejects(SftpClient.open(transport), says);
    // Or it would keep the program from ending.
    await transport.exited;
  });
}

test(
  'a server that answers what was not requested is lost, with all requests under way',
  { skip },
  async (t) => {
    const version = String.raw`\000\000\000\005\002\000\000\000\003`;
    const status = String.raw`\000\000\000\011\145\000\000\000\143\000\000\000\000`;
    const transport = shell(`printf '${version}'; head -c 12 > /dev/null; printf '${status}'; sleep 50`);
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
