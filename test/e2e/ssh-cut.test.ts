import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Scenario } from '../support/relay-scenario.ts';
import type { ReplicaKind } from '../support/relay-scenario.ts';
import {
  agentsGone,
  installRemote,
  remote,
  runCli,
  SSH_WAYS,
  startCli,
  startProxy,
} from '../support/ssh-cli.ts';
import type { CliRun, Proxy } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-e2e-cut-'));
const pidDir = join(folder, 'agents');
if (started !== undefined) installRemote(sshd, pidDir);
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});
const scenario = await Scenario.make(folder, { blobs: 2400, pageSize: 4096 });

/**
 * Several batches of pages (1 MiB each), so that some are written for certain, and less than the 9.9 MB of
 * all pages.
 */
const LIMIT_BYTES = 4_000_000;

/** Nothing here takes as long: a run that does has come to a stop. */
const LIMIT = { timeout: 300_000 };

interface Fault {
  name: string;
  status: number;
  code: string;
  strike: (proxy: Proxy, run: CliRun) => void;
}

const FAULTS: Fault[] = [
  {
    name: 'a connection that is reset',
    status: 15,
    code: 'CONNECTION_LOST',
    strike: (proxy) => proxy.reset(),
  },
  {
    name: 'the death of the sshd that serves it',
    status: 15,
    code: 'CONNECTION_LOST',
    strike: (proxy) => {
      sshd.killSessions();
      proxy.release();
    },
  },
  { name: 'SIGINT', status: 130, code: 'INTERRUPTED', strike: (_, run) => run.kill('SIGINT') },
  { name: 'SIGTERM', status: 130, code: 'INTERRUPTED', strike: (_, run) => run.kill('SIGTERM') },
];

const EVERY = process.env['SQLSYNC_SLOW_TESTS'] === '1';
const seed = Number(process.env['SQLSYNC_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/**
 * All faults with SQLSYNC_SLOW_TESTS; else each fault strikes a pull by one of the transports and a push by
 * the other, paired by the seed.
 */
function faultsOf(transport: string, way: 'pull' | 'push'): Fault[] {
  if (EVERY) return FAULTS;
  const turn = SSH_WAYS.findIndex(({ name }) => name === transport) + (way === 'pull' ? 0 : 1) + seed;
  return FAULTS.filter((_, i) => (i + turn) % 2 === 0);
}

for (const { name: transport, rsh } of SSH_WAYS) {
  describe(`in mid-transfer over a real sshd by ${transport}`, { skip }, () => {
    for (const way of ['pull', 'push'] as const) {
      for (const { name, status, code, strike } of faultsOf(transport, way)) {
        const title = `${name} in mid-transfer is ${code}, leaves the replica as it was and no remote agent (${way})`;
        test(title, LIMIT, async (context) => {
          context.diagnostic(`to repeat: SQLSYNC_TEST_SEED=${seed}; all: SQLSYNC_SLOW_TESTS=1`);
          const kind: ReplicaKind = name === 'SIGINT' ? 'new' : 'wal';
          const pair = scenario.pair(kind);
          const locations =
            way === 'pull'
              ? [remote(sshd, pair.origin), pair.replica]
              : [pair.origin, remote(sshd, pair.replica)];
          const proxy = await startProxy(context, sshd, LIMIT_BYTES);
          const run = startCli(sshd, locations, { ...proxy, rsh });
          context.after(() => run.kill('SIGKILL'));
          await Promise.race([proxy.full, run.ended]);
          await someKept(pair.replica, run);
          strike(proxy, run);
          const result = await run.ended; // though the connection stands still
          proxy.release();
          const error = result.events.get('error');
          assert.equal(error?.['code'], code, JSON.stringify([...result.events.values()]) + result.stderr);
          assert.equal(result.status, status);
          assert.ok((await agentsGone(pidDir)) > 0);
          assert.equal(scenario.state(kind, pair), scenario.before(kind));

          const again = await runCli(sshd, locations, { rsh });
          assert.equal(again.status, 0, JSON.stringify([...again.events.values()]));
          assert.equal(scenario.state(kind, pair), 'new');
          const resumed = again.events.get('summary')?.['resumed'];
          assert.equal(resumed, true, 'what had arrived is not sent again');
          assert.ok(existsSync(pair.replica));
        });
      }
    }
  });
}

for (const { name: transport, rsh } of SSH_WAYS) {
  test(
    `--retry by ${transport} goes on from what has arrived when the connection is reset`,
    { skip, ...LIMIT },
    async (context) => {
      const pair = scenario.pair('wal');
      const proxy = await startProxy(context, sshd, LIMIT_BYTES);
      const args = [remote(sshd, pair.origin), pair.replica, '--retry', '3'];
      const run = startCli(sshd, args, { ...proxy, rsh });
      context.after(() => run.kill('SIGKILL'));
      await Promise.race([proxy.full, run.ended]);
      await someKept(pair.replica, run);
      proxy.reset();
      proxy.release();
      const { status, stderr, events } = await run.ended;
      assert.equal(status, 0, stderr);
      const { attempts, resumed } = events.get('summary') ?? {};
      assert.deepEqual({ attempts, resumed }, { attempts: 2, resumed: true });
      assert.match(stderr + JSON.stringify([...events.values()]), /attempt 2 of 4 follows/);
      assert.equal(scenario.state('wal', pair), 'new');
      assert.ok((await agentsGone(pidDir)) > 0);
    },
  );
}

/**
 * Resolves when the replica's side has written some of the pages that were let through, so that the next run
 * has something to go on from; or when the run has ended, which the later checks report.
 */
async function someKept(replica: string, run: CliRun): Promise<void> {
  const beside = join(dirname(replica), `.${basename(replica)}.sqlsync`);
  const bytes = (suffix: string): number => statSync(beside + suffix, { throwIfNoEntry: false })?.size ?? 0;
  const ended = run.ended.then(() => true);
  const isKept = (): boolean => Math.max(bytes('-part'), bytes('-spool')) >= 100_000;
  for (let over = false; !over && !isKept();) over = await Promise.race([ended, delay(5, false)]);
}
