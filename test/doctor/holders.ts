import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { collectFacts } from '../../src/doctor/collect/collect.ts';
import type { Facts, LockName } from '../../src/doctor/facts.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { judge } from '../../src/doctor/judge/judge.ts';
import { OtherProcess } from '../support/other-process.ts';

export const LINUX: false | string =
  process.platform === 'linux' ? false : 'NOT TESTED: only Linux lists locks and open files';

/** A process with one connection to a database. */
export interface Holder {
  readonly pid: number;
  /** Runs SQL; a lock is waited for in SQLite's busy handler, for a minute. */
  run(sql: string): Promise<void>;
}

type Start = (t: TestContext, path: string) => Promise<Holder>;

const isThere = (program: string): boolean => spawnSync(program, ['--version']).status === 0;

/** The programs that hold locks in the tests, with why they cannot be tested here. */
export const HOLDERS: Readonly<Record<string, { readonly start: Start; readonly skip: false | string }>> = {
  'better-sqlite3': { start: startBetterSqlite3, skip: false },
  python: {
    start: startPython,
    skip: isThere('python3') ? false : 'NOT TESTED: python3 is not installed',
  },
  shell: { start: startShell, skip: isThere('sqlite3') ? false : 'NOT TESTED: sqlite3 is not installed' },
};

async function startBetterSqlite3(t: TestContext, path: string): Promise<Holder> {
  const other = new OtherProcess(t);
  const connection = await other.open(path, { timeoutMs: 60_000 });
  return { pid: other.pid, run: (sql) => connection.exec(sql) };
}

async function startPython(t: TestContext, path: string): Promise<Holder> {
  const { child, next } = speaking(t, 'python3', [join(import.meta.dirname, 'holder.py'), path]);
  const { pid } = (await next()) as { pid: number };
  return {
    pid,
    async run(sql) {
      child.stdin.write(`${JSON.stringify(sql)}\n`);
      assert.deepEqual(await next(), {}, sql);
    },
  };
}

async function startShell(t: TestContext, path: string): Promise<Holder> {
  const { child, next } = speaking(t, 'sqlite3', ['-batch', path]);
  child.stdin.write('.timeout 60000\n.bail on\n');
  return {
    pid: child.pid as number,
    async run(sql) {
      // The shell ends a statement at the end of its line.
      child.stdin.write(`.output /dev/null\n${sql.replaceAll('\n', ' ')};\n.output stdout\n.print {}\n`);
      assert.deepEqual(await next(), {}, sql);
    },
  };
}

/** A pool of sqlsync in a process of its own, which holds the writer or waits for it. */
export async function startPool(
  t: TestContext,
  path: string,
  label: string,
  mode: 'hold' | 'wait',
): Promise<{ readonly pid: number }> {
  const program = join(import.meta.dirname, 'pool-child.ts');
  const { next } = speaking(t, process.execPath, [program, path, label, mode]);
  const { pid } = (await next()) as { pid: number };
  await next();
  return { pid };
}

interface Speaking {
  readonly child: ChildProcessWithoutNullStreams;
  /** The next line, as JSON. */
  readonly next: () => Promise<unknown>;
}

function speaking(t: TestContext, program: string, args: readonly string[]): Speaking {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let said = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
  t.after(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    child,
    async next() {
      const { value, done } = await lines.next();
      assert.notEqual(done, true, `${program} ended: ${said}`);
      return JSON.parse(value as string) as unknown;
    },
  };
}

/** Longer than anything here takes. */
const PATIENCE_MS = 60_000;

/**
 * Looks until `is` holds for the findings and the facts, for what a busy machine makes visible late. `always` must hold
 * for each look.
 */
export async function lookUntil(
  path: string,
  is: (found: readonly Finding[], facts: Facts) => boolean,
  always: (found: readonly Finding[], facts: Facts) => void = () => {},
): Promise<{ facts: Facts; found: readonly Finding[] }> {
  const deadline = performance.now() + PATIENCE_MS;
  for (;;) {
    const facts = await collectFacts(path);
    const found = judge(facts);
    always(found, facts);
    if (is(found, facts)) return { facts, found };
    if (performance.now() > deadline) assert.fail(JSON.stringify({ found, facts }, undefined, 1));
    await delay(20);
  }
}

/** The processes that hold one of these locks, ascending. */
export function holders(facts: Facts, ...names: readonly LockName[]): number[] {
  const pids = facts.locks.filter(({ name }) => names.includes(name)).map(({ pid }) => pid);
  return [...new Set(pids)].sort((a, b) => a - b);
}

export function ids(found: readonly Finding[]): string[] {
  return found.map(({ id }) => id);
}

/** Findings about the folder in which tests run, as in a container. */
const OF_PLACE = new Set(['overlay', 'network']);

/** Without what is said of the folder in which the tests run. */
export function ofDatabase(found: readonly Finding[]): Finding[] {
  return found.filter(({ id }) => !OF_PLACE.has(id));
}

export function findingOf(found: readonly Finding[], id: string): Finding {
  const one = found.find((each) => each.id === id);
  assert.ok(one, `no finding ${id}: ${JSON.stringify(found, undefined, 1)}`);
  return one;
}
