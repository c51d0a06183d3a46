import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Random } from '../../fixtures/random.ts';
import { OtherProcess } from '../support/other-process.ts';
import { gone, hasStarted, killEnvironment, readKillLog } from '../support/relay-kill.ts';
import type { Pair, Role } from '../support/relay-near.ts';
import { Scenario } from '../support/relay-scenario.ts';
import type { ReplicaKind } from '../support/relay-scenario.ts';
import {
  installRemote,
  installRemoteVariant,
  remote,
  SSH_WAYS,
  startCli,
  startProxy,
} from '../support/ssh-cli.ts';
import type { Proxy } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-e2e-stall-'));
const pidDir = join(folder, 'agents');
if (started !== undefined) installRemote(sshd, pidDir);
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});
const scenario = await Scenario.make(folder, { blobs: 600, pageSize: 4096 });
/** Of more bytes than an SSH window, the proxy and the kernel hold: what is stopped in mid-transfer has more to send. */
const large = await Scenario.make(mkdtempSync(join(folder, 'large-')), { blobs: 2000, pageSize: 4096 });

/**
 * Time-outs of the near side, in seconds; a far agent waits for twice as long, and both wait ten times as
 * long while they hold nothing. The test waits for the short ones, which are still longer than a busy machine
 * stops a process.
 */
const SHORT_S = 3;
const LONG_S = 60;

/** The time until the far agent says its first word, which this file does not test. */
const CONNECTING = ['--connect-timeout', '120'];

/** Nothing here takes as long: a run that does has come to a stop. */
const LIMIT = { timeout: 600_000 };

const EVERY = process.env['SQLSYNC_SLOW_TESTS'] === '1';

/** The steps of the far agent in a sync of an existing replica, in order. */
const STEPS: Record<Role, readonly string[]> = {
  pull: [
    'in hello',
    'after out hello',
    'in alive',
    'in open',
    'after out snapshot',
    'in getHashes',
    'after out hashes',
    'in getChildren',
    'in getPages',
    'after out pages',
    'in getRoot',
    'after out root',
    'in release',
    'in done',
  ],
  push: [
    'in hello',
    'after out hello',
    'in replicate',
    'after out alive',
    'after out open',
    'after out getHashes',
    'in snapshot',
    'in hashes',
    'after out getChildren',
    'after out getPages',
    'in pages',
    'after out getRoot',
    'in root',
    'after out release',
    'after out progress',
    'after out done',
  ],
};

/** The steps at which both sides wait for the short time, so that a test of them is short. */
const BRISK: Record<Role, readonly string[]> = {
  pull: STEPS.pull.slice(STEPS.pull.indexOf('in getHashes'), STEPS.pull.indexOf('after out root')),
  push: STEPS.push.slice(STEPS.push.indexOf('in snapshot'), STEPS.push.indexOf('after out release')),
};

/** The ways in which the network breaks, and the near side's error. */
interface Fault {
  readonly name: string;
  readonly timeoutS: number;
  readonly strike: (proxy: Proxy) => void;
  readonly end: readonly [status: number, code: string];
}

const TIMED_OUT: Fault['end'] = [16, 'TIMEOUT'];

const FAULTS: readonly Fault[] = [
  { name: 'stalls', timeoutS: SHORT_S, strike: (proxy) => proxy.stall(), end: TIMED_OUT },
  { name: 'drops', timeoutS: LONG_S, strike: (proxy) => proxy.drop(), end: [15, 'CONNECTION_LOST'] },
  { name: 'resets', timeoutS: LONG_S, strike: (proxy) => proxy.reset(), end: [15, 'CONNECTION_LOST'] },
];

interface Case {
  readonly role: Role;
  readonly kind: ReplicaKind;
  readonly rsh: string | undefined;
  readonly fault: Fault;
  readonly step: string;
}

let runs = 0;

/**
 * A sync whose network breaks while the far agent is at a step: the agent stands still there until the
 * network broke.
 */
async function breakAt(context: TestContext, { role, kind, rsh, fault, step }: Case): Promise<void> {
  const pair = scenario.pair(kind);
  const log = join(dirname(pair.replica), 'steps.log');
  const variables = killEnvironment(step.replaceAll(' ', ':'), 'nobody', log);
  const remoteExe = installRemoteVariant(sshd, `agent-${++runs}`, variables, [
    `--timeout ${2 * fault.timeoutS}`,
  ]);
  const proxy = await startProxy(context, sshd, Infinity);
  const args = [...locationsOf(role, pair), '--timeout', `${fault.timeoutS}`, ...CONNECTING];
  const run = startCli(sshd, args, { ...proxy, remoteExe, rsh });
  context.after(() => run.kill('SIGKILL'));
  const ended = run.ended.then(() => true);
  const stands = (): boolean => existsSync(log) && readFileSync(log, 'utf8').includes('killed\n');
  for (let over = false; !over && !stands();) over = await Promise.race([ended, delay(10, false)]);
  fault.strike(proxy);
  writeFileSync(`${log}.go`, '');
  const result = await run.ended;
  const said = JSON.stringify([...result.events.values()]);
  const where = `${role}, ${kind} replica, ${rsh ?? 'built in'}, ${fault.name} at ${step}: ${said}`;
  const met = hasStarted(log) ? readKillLog(log) : undefined;
  if (met !== undefined) await gone(met.agentPid, `the far agent (${where})`); // While the network is broken.
  const state = scenario.state(kind, pair);
  if (result.status === 0) return assert.equal(state, 'new', where);
  const end = [result.status, result.events.get('error')?.['code']];
  // On a machine that is too busy, the near side may give up before the far agent comes to the step.
  assert.deepEqual(end, met?.killedAt === step ? fault.end : TIMED_OUT, where);
  // In a push the commit may be made, and its confirmation lost.
  assert.ok(state === scenario.before(kind) || (role === 'push' && state === 'new'), `${state}: ${where}`);
  if (state !== 'new') await scenario.converge(kind, role, pair);
}

