import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { Facts } from '../../src/doctor/facts.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { jsonLines, PROGRAM } from '../cli/command.ts';
import { change } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { collectFacts } from '../../src/doctor/collect/collect.ts';
import { judge } from '../../src/doctor/judge/judge.ts';
import { ids, LINUX } from './holders.ts';

/** Runs the rest of a command line with process ids of its own, as a container does. */
const CONTAINED = ['--pid', '--fork', '--mount-proc'];
const MAY_CONTAIN =
  LINUX === false && spawnSync('unshare', [...CONTAINED, 'true']).status !== 0
    ? 'NOT TESTED: this user may not make a PID namespace'
    : LINUX;

test(
  'in a container doctor takes nothing of a living writer outside for that of a killed one',
  { skip: MAY_CONTAIN },
  async (t) => {
    const doctor = (path: string): { facts: Facts; findings: Finding[] } => {
      const args = [...CONTAINED, process.execPath, PROGRAM, 'doctor', '--json', path];
      const { stdout, stderr } = spawnSync('unshare', args, { encoding: 'utf8' });
      const summary = jsonLines(stdout).at(-1);
      assert.equal(summary?.type, 'summary', stdout + stderr);
      return summary as unknown as { facts: Facts; findings: Finding[] };
    };
    for (const mode of ['wal', 'delete']) {
      const path = join(tempDir(t), 'a.db');
      change(path, `PRAGMA journal_mode = ${mode}; CREATE TABLE t (x); INSERT INTO t VALUES (1)`);
      const writer = await new OtherProcess(t).open(path);
      await writer.exec('PRAGMA cache_size = 1; INSERT INTO t VALUES (2); BEGIN');
      await writer.exec(
        'WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT randomblob(3000) FROM n',
      );
      const { facts, findings } = doctor(path);
      assert.equal(facts.sight, 'some');
      assert.match(facts.unseen.join(), /container with process ids of its own/);
      assert.deepEqual([facts.processes, facts.locks], [[], []], 'the kernel does not list them');
      assert.deepEqual(ids(findings.filter(({ severity }) => severity !== 'advice')), [], mode);
      await writer.exec('ROLLBACK');
    }
  },
);

const MAY_MOUNT =
  LINUX === false && spawnSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'none', '/mnt']).status !== 0
    ? 'NOT TESTED: this user may not mount in a namespace of its own'
    : LINUX;

test(
  'a deleted file of the same name in a container is none of this database',
  { skip: MAY_MOUNT },
  async (t) => {
    const path = join(tempDir(t), 'a.db');
    change(path, 'PRAGMA journal_mode = WAL; CREATE TABLE t (x)');
    const script = `mount -t tmpfs none "$1" && exec 3> "$2-wal" && rm "$2-wal" && echo ready && exec sleep 600`;
    const args = ['--mount', 'sh', '-c', script, 'sh', dirname(path), path];
    const child = spawn('unshare', args, { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(async () => {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    });
    await once(child.stdout, 'data');
    const facts = await collectFacts(path);
    assert.ok(facts.processes.every(({ pid }) => pid !== child.pid));
    assert.ok(!ids(judge(facts)).includes('deleted-file'));
  },
);
