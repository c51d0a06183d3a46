import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import Database from 'better-sqlite3';
import { startLink } from '../../bench/link.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { installRemote, remote, runCli } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, the test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-slow-line-'));
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

/** More than what is compressed before the first measurement, and than a trial without compression. */
const BYTES = 72 * 1024 * 1024;

/** A database of so many bytes at least, that shrink to half. */
function makeDatabase(path: string, bytes: number): string {
  const db = new Database(path);
  db.exec('CREATE TABLE t (id INTEGER PRIMARY KEY, data TEXT)');
  db.prepare(
    `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
     INSERT INTO t (data) SELECT hex(randomblob(4000)) FROM n`,
  ).run(Math.ceil(bytes / 8000));
  db.close();
  return path;
}

test(
  'a first copy over a line of 50 Mbit/s travels compressed',
  { skip, timeout: 240_000 },
  async (context) => {
    installRemote(sshd, join(folder, 'agents'));
    const link = await startLink({ host: sshd.host, port: sshd.port, rttMs: 20, bitsPerSecond: 50e6 });
    context.after(() => link.close());
    const knownHosts = join(folder, 'known_hosts');
    const known = readFileSync(sshd.knownHostsFile, 'utf8');
    writeFileSync(knownHosts, known.replaceAll(`:${sshd.port} `, `:${link.port} `));
    const origin = makeDatabase(join(folder, 'origin.db'), BYTES);
    const replica = join(folder, 'replica.db');
    const { status, stderr } = await runCli(sshd, [remote(sshd, origin), replica], {
      port: link.port,
      knownHosts,
    });
    assert.equal(status, 0, stderr);
    assertReplicaOf(origin, replica);
    // Half, and a third of the rest if this machine was so busy that it made a trial without compression.
    assert.ok(link.carried.toNear < 0.85 * BYTES, `${link.carried.toNear} bytes of ${BYTES} on the line`);
  },
);