describe(
  'a network that breaks while the far agent is at a step of the protocol',
  { skip, concurrency: 3 },
  () => {
    for (const role of ['pull', 'push'] as const) {
      for (const fault of FAULTS) {
        const title = `a network that ${fault.name} at a step ends both sides, and the replica is old or new and whole (${role})`;
        test(title, LIMIT, async (context) => {
          const seed = Number(process.env['SQLSYNC_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
          context.diagnostic(`to repeat: SQLSYNC_TEST_SEED=${seed}; all steps: SQLSYNC_SLOW_TESTS=1`);
          const random = new Random(seed);
          const some = fault.timeoutS === SHORT_S ? BRISK[role] : STEPS[role];
          const steps = EVERY ? STEPS[role] : [random.pick(some), random.pick(some)];
          const cases = steps.map((step): Case => {
            const [{ rsh }, kind] = [random.pick(SSH_WAYS), random.pick(['wal', 'rollback'] as const)];
            return { role, fault, step, rsh, kind };
          });
          // Most of each run is waiting.
          for (let i = 0; i < cases.length; i += 3) {
            await all(cases.slice(i, i + 3).map((one) => breakAt(context, one)));
          }
        });
      }
    }
  },
);

/** In seconds: this process has to stop one side in that time after the last byte. */
const MID_S = 8;

/** As `Promise.all`, but none of them outlives it: what is left would start what nobody ends. */
async function all(works: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}

/** Runs a sync until so many bytes have passed; the agent then holds the replica's write lock. */
async function inMidTransfer(context: TestContext, role: Role, rsh: string | undefined) {
  const pair = large.pair('wal');
  const log = join(dirname(pair.replica), 'steps.log');
  const remoteExe = installRemoteVariant(sshd, `agent-${++runs}`, killEnvironment(0, 'nobody', log));
  const proxy = await startProxy(context, sshd, 1_000_000);
  const args = [...locationsOf(role, pair), '--timeout', `${MID_S}`, ...CONNECTING];
  const run = startCli(sshd, args, { ...proxy, remoteExe, rsh });
  context.after(() => run.kill('SIGKILL'));
  const early = await Promise.race([proxy.full, run.ended]);
  assert.equal(early, undefined, `it ended before: ${JSON.stringify([...(early?.events.values() ?? [])])}`);
  const { agentPid } = readKillLog(log);
  return { pair, proxy, run, agentPid };
}

for (const { name: way, rsh } of SSH_WAYS) {
  for (const role of ['pull', 'push'] as const) {
    test(
      `stopping the far agent and sshd is TIMEOUT, and they end when they go on (${role}, ${way})`,
      { skip, ...LIMIT },
      async (context) => {
        const { pair, proxy, run, agentPid } = await inMidTransfer(context, role, rsh);
        context.after(() => continueAll([agentPid]));
        process.kill(agentPid, 'SIGSTOP');
        const stopped = sshd.signalSessions('SIGSTOP');
        context.after(() => continueAll(stopped));
        proxy.release();
        const { status, events } = await run.ended;
        assert.deepEqual(
          [status, events.get('error')?.['code']],
          [16, 'TIMEOUT'],
          JSON.stringify([...events.values()]),
        );
        assert.equal(large.state('wal', pair), 'old');
        continueAll([...stopped, agentPid]);
        await gone(agentPid, 'the far agent');
        assert.equal(large.state('wal', pair), 'old');
        await large.converge('wal', role, pair);
      },
    );
  }
}

test(
  'stopping the near side does not keep a replica locked on the other host',
  { skip, ...LIMIT },
  async (context) => {
    const { pair, proxy, run, agentPid } = await inMidTransfer(context, 'push', undefined);
    context.after(() => continueAll([run.pid]));
    process.kill(run.pid, 'SIGSTOP');
    proxy.release();
    await gone(agentPid, 'the far agent');
    const writer = await new OtherProcess(context).open(pair.replica);
    await writer.exec('BEGIN IMMEDIATE; ROLLBACK');
    await writer.call('close');
    process.kill(run.pid, 'SIGCONT');
    const { status, events } = await run.ended;
    // Its error from before the connection ended, or that the connection ended.
    const { code, message } = events.get('error') ?? {};
    assert.ok(
      (status === 16 && /near side has been silent/.test(String(message))) ||
        (status === 15 && code === 'CONNECTION_LOST'),
      `${status}: ${JSON.stringify([...events.values()])}`,
    );
    assert.equal(large.state('wal', pair), 'old');
  },
);

function continueAll(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, 'SIGCONT');
    } catch {
      // The process is gone.
    }
  }
}

function locationsOf(role: Role, pair: Pair): string[] {
  const { origin, replica } = pair;
  return role === 'pull' ? [remote(sshd, origin), replica] : [origin, remote(sshd, replica)];
}
