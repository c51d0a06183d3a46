import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { SqlsyncError } from '../../src/errors.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import { CLI } from '../support/relay-kill.ts';
import { failureOf, runNear } from '../support/relay-near.ts';
import type { Pair } from '../support/relay-near.ts';
import { REPLICA_KINDS, Scenario } from '../support/relay-scenario.ts';

/** The system calls by which SQLite and the part file change the disk. */
const WRITING_CALLS = [
  'pwrite64',
  'fsync',
  'fdatasync',
  'ftruncate',
  'link',
  'linkat',
  'unlink',
  'rename',
  'renameat2',
];

/** The test tries only one in so many of a long run of page writes, and every other call. */
const PAGE_WRITES_STEP = 9;

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-kill-commit-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 3, pageSize: 4096 });
// Node.js writes its cache of compiled modules when a process ends, which is after the agent's success.
const environment = { NODE_DISABLE_COMPILE_CACHE: '1' };

/** A call of the replica agent's main thread, by its name and its number among those of that name, from 1. */
interface Call {
  name: string;
  ordinal: number;
}

const skip = straceFault();

describe('kill -9 of the replica agent in a push, at each system call that writes', { skip }, () => {
  for (const kind of REPLICA_KINDS) {
    test(`the death of the replica agent at a write leaves a ${kind} replica in its old or its new state, and is never success`, async () => {
      const calls = await callsOfWholeRun(scenario.pair(kind));
      assert.ok(calls.filter(({ name }) => /sync/.test(name)).length >= 2, 'commits are made durable');
      const states = new Set<string>();
      for (const [i, call] of calls.entries()) {
        if (
          call.name === 'pwrite64' &&
          call.ordinal % PAGE_WRITES_STEP !== 1 &&
          calls[i + 1]?.name === call.name
        )
          continue;
        const pair = scenario.pair(kind);
        const failure = await pushUnderStrace(pair, [
          '-e',
          `inject=${call.name}:signal=SIGKILL:when=${call.ordinal}`,
        ]);
        const where = `killed at ${call.name} number ${call.ordinal}`;
        const state = scenario.state(kind, pair);
        assert.equal(failure?.code, 'CONNECTION_LOST', `${where}: replica ${state}`);
        assert.ok(state === 'new' || state === scenario.before(kind), `${where}: replica ${state}`);
        states.add(state);
        await scenario.converge(kind, 'push', pair);
      }
      assert.deepEqual(
        [...states].sort(),
        [scenario.before(kind), 'new'].sort(),
        'kills before and after the commit',
      );
    });
  }
});

async function pushUnderStrace(pair: Pair, options: readonly string[]): Promise<SqlsyncError | undefined> {
  const transport = spawnProcess({
    command: 'strace',
    // Without -f strace sees only the main thread, which is the one that SQLite runs in.
    args: [
      '-o',
      log(pair),
      '-e',
      `trace=${WRITING_CALLS.join(',')}`,
      ...options,
      process.execPath,
      CLI,
      'agent',
    ],
    env: { ...process.env, ...environment },
  });
  try {
    const failure = await failureOf(runNear(transport, 'push', pair));
    await transport.exited;
    return failure;
  } finally {
    transport.terminate();
  }
}

/** The calls of an undisturbed run. */
async function callsOfWholeRun(pair: Pair): Promise<Call[]> {
  assert.equal(await pushUnderStrace(pair, []), undefined);
  const counts = new Map<string, number>();
  return [...readFileSync(log(pair), 'utf8').matchAll(/^(\w+)\(/gm)].map(([, name = '']) => {
    const ordinal = (counts.get(name) ?? 0) + 1;
    counts.set(name, ordinal);
    return { name, ordinal };
  });
}

function log(pair: Pair): string {
  return join(dirname(pair.replica), 'strace.log');
}

/** The reason why strace cannot do it here; false if it can. */
function straceFault(): string | false {
  const probe = join(folder, 'probe');
  const { status, error, stderr } = spawnSync(
    'strace',
    [
      '-o',
      probe,
      '-e',
      'trace=fsync',
      '-e',
      'inject=fsync:signal=SIGKILL:when=1',
      process.execPath,
      '-e',
      '0',
    ],
    { encoding: 'utf8' },
  );
  if (error === undefined && status === 0 && existsSync(probe)) return false;
  const why = `NOT TESTED: strace is missing or may not trace here (${error?.message ?? stderr.trim()}), so no agent was killed within a commit; install it with \`apt-get install strace\``;
  process.emitWarning(why);
  return why;
}
