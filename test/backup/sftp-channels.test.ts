import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { MAX_CHANNELS } from '../../src/backup/backends/sftp/sftp-channels.ts';
import { SftpFiles } from '../../src/backup/backends/sftp/sftp-files.ts';
import { connectRsh } from '../../src/transport/rsh.ts';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { tempDir } from '../support/compare.ts';
import { SFTP_SERVER, SFTP_SERVER_MISSING } from '../support/sftp-server.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const skip = SFTP_SERVER === undefined ? SFTP_SERVER_MISSING : false;

interface Place {
  readonly files: SftpFiles;
  readonly sshd: Sshd;
  /** How many servers sshd has started, one for each channel. */
  started(): number;
}

/**
 * A store behind a real sshd.
 *
 * @param cut - a line of shell that counts as the server's input, by the number of the server in `$n`.
 */
async function placeIn(
  t: TestContext,
  { config = [], cut = 'cat', rsh }: { config?: string[]; cut?: string; rsh?: boolean } = {},
): Promise<Place | undefined> {
  const folder = tempDir(t);
  const starts = join(folder, 'starts');
  mkdirSync(starts);
  const server = join(folder, 'server');
  // A folder is made once: two servers that start at the same time get different numbers.
  writeFileSync(
    server,
    `#!/bin/sh\nn=1\nwhile ! mkdir '${starts}/'$n 2>/dev/null; do n=$((n + 1)); done\n${cut} | ${SFTP_SERVER}\n`,
  );
  chmodSync(server, 0o755);
  const sshd = await startSshd({ config: [`Subsystem sftp ${server}`, ...config] });
  if (sshd === undefined) {
    t.skip(SSHD_MISSING);
    return undefined;
  }
  t.after(() => sshd.stop());
  const path = join(folder, 'store');
  const connect = (): Promise<Transport> => (rsh === true ? byRsh(sshd) : bySsh(sshd));
  const files = new SftpFiles({ address: `sftp:here:${path}`, path, connect });
  t.after(() => files.close());
  const started = (): number => {
    for (let n = 0; ; n++) if (!existsSync(join(starts, String(n + 1)))) return n;
  };
  return { files, sshd, started };
}

function bySsh({ host, port, user, clientKey, knownHostsFile }: Sshd): Promise<Transport> {
  const login = { identityFiles: [clientKey], knownHostsFiles: [knownHostsFile], configFile: 'none' };
  return connectSsh({ host, port, user, ...login, agentSocket: false, command: 'sftp', isSubsystem: true });
}

function byRsh({ sshConfigFile }: Sshd): Promise<Transport> {
  const rsh = `ssh -F '${sshConfigFile}'`;
  return connectRsh({ rsh, host: 'sqlsync-test', remoteCommand: ['sftp'], isSubsystem: true });
}

/** Puts many large files at once, with small operations in between, and compares all of them. */
async function putMany({ files }: Place): Promise<void> {
  const bytes = Array.from({ length: 12 }, () => randomBytes(3e6));
  await files.put('packs/first', [Buffer.from('first')]);
  await Promise.all(bytes.flatMap((file, i) => [files.put(`packs/${i}`, [file]), files.list('snapshots')]));
  const read = await Promise.all(bytes.map((_, i) => files.get(`packs/${i}`)));
  for (const [i, file] of bytes.entries()) assert.ok(file.equals(read[i] as Uint8Array), `file ${i}`);
  const listed = new Set((await files.list('packs')).map(({ name }) => name));
  assert.ok([...bytes.keys()].every((i) => listed.has(String(i))));
}

function logins({ sshd }: Place): number {
  return sshd.log().split('Accepted publickey').length - 1;
}

describe('the channels of a login to an SFTP server', { skip }, () => {
  test('large files go through several channels of one login at once, and small ones need no second', async (t) => {
    const place = await placeIn(t);
    if (place === undefined) return;
    await place.files.put('packs/small', [Buffer.from('a')]);
    await Promise.all(Array.from({ length: 20 }, () => place.files.get('packs/small')));
    assert.equal(place.started(), 1);
    await putMany(place);
    assert.equal(logins(place), 1);
    assert.ok(place.started() > 1 && place.started() <= MAX_CHANNELS, String(place.started()));
  });

  for (const most of [1, 3])
    test(`a server that allows ${most} at a time gets all files through these`, async (t) => {
      const place = await placeIn(t, { config: [`MaxSessions ${most}`] });
      if (place === undefined) return;
      await putMany(place);
      await putMany(place);
      assert.deepEqual([logins(place), place.started()], [1, most]);
    });

  test('what a channel did that died in the middle is done again in those that are left', async (t) => {
    const place = await placeIn(t, {
      cut: 'if [ $n -gt 1 ]; then dd bs=32768 count=40 2>/dev/null; else cat; fi',
    });
    if (place === undefined) return;
    await putMany(place);
    assert.equal(logins(place), 1);
    assert.ok(place.started() > 1);
  });

  test('if the first channel dies, everything begins again over another login', async (t) => {
    const place = await placeIn(t, {
      cut: 'if [ $n -eq 1 ]; then dd bs=32768 count=40 2>/dev/null; else cat; fi',
    });
    if (place === undefined) return;
    await putMany(place);
    assert.equal(logins(place), 2);
  });

  test('a remote shell logs in once, since each channel would be a login', async (t) => {
    const place = await placeIn(t, { rsh: true });
    if (place === undefined) return;
    await putMany(place);
    assert.deepEqual([logins(place), place.started()], [1, 1]);
  });
});
