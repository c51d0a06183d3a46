import assert from 'node:assert/strict';
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { afterEach, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { sync } from '../../src/index.ts';
import { Hold, untilGone } from '../cli/command.ts';
import { change, largeDatabase, names } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { libraryChildren, rejection, runningSync, withEnvironment } from './running-sync.ts';

interface Place {
  readonly folder: string;
  readonly origin: string;
  readonly replica: string;
}

function place(t: TestContext, bytes: number): Place {
  const folder = tempDir(t);
  const origin = join(tempDir(t), 'a.db');
  largeDatabase(origin, bytes);
  return { folder, origin, replica: join(folder, 'r.db') };
}

/** A replica that a sync would change as a whole, and the hash of its file. */
async function outdated(t: TestContext, mode: 'wal' | 'delete' = 'wal'): Promise<Place & { before: string }> {
  const here = place(t, 4e6);
  await sync({ origin: here.origin, replica: here.replica });
  change(here.replica, `PRAGMA journal_mode = ${mode}`);
  change(here.origin, 'UPDATE t SET x = randomblob(8000)');
  return { ...here, before: sha256File(here.replica) };
}

async function assertUnchangedAndUsable({
  folder,
  origin,
  replica,
  before,
}: Place & { before: string }): Promise<void> {
  assert.equal(sha256File(replica), before);
  // Pages that have arrived may wait there for the next sync, which takes them away.
  const left = names(folder).filter((name) => name !== '.r.db.sqlsync-spool');
  assert.deepEqual(left, ['.r.db.sqlsync', 'r.db']);
  await sync({ origin, replica });
  assert.ok(!names(folder).includes('.r.db.sqlsync-spool'));
  assertReplicaOf(origin, replica);
}

/** NODE_OPTIONS with which every Node.js runs this code first. */
function preload(code: string): string {
  return `--import=data:text/javascript,${encodeURIComponent(code)}`;
}

afterEach(() => assert.deepEqual(libraryChildren(process.pid), [], 'children that are left'));

describe('an AbortSignal', () => {
  test('an AbortSignal ends a running sync: INTERRUPTED, no process is left, and the replica is as it was', async (t) => {
    // In this mode the pages that have arrived lie beside the replica: only a child that could end by itself
    // has removed them.
    const { folder, origin, replica, before } = await outdated(t, 'delete');
    const controller = new AbortController();
    const { result, child, agents } = await runningSync(t, { origin, replica, signal: controller.signal });
    controller.abort(new Error('enough'));
    const failure = await rejection(result);
    assert.deepEqual([failure.code, failure.message], ['INTERRUPTED', 'sync() was aborted']);
    assert.match(failure.hint ?? '', /old or the new snapshot/);
    assert.equal((failure.cause as Error).message, 'enough');
    await untilGone([child, ...agents]);
    await assertUnchangedAndUsable({ folder, origin, replica, before });
  });

  test('an AbortSignal that has been aborted before starts nothing', async (t) => {
    const { folder, origin, replica } = place(t, 1e5);
    const outcome = sync({ origin, replica, signal: AbortSignal.abort() });
    assert.deepEqual(libraryChildren(process.pid), []);
    assert.equal((await rejection(outcome)).code, 'INTERRUPTED');
    assert.deepEqual(names(folder), []);
  });

  test('an AbortSignal ends a child that does not react, by force', async (t) => {
    const { folder, origin, replica, before } = await outdated(t);
    const controller = new AbortController();
    const { result, child, agents } = await runningSync(t, { origin, replica, signal: controller.signal });
    process.kill(child, 'SIGSTOP');
    controller.abort();
    assert.equal((await rejection(result)).code, 'INTERRUPTED');
    await untilGone([child, ...agents]);
    await assertUnchangedAndUsable({ folder, origin, replica, before });
  });

  test('an AbortSignal that is aborted after the sync changes nothing', async (t) => {
    const { origin, replica } = place(t, 1e5);
    const controller = new AbortController();
    await sync({ origin, replica, signal: controller.signal });
    controller.abort();
    assertReplicaOf(origin, replica);
  });
});

describe('a child', () => {
  test('killing the child is WORKER_LOST, no process is left, and the replica is as it was', async (t) => {
    const { folder, origin, replica, before } = await outdated(t);
    const { result, child, agents } = await runningSync(t, { origin, replica });
    process.kill(child, 'SIGKILL');
    const failure = await rejection(result);
    assert.equal(failure.code, 'WORKER_LOST');
    assert.match(failure.message, /was killed by SIGKILL before it was done/);
    assert.match(failure.hint ?? '', /old or the new snapshot, whole/);
    await untilGone(agents);
    await assertUnchangedAndUsable({ folder, origin, replica, before });
  });

  test('a child whose agent is killed reports it', async (t) => {
    const { folder, origin, replica, before } = await outdated(t);
    const { result, agents } = await runningSync(t, { origin, replica });
    process.kill(agents[0] as number, 'SIGKILL');
    assert.equal((await rejection(result)).code, 'CONNECTION_LOST');
    await assertUnchangedAndUsable({ folder, origin, replica, before });
  });

  test('the child leaves Ctrl-C at the terminal to the application', async (t) => {
    const { origin, replica } = place(t, 4e6);
    const { hold, result, child, agents } = await runningSync(t, { origin, replica });
    for (const pid of [child, ...agents]) process.kill(pid, 'SIGINT');
    hold.release();
    assert.equal((await result).outcome, 'committed');
  });

  test('a child that dies of the Ctrl-C for which the application aborts, before it can ignore it, is INTERRUPTED', async (t) => {
    const { origin, replica } = await outdated(t);
    const controller = new AbortController();
    const failing = rejection(sync({ origin, replica, signal: controller.signal }));
    const [child] = libraryChildren(process.pid);
    assert.ok(child !== undefined);
    process.kill(child, 'SIGINT');
    controller.abort();
    const failure = await failing;
    assert.deepEqual([failure.code, failure.message], ['INTERRUPTED', 'sync() was aborted']);
  });

  test('a child that the system asks to end undoes and ends: INTERRUPTED', async (t) => {
    const { folder, origin, replica, before } = await outdated(t);
    const { result, child } = await runningSync(t, { origin, replica });
    process.kill(child, 'SIGTERM');
    assert.equal((await rejection(result)).code, 'INTERRUPTED');
    await assertUnchangedAndUsable({ folder, origin, replica, before });
  });

  test('a child that is done ends by itself, before the promise settles', async (t) => {
    const { folder, origin, replica } = place(t, 1e5);
    const ended = join(folder, 'ended');
    const code = `if (process.argv[2] === '--library-child') process.on('exit', () => fs.writeFileSync('${ended}', ''))`;
    const NODE_OPTIONS = preload(`import fs from 'node:fs'; ${code}`);
    await withEnvironment({ NODE_OPTIONS }, () => sync({ origin, replica }));
    assert.ok(existsSync(ended), 'it was killed');
  });

  const CRASHES = [
    {
      how: 'throws',
      // Once the program has its handler, and before it can read its task.
      code: `process.on('newListener', (name) => {
        if (name === 'uncaughtException') process.nextTick(() => { throw new Error('boom') });
      })`,
      expected: 'INTERNAL',
      says: /boom/,
    },
    { how: 'exits', code: 'process.exit(3)', expected: 'WORKER_LOST', says: /ended with status 3/ },
    { how: 'cannot run', code: 'process.exit(9)', expected: 'NODE_UNSUPPORTED', says: /cannot run/ },
    { how: 'aborts', code: 'process.abort()', expected: 'WORKER_LOST', says: /killed by SIGABRT/ },
    {
      how: 'closes its channel and says nothing',
      code: 'process.disconnect()',
      expected: 'WORKER_LOST',
      says: /ended with status 0/,
    },
  ] as const;
  for (const { how, code, expected, says } of CRASHES) {
    test(`a child that ${how} is ${expected}`, async (t) => {
      const { folder, origin, replica } = place(t, 1e5);
      const NODE_OPTIONS = preload(`if (process.argv[2] === '--library-child') { ${code} }`);
      const failure = await rejection(withEnvironment({ NODE_OPTIONS }, () => sync({ origin, replica })));
      assert.equal(failure.code, expected, failure.message);
      assert.match(failure.message, says);
      assert.deepEqual(names(folder), []);
    });
  }

  test('a child that cannot be started is WORKER_LOST', async (t) => {
    const { origin, replica } = place(t, 1e5);
    const { execPath } = process;
    t.after(() => (process.execPath = execPath));
    process.execPath = join(dirname(origin), 'no-node');
    const failure = await rejection(sync({ origin, replica }));
    process.execPath = execPath;
    assert.equal(failure.code, 'WORKER_LOST');
    assert.match(failure.message, /could not be started: .*ENOENT/);
  });
});

test('a listener that throws ends the sync, which rejects with what it threw', async (t) => {
  const { folder, origin, replica, before } = await outdated(t);
  const thrown = new RangeError('of the application');
  const onProgress = (): void => {
    throw thrown;
  };
  // Its agent never sends all: the sync does not end by itself.
  const held = new Hold(t, 1e6).environment;
  const result = withEnvironment(held, () => sync({ origin, replica, compress: 'none', onProgress }));
  assert.equal(await rejection(result), thrown);
  await assertUnchangedAndUsable({ folder, origin, replica, before });
});

describe('the application', () => {
  test('the application may change its working directory: relative paths are those of the call', async (t) => {
    const { folder, origin, replica } = place(t, 1e5);
    const cwd = process.cwd();
    t.after(() => process.chdir(cwd));
    process.chdir(folder);
    const running = sync({ origin: `../${basename(dirname(origin))}/a.db`, replica: 'r.db' });
    process.chdir('/');
    assert.equal((await running).replica, 'r.db');
    assertReplicaOf(origin, replica);
  });

  test('the application may stand in a folder that was removed', async (t) => {
    const { folder, origin, replica } = place(t, 1e5);
    const cwd = process.cwd();
    t.after(() => process.chdir(cwd));
    mkdirSync(join(folder, 'gone'));
    process.chdir(join(folder, 'gone'));
    rmdirSync(join(folder, 'gone'));
    await sync({ origin, replica });
    process.chdir(cwd);
    assertReplicaOf(origin, replica);
  });

  for (const NODE_OPTIONS of ['--inspect-brk=0', '--inspect-wait=127.0.0.1:0 --max-old-space-size=500']) {
    test(`the application may run with NODE_OPTIONS ${NODE_OPTIONS}: no child waits for a debugger`, async (t) => {
      const { origin, replica } = place(t, 1e5);
      await withEnvironment({ NODE_OPTIONS }, () => sync({ origin, replica }));
      assertReplicaOf(origin, replica);
    });
  }
});
