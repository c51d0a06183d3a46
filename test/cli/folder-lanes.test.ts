import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { smallDatabase } from '../pages/databases.ts';
import { assertSamePages, tempDir } from '../support/compare.ts';
import { agentsGone, installRemote, remote, startCli } from '../support/ssh-cli.ts';
import type { CliResult } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test is skipped
const scratch = mkdtempSync(join(tmpdir(), 'sqlsync-folder-lanes-'));
const pids = join(scratch, 'pids');
if (started !== undefined) installRemote(sshd, pids);
after(async () => {
  await started?.stop();
  rmSync(scratch, { recursive: true });
});

const NAMES = Array.from({ length: 16 }, (_, i) => `${String(i).padStart(2, '0')}.db`);
/** The second one: the first conversation waits for it when the others begin. */
const HELD = NAMES[1] as string;

interface HeldRun {
  readonly from: string;
  readonly to: string;
  readonly run: ReturnType<typeof startCli>;
  /** Lets the copy of `HELD` go on. */
  readonly release: () => void;
}

/** A run in which all databases but `HELD` are copied, and that one waits for a lock of this process. */
async function heldRun(
  t: TestContext,
  way: 'fetched' | 'sent',
  args: readonly string[] = [],
): Promise<HeldRun> {
  const [from, to] = [tempDir(t), tempDir(t)];
  for (const [seed, name] of NAMES.entries())
    smallDatabase(join(from, name), { rows: 1, journalMode: 'delete', seed });
  const holder = new Database(join(from, HELD));
  t.after(() => holder.close());
  holder.exec('BEGIN EXCLUSIVE');
  const words = way === 'fetched' ? [remote(sshd, from), to] : [from, remote(sshd, to)];
  const run = startCli(sshd, ['--recursive', ...words, '--busy-timeout', '10m', ...args]);
  const copied = (): number => readdirSync(to).filter((name) => NAMES.includes(name)).length;
  let ended: CliResult | undefined;
  void run.ended.then((result) => (ended = result));
  while (copied() < NAMES.length - 1 && ended === undefined) await delay(20);
  assert.equal(ended, undefined, ended?.stderr);
  return { from, to, run, release: () => void holder.exec('ROLLBACK') };
}

function logins(): number {
  return sshd.log().match(/Accepted publickey/g)?.length ?? 0;
}

/** The names of the databases that were reported, in this order. */
function reported({ lines }: CliResult): string[] {
  return lines.filter(({ type }) => type === 'database').map(({ origin }) => String(origin).slice(-5));
}

describe('a folder with many changed databases', { skip }, () => {
  for (const way of ['fetched', 'sent'] as const) {
    test(`it is ${way} in several conversations over one login, and reported in order`, async (t) => {
      const before = logins();
      const { from, to, run, release } = await heldRun(t, way);
      release();
      const result = await run.ended;
      assert.equal(result.status, 0, result.stderr);
      assert.deepEqual(reported(result), NAMES);
      assert.equal(logins() - before, 1);
      for (const name of NAMES) assertSamePages(join(from, name), join(to, name));
    });
  }

  test('Ctrl-C ends all conversations, and what was copied is reported', async (t) => {
    const { run, release } = await heldRun(t, 'fetched');
    run.kill('SIGINT');
    const result = await run.ended;
    assert.equal(result.status, 130, result.stderr);
    const names = reported(result);
    assert.deepEqual(names, names.toSorted());
    // The last of them may have been published, and not yet confirmed.
    assert.ok(names.length >= NAMES.length - 4, names.join());
    assert.ok(!names.includes(HELD));
    release();
    await agentsGone(pids);
  });

  test('where the connection breaks, --retry goes on with what is left', async (t) => {
    const before = logins();
    const { from, to, run, release } = await heldRun(t, 'sent', ['--retry', '5']);
    sshd.killSessions();
    release();
    const result = await run.ended;
    assert.equal(result.status, 0, result.stderr);
    assert.deepEqual(reported(result), NAMES);
    assert.ok(logins() - before >= 2);
    for (const name of NAMES) assertSamePages(join(from, name), join(to, name));
  });
});
