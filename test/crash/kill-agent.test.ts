import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { SqlsyncError } from '../../src/errors.ts';
import { runSync } from '../../src/sync/runs/sync.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import { failureOf, runNear } from '../support/relay-near.ts';
import type { Pair } from '../support/relay-near.ts';
import { CLI, gone, killEnvironment, readKillLog } from '../support/relay-kill.ts';
import type { Victim } from '../support/relay-kill.ts';
import { REPLICA_KINDS, Scenario } from '../support/relay-scenario.ts';
import type { ReplicaKind, ReplicaState } from '../support/relay-scenario.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-kill-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 360, pageSize: 4096 });

// Starting an agent is most of the cost of these tests, and a killed agent leaves nothing in the compile
// cache.
const environment = {
  NODE_COMPILE_CACHE: join(folder, 'compile-cache'),
  // An agent that is killed has a process of its own.
  SQLSYNC_AGENT_PROCESS: '1',
};
await pullByCli(scenario.pair('wal'), environment);

/** No sync here takes nearly as many steps; a loop beyond this would never end. */
const MAX_STEPS = 200;

const EVERY = process.env['SQLSYNC_SLOW_TESTS'] === '1';
const seed = Number(process.env['SQLSYNC_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));

/** All steps with SQLSYNC_SLOW_TESTS; else each step in one of the kinds, by the seed. */
function stepsOf(kind: ReplicaKind): number[] {
  const all = Array.from({ length: MAX_STEPS }, (_, i) => i + 1);
  if (EVERY) return all;
  const turn = (seed + REPLICA_KINDS.indexOf(kind)) % REPLICA_KINDS.length;
  return all.filter((step) => step % REPLICA_KINDS.length === turn);
}

interface Killed {
  pair: Pair;
  /** The survivor's report; undefined if the near side was killed. */
  failure: SqlsyncError | undefined;
  killedAt: string;
  /** The steps that it had gone through before. */
  steps: readonly string[];
  /** Names the run, so that it can be repeated. */
  where: string;
  state: ReplicaState;
}

/** Calls `check` for the run killed at each of the steps, until a run ends before it comes to that step. */
async function atItsSteps(
  context: TestContext,
  kind: ReplicaKind,
  victim: Victim,
  run: (pair: Pair, env: Record<string, string>) => Promise<SqlsyncError | undefined>,
  check: (killed: Killed) => void,
): Promise<void> {
  const role = run === pushWithin ? 'push' : 'pull';
  context.diagnostic(`to repeat: SQLSYNC_TEST_SEED=${seed}; all steps: SQLSYNC_SLOW_TESTS=1`);
  const steps = stepsOf(kind);
  for (const step of steps) {
    const pair = scenario.pair(kind);
    const log = join(dirname(pair.replica), 'kill.log');
    const failure = await run(pair, {
      ...environment,
      ...killEnvironment(step, victim, log),
      // The replica in WAL mode is written in a thread of its own, as large ones are, the other in the main thread.
      ...(kind === 'wal' ? { SQLSYNC_WRITER_THREAD_MIN_BYTES: '0' } : {}),
    });
    const { agentPid, killedAt, steps: passed } = readKillLog(log);
    const where = `step ${step} (${killedAt ?? 'not reached'})`;
    await gone(agentPid, `the far agent after ${where}`);
    const state = scenario.state(kind, pair);
    if (killedAt === undefined) {
      assert.equal(failure, undefined, where);
      assert.equal(state, 'new', where);
      for (const name of ['pages', 'root', 'release', 'done', 'close']) {
        assert.ok(
          passed.some((what) => what.endsWith(` ${name}`)),
          `no ${name} among ${passed.join(', ')}`,
        );
      }
      return;
    }
    check({ pair, failure, killedAt, steps: passed, where, state });
    if (state !== 'new' || victim === 'parent') {
      await scenario.converge(kind, role, pair, step === steps[0]);
    }
  }
  assert.fail(`more than ${MAX_STEPS} steps`);
}

function isSignOfLife(step: string): boolean {
  return step.endsWith(' alive');
}

async function pullWithin(pair: Pair, env: Record<string, string>): Promise<SqlsyncError | undefined> {
  const before = { ...process.env };
  Object.assign(process.env, env);
  try {
    return await failureOf(runSync({ ...pair, idleTimeoutMs: 20_000 }));
  } finally {
    process.env = before;
  }
}

async function pushWithin(pair: Pair, env: Record<string, string>): Promise<SqlsyncError | undefined> {
  const transport = spawnProcess({
    command: process.execPath,
    args: [CLI, 'agent'],
    env: { ...process.env, ...env },
  });
  try {
    const failure = await failureOf(runNear(transport, 'push', pair));
    await transport.exited; // By itself: an agent ends with its conversation, or with its near side.
    return failure;
  } finally {
    transport.terminate();
  }
}

/** Runs the CLI, which starts the agent that kills it. */
async function pullByCli(pair: Pair, env: Record<string, string>): Promise<undefined> {
  const child = spawn(process.execPath, [CLI, '-q', pair.origin, pair.replica], {
    env: { ...process.env, ...env },
    stdio: 'ignore',
  });
  const [status, signal] = (await once(child, 'exit')) as [number | null, string | null];
  assert.ok(signal === 'SIGKILL' || status === 0, `the CLI ended with ${status ?? signal}`);
}

describe('kill -9 of the origin agent in a pull, at every step', () => {
  for (const kind of REPLICA_KINDS) {
    test(`the death of the origin agent leaves a ${kind} replica as it was, and is CONNECTION_LOST`, async (context) => {
      await atItsSteps(context, kind, 'self', pullWithin, ({ failure, killedAt, steps, where, state }) => {
        // Its part ends with the root hash, or with a page that was fetched again after it (a block hash
        // collided). Its death after that changes nothing.
        const isServed = [...steps, killedAt].includes('after out root');
        assert.ok(failure !== undefined || isServed, `${where}: success`);
        assert.equal(state, failure === undefined ? 'new' : scenario.before(kind), where);
        if (failure === undefined) return;
        assert.equal(failure.code, 'CONNECTION_LOST', `${where}: ${failure.message}`);
        assert.match(failure.message, /killed by SIGKILL/, where);
      });
    });
  }
});

describe('kill -9 of the replica agent in a push, at every step', () => {
  for (const kind of REPLICA_KINDS) {
    test(`the death of the replica agent leaves a ${kind} replica as it was or, after its commit, as it is to be, and is no success before \`done\``, async (context) => {
      await atItsSteps(
        context,
        kind,
        'self fine',
        pushWithin,
        ({ failure, killedAt, steps, where, state }) => {
          const passed = new Set([...steps, killedAt]);
          const isConfirmed = passed.has('after out done');
          assert.equal(failure?.code, isConfirmed ? undefined : 'CONNECTION_LOST', where);
          if (isConfirmed || passed.has('before out done')) assert.equal(state, 'new', where);
          // The clock sends signs of life, so that one may fall into the commit.
          else if (passed.has('after out release') && isSignOfLife(killedAt))
            assert.ok(state === 'new' || state === scenario.before(kind), where);
          else assert.equal(state, scenario.before(kind), where);
        },
      );
      // Committed and not confirmed is an error, though nothing is wrong with the replica. The test goes by
      // the name of the message, since the number of messages before it depends on time.
      const pair = scenario.pair(kind);
      const log = join(dirname(pair.replica), 'kill.log');
      const kill = killEnvironment('before:out:done', 'self fine', log);
      const failure = await pushWithin(pair, { ...environment, ...kill });
      assert.equal(readKillLog(log).killedAt, 'before out done');
      assert.equal(failure?.code, 'CONNECTION_LOST');
      assert.equal(scenario.state(kind, pair), 'new');
    });
  }
});

describe('kill -9 of the whole near process in a pull, at every step', () => {
  for (const kind of REPLICA_KINDS) {
    test(`the death of the near process leaves a ${kind} replica as it was or, after its commit, as it is to be, and no far agent`, async (context) => {
      await atItsSteps(context, kind, 'parent', pullByCli, ({ killedAt, steps, where, state }) => {
        const passed = new Set([...steps, killedAt]);
        if (passed.has('in done')) assert.equal(state, 'new', where);
        // When the origin agent hears `release`, the replica agent is just committing.
        else if (passed.has('in release'))
          assert.ok(state === 'new' || state === scenario.before(kind), where);
        else assert.equal(state, scenario.before(kind), where);
      });
    });
  }
});
