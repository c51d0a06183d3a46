import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Facts } from '../../src/doctor/facts.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { change } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { findingOf, ids, LINUX, lookUntil } from './holders.ts';

const FOLDER = join(import.meta.dirname, '..', '..', 'fixtures', 'recipes');

/** The programs of docs/recipes.md, and what doctor finds while they have their symptom. */
const RECIPES: Readonly<Record<string, string>> = {
  'lost-to-busy': 'write-lock-held',
  'long-import': 'write-lock-held',
  'write-intent': 'wal-pinned',
  'starved-readers': 'write-lock-held',
  'locked-origin': 'write-lock-held',
};

interface Running {
  readonly pid: number;
  /** Ends it by Ctrl-C; resolves to what it counted. */
  end(): Promise<{ readonly done: number; readonly lost: number }>;
}

function start(t: TestContext, name: string, how: string, path: string): Running {
  const child = spawn(process.execPath, [join(FOLDER, `${name}.ts`), how, path, '600'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.after(() => child.kill('SIGKILL'));
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  return {
    pid: child.pid as number,
    async end() {
      const ended = once(child, 'close');
      child.kill('SIGINT');
      await ended;
      return JSON.parse(said) as { done: number; lost: number };
    },
  };
}

describe('the programs of docs/recipes.md', { skip: LINUX }, () => {
  for (const [name, id] of Object.entries(RECIPES)) {
    test(`doctor shows the symptom of ${name}, and the mended program loses nothing`, async (t) => {
      const path = join(tempDir(t), 'app.db');
      change(path, 'PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)');
      const symptom = start(t, name, 'symptom', path);
      const { found } = await lookUntil(path, (each) => ids(each).includes(id));
      assert.match(findingOf(found, id).title, new RegExp(`^PID ${symptom.pid} `));
      assert.ok((await symptom.end()).lost > 0);
      const mended = start(t, name, 'mended', path);
      // In the program of the readers another one goes on holding the lock.
      const isMended = (each: readonly Finding[], { processes, wal }: Facts): boolean =>
        name === 'starved-readers'
          ? processes.some(({ pid }) => pid === mended.pid)
          : !ids(each).includes(id) && (wal.state?.newCommits ?? 0) > 0;
      await lookUntil(path, isMended);
      const { done, lost } = await mended.end();
      assert.equal(lost, 0);
      assert.ok(done > 0 || name === 'starved-readers');
    });
  }
});
