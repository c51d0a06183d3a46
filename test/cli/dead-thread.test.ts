import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { openRaw } from '../../src/sqlite/binding.ts';
import { awaitThread } from '../../src/sqlite/thread-life.ts';
import { change, column, largeDatabase } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { dyingThread } from '../support/dying-thread.ts';
import type { Death } from '../support/dying-thread.ts';
import { assertRefused, sqlsync } from './command.ts';

/** Far less than waiting for a dead thread once for each frame would take, and far more than the work takes. */
const LIMIT = { timeout: 240_000 };

const DEATHS: readonly Death[] = ['exit at load', 'error at load', { beforeAnswer: 1 }, { beforeAnswer: 4 }];

describe('a thread that died', () => {
  test('a dead thread is noticed by a caller that waits for it without its event loop', LIMIT, async () => {
    for (const [isAnswered, code] of [
      [false, ''],
      [true, 'Atomics.store(cells, 0, 1);'],
    ] as const) {
      const cells = new Int32Array(new SharedArrayBuffer(8));
      const worker = new Worker(
        `const { readlinkSync } = require('node:fs');
        const { parentPort, workerData: cells } = require('node:worker_threads');
        Atomics.store(cells, 1, Number(readlinkSync('/proc/thread-self').split('/').at(-1)));
        parentPort.once('message', () => { ${code} process.exit(); });
        parentPort.postMessage('up');`,
        { eval: true, workerData: cells },
      );
      await new Promise((resolve) => worker.once('message', resolve));
      const thread = Atomics.load(cells, 1);
      assert.ok(thread > 0);
      // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a Worker, not a window
      worker.postMessage('die');
      assert.equal(awaitThread(cells, 0, 0, { thread, timeoutMs: 3_600_000 }), isAnswered);
    }
  });

  test('a thread that is not known to be dead is waited for as long as the limit says', () => {
    const cells = new Int32Array(new SharedArrayBuffer(4));
    assert.equal(awaitThread(cells, 0, 0, { thread: 0, timeoutMs: 20 }), false);
  });
});

describe('a decompressor that dies', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-dead-'));
  after(() => rmSync(folder, { recursive: true }));
  before(async () => {
    largeDatabase(join(folder, 'o.db'), 24 * 1024 * 1024, 'delete');
    for (const args of [
      ['init', 'store'],
      ['backup', 'o.db', 'store'],
    ])
      assert.equal((await sqlsync(args, { cwd: folder })).status, 0);
  });

  for (const [i, death] of DEATHS.entries()) {
    test(
      `a dead decompressor costs a restore nothing but its help: ${JSON.stringify(death)}`,
      LIMIT,
      async () => {
        const target = `r${i}.db`;
        const env = dyingThread('shared', death);
        const run = await sqlsync(['restore', 'store', target], { cwd: folder, env });
        assert.equal(run.status, 0, run.stderr);
        assert.equal(sha256File(join(folder, target)), sha256File(join(folder, 'o.db')));
      },
    );
  }

  test('a dead decompressor costs a check nothing but its help', LIMIT, async () => {
    const env = dyingThread('shared', { beforeAnswer: 2 });
    const run = await sqlsync(['check', 'store', '--read-data'], { cwd: folder, env });
    assert.equal(run.status, 0, run.stdout + run.stderr);
  });
});

describe('a thread of the page writer that dies', () => {
  /** A replica in WAL mode that differs from its origin in 10 MB. */
  async function changed(t: Parameters<typeof tempDir>[0]): Promise<string> {
    const folder = tempDir(t);
    largeDatabase(join(folder, 'o.db'), 10 * 1024 * 1024);
    const run = await sqlsync(['o.db', 'r.db'], { cwd: folder });
    assert.equal(run.status, 0, run.stderr);
    openRaw(join(folder, 'r.db')).exec('PRAGMA journal_mode = WAL').close();
    change(join(folder, 'o.db'), 'UPDATE t SET x = randomblob(8000)');
    return folder;
  }

  for (const death of ['exit at load', 'error at load', { beforeAnswer: 1 }] as const) {
    test(
      `a page writer thread that dies before it is up leaves the work to the main thread: ${JSON.stringify(death)}`,
      LIMIT,
      async (t) => {
        const folder = await changed(t);
        const run = await sqlsync(['o.db', 'r.db'], { cwd: folder, env: dyingThread('slots', death) });
        assert.equal(run.status, 0, run.stderr);
        assertReplicaOf(join(folder, 'o.db'), join(folder, 'r.db'));
      },
    );
  }

  test(
    'a page writer thread that dies in the middle ends the sync, which says why and changed nothing',
    LIMIT,
    async (t) => {
      const folder = await changed(t);
      const old = column(join(folder, 'r.db'), 'SELECT hex(x) FROM t WHERE id = 7');
      await assertRefused(
        ['o.db', 'r.db'],
        {
          code: 'REPLICA_UNWRITABLE',
          status: 4,
          says: /the thread that writes it has ended: exit status 9/,
          hint: /^ *Nothing was changed\. .*memory, threads and file descriptors/,
        },
        { cwd: folder, env: dyingThread('slots', { beforeAnswer: 6 }) },
      );
      assert.deepEqual(column(join(folder, 'r.db'), 'SELECT hex(x) FROM t WHERE id = 7'), old);
      assert.deepEqual(column(join(folder, 'r.db'), 'PRAGMA integrity_check'), ['ok']);
      assert.equal((await sqlsync(['o.db', 'r.db'], { cwd: folder })).status, 0);
    },
  );

  test(
    'a page writer thread that dies during a call fails that call, and each later one at once',
    LIMIT,
    (t) => {
      const folder = tempDir(t);
      largeDatabase(join(folder, 'w.db'), 100_000);
      const source = join(
        import.meta.dirname,
        '..',
        '..',
        'src',
        'sqlite',
        'writer',
        'thread-page-writer.ts',
      );
      const code = `
      const { ThreadPageWriter } = await import(${JSON.stringify(source)});
      const options = { textEncoding: 'UTF-8', wal: true };
      const writer = await ThreadPageWriter.open(${JSON.stringify(join(folder, 'w.db'))}, 4096, options);
      await writer.call('begin', 'immediate');
      for (const page of [3, 4]) {
        try { writer.readPage(page); } catch (error) { console.log(error.name, error.mayHaveCommitted); }
      }
      await writer.call('commit').catch((error) => console.log(error.name, error.mayHaveCommitted));
      await writer.end();`;
      const env = { ...process.env, ...dyingThread('slots', { beforeAnswer: 3 }) };
      const script = join(folder, 'write.mjs');
      writeFileSync(script, code);
      const run = spawnSync(process.execPath, [script], { env, encoding: 'utf8' });
      assert.equal(run.stdout, 'WriterThreadLost false\n'.repeat(3), run.stderr);
    },
  );
});
