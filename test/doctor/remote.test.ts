import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Facts } from '../../src/doctor/facts.ts';
import type { WatchSummary } from '../../src/doctor/watch/explain.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { folderState } from '../cli/command.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { installRemote, remote, runCli, SSH_WAYS } from '../support/ssh-cli.ts';
import type { CliOptions } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { holders, ids } from './holders.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test is skipped
const scratch = mkdtempSync(join(tmpdir(), 'sqlsync-doctor-'));
if (started !== undefined) installRemote(sshd, join(scratch, 'pids'));
after(async () => {
  await started?.stop();
  rmSync(scratch, { recursive: true });
});

/** A database of which another process holds the write lock. */
async function held(t: TestContext): Promise<{ folder: string; path: string; pid: number }> {
  const folder = tempDir(t);
  const path = join(folder, 'app.db');
  smallDatabase(path);
  const other = new OtherProcess(t);
  await (await other.open(path)).exec('BEGIN IMMEDIATE');
  return { folder, path, pid: other.pid };
}

async function doctor(
  path: string,
  args: readonly string[] = [],
  options: CliOptions = {},
): Promise<{ status: number | null; facts: Facts; findings: readonly Finding[] }> {
  const { status, events } = await runCli(sshd, ['doctor', remote(sshd, path), ...args], options);
  const summary = events.get('summary');
  assert.ok(summary !== undefined, JSON.stringify(events.get('error')));
  return { status, ...(summary as unknown as { facts: Facts; findings: Finding[] }) };
}

function allowOnly(flags: string): void {
  const key = readFileSync(`${sshd.clientKey}.pub`, 'utf8');
  writeFileSync(sshd.authorizedKeysFile, `restrict,command="sqlsync agent --restrict ${flags}" ${key}`);
}

describe('sqlsync doctor HOST:PATH', { skip }, () => {
  for (const { name, rsh } of SSH_WAYS) {
    test(`sqlsync doctor shows a database of another host, by ${name}, and writes nothing there`, async (t) => {
      const { folder, path, pid } = await held(t);
      const before = folderState(folder);
      const { status, facts, findings } = await doctor(path, ['--full'], { rsh });
      assert.equal(status, 1);
      assert.deepEqual(holders(facts, 'WRITE', 'RESERVED'), [pid]);
      assert.ok(ids(findings).includes('write-lock-held'));
      assert.match(facts.processes.find((one) => one.pid === pid)?.command ?? '', /node/);
      assert.ok(facts.full !== undefined);
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('--watch looks at a database of another host, names its writer, and leaves the host its time', async (t) => {
    const { path, pid } = await held(t);
    const args = ['doctor', '--watch', '--interval', '20ms', '--max-time', '6s', remote(sshd, path)];
    const { status, events } = await runCli(sshd, args);
    const { looks, processes } = events.get('summary') as unknown as WatchSummary;
    assert.equal(status, 0);
    // Each look there takes at least as long as its pauses between four looks.
    assert.ok(looks > 0 && looks < 6000 / 60, String(looks));
    assert.equal(processes.find((each) => each.pid === pid)?.heldShare, 1);
    assert.ok(((await doctor(path)).facts.busyMs ?? 0) > 0);
  });

  test('a restricted key sees who holds which lock, but no command lines, users or containers', async (t) => {
    const { folder, path, pid } = await held(t);
    const keys = readFileSync(sshd.authorizedKeysFile, 'utf8');
    t.after(() => writeFileSync(sshd.authorizedKeysFile, keys));
    allowOnly(`'${folder}' --read-only`);
    const { facts, findings } = await doctor(path);
    const one = facts.processes.find((process) => process.pid === pid);
    assert.deepEqual(holders(facts, 'WRITE', 'RESERVED'), [pid]);
    assert.deepEqual(
      ['command', 'user', 'container', 'otherName'].filter((field) => field in (one as object)),
      [],
    );
    assert.ok(one?.libraries.every((library) => !library.includes('/')));
    assert.doesNotMatch(JSON.stringify({ facts, findings }), /node_modules|database-child/);
    assert.match(facts.unseen.join(), /withheld/);
  });

  test('a restricted key learns from BUSY which process holds the lock, but not its command line', async (t) => {
    const { folder, path, pid } = await held(t);
    const keys = readFileSync(sshd.authorizedKeysFile, 'utf8');
    t.after(() => writeFileSync(sshd.authorizedKeysFile, keys));
    allowOnly(`'${folder}'`);
    const origin = join(tempDir(t), 'near.db');
    smallDatabase(origin, { seed: 2 });
    const args = [origin, remote(sshd, path), '--overwrite', '--busy-timeout', '1'];
    const { events } = await runCli(sshd, args);
    const { code, message } = events.get('error') as { code: string; message: string };
    assert.equal(code, 'BUSY');
    assert.match(message, new RegExp(`PID ${pid} holds it`));
    assert.doesNotMatch(message, /node/);
  });

  test('a restricted key may look at no database outside of its folder, and at none with --write-only', async (t) => {
    const { folder, path } = await held(t);
    const outside = await held(t);
    const keys = readFileSync(sshd.authorizedKeysFile, 'utf8');
    t.after(() => writeFileSync(sshd.authorizedKeysFile, keys));
    for (const [flags, named] of [
      [`'${folder}'`, outside.path],
      [`'${folder}' --write-only`, path],
    ] as const) {
      allowOnly(flags);
      const { status, events } = await runCli(sshd, ['doctor', remote(sshd, named)]);
      assert.deepEqual([status, events.get('error')?.['code']], [17, 'RESTRICTED']);
    }
  });
});
