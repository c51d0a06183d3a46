import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { Hold, untilGone } from '../cli/command.ts';
import { largeDatabase, names } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import type { ApplicationSettings } from './application.ts';
import { childrenOf, isReached, libraryChildren, until } from './running-sync.ts';

const APPLICATION = join(import.meta.dirname, 'application.ts');

class Application {
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  readonly exited: Promise<void>;
  said = '';
  stderr = '';

  constructor(
    t: TestContext,
    settings: ApplicationSettings,
    { flags = [], env = {} }: { flags?: string[]; env?: NodeJS.ProcessEnv } = {},
  ) {
    const { NODE_TEST_CONTEXT: _, ...inherited } = process.env;
    this.child = spawn(process.execPath, [...flags, APPLICATION, JSON.stringify(settings)], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...inherited, ...env },
    });
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => (this.said += text));
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.exited = new Promise((resolve) => this.child.once('close', () => resolve()));
    t.after(() => this.child.kill('SIGKILL'));
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** Resolves when the application has told how its sync ended. */
  async says(text: string): Promise<void> {
    await until(() => {
      const isLost = this.child.exitCode !== null && this.child.stdout.closed;
      if (isLost && !this.said.includes(text)) assert.fail(`it ended: ${this.said}${this.stderr}`);
      return this.said.includes(text);
    });
  }

  /** The application's library child and the agents of that, once the agent stands still. */
  async running(hold: Hold): Promise<number[]> {
    await until(() => {
      if (this.said !== '') assert.fail(this.said);
      return isReached(hold);
    });
    const children = libraryChildren(this.pid);
    assert.equal(children.length, 1);
    return [...children, ...children.flatMap(childrenOf)];
  }
}

function place(t: TestContext, bytes: number): { folder: string; origin: string; replica: string } {
  const folder = tempDir(t);
  const origin = join(tempDir(t), 'a.db');
  largeDatabase(origin, bytes);
  return { folder, origin, replica: join(folder, 'r.db') };
}

describe('when the application', () => {
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    test(`when the application dies of ${signal}, the child and its agent end, and the next sync goes on`, async (t) => {
      const { folder, origin, replica } = place(t, 4e6);
      const hold = new Hold(t, 2.5e6);
      const settings = { origin, replica, compress: 'none' } as const;
      const application = new Application(t, settings, { env: hold.environment });
      const processes = await application.running(hold);
      assert.equal(processes.length, 2);
      application.child.kill(signal);
      await untilGone(processes);
      assert.deepEqual(names(folder), ['.r.db.sqlsync-part']);
      const second = new Application(t, settings);
      await second.says('committed');
      await second.exited;
      assertReplicaOf(origin, replica);
    });
  }

  test('when the application syncs in a worker thread, it is as in the main one', async (t) => {
    const { origin, replica } = place(t, 1e5);
    const application = new Application(t, { origin, replica, worker: true });
    await application.says('committed');
    await application.exited;
    assertReplicaOf(origin, replica);
  });

  test('when the application terminates the worker thread that syncs, the child and its agent end', async (t) => {
    const { origin, replica } = place(t, 4e6);
    const hold = new Hold(t, 2.5e6);
    const settings = { origin, replica, compress: 'none', worker: true } as const;
    const application = new Application(t, settings, { env: hold.environment });
    const processes = await application.running(hold);
    application.child.kill('SIGUSR2');
    await application.says('terminated');
    await untilGone(processes);
    assert.equal(existsSync(replica), false);
  });

  for (const flags of [
    ['--inspect=127.0.0.1:0'],
    ['--watch'],
    ['--expose-gc', '--stack-size=900', '--conditions=development'],
  ]) {
    test(`when the application was started with ${flags.join(' ')}, it syncs as ever`, async (t) => {
      const { origin, replica } = place(t, 1e5);
      const application = new Application(t, { origin, replica }, { flags });
      await application.says('committed');
      application.child.kill();
      await application.exited;
      assertReplicaOf(origin, replica);
    });
  }
});
