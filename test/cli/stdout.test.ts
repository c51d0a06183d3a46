import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { change, column } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { environment, PROGRAM, sqlsync } from './command.ts';

interface Shell {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a line of the shell, in which `$sqlsync` is the command. */
function shell(line: string, cwd: string, env: NodeJS.ProcessEnv = {}): Shell {
  const program = `'${process.execPath}' '${PROGRAM}'`;
  const run = spawnSync('bash', ['-c', line.replaceAll('$sqlsync', program)], {
    cwd,
    env: { ...environment({}), ...env },
    encoding: 'utf8',
  });
  return { status: run.status, stdout: run.stdout, stderr: run.stderr };
}

/** A database of some 5 MB, with changes that are only in its -wal. */
function database(path: string): void {
  generateDatabase(path, { rows: 20_000, journalMode: 'wal' });
}

describe('a database on standard output', () => {
  for (const [what, env] of [
    ['read in this process', {}],
    ['read by an agent', { SQLSYNC_AGENT_PROCESS: '1' }],
  ] as const) {
    test(`the copy of a database goes to a pipe and to a file, ${what}`, (t) => {
      const folder = tempDir(t);
      database(join(folder, 'app.db'));
      const piped = shell('set -o pipefail; $sqlsync app.db - | cat > copy.db', folder, env);
      assert.equal(piped.status, 0, piped.stderr);
      assert.match(piped.stderr, /^Standard output has an exact copy of app\.db: [\d,]+ pages/);
      assert.ok(statSync(join(folder, 'copy.db')).size > 3 * 2 ** 20);
      assertReplicaOf(join(folder, 'app.db'), join(folder, 'copy.db'));
      const filed = shell('$sqlsync sync app.db - > file.db', folder, env);
      assert.equal(filed.status, 0, filed.stderr);
      assert.equal(sha256File(join(folder, 'file.db')), sha256File(join(folder, 'copy.db')));
    });
  }

  test('a snapshot of a store goes to standard output, and --json to standard error', (t) => {
    const folder = tempDir(t);
    database(join(folder, 'app.db'));
    const line =
      '$sqlsync init store -q && $sqlsync backup app.db store -q && $sqlsync restore store - --json > out.db';
    const { status, stderr } = shell(line, folder);
    assert.equal(status, 0, stderr);
    assertReplicaOf(join(folder, 'app.db'), join(folder, 'out.db'));
    const last = JSON.parse(stderr.trimEnd().split('\n').at(-1) as string) as Record<string, unknown>;
    assert.equal(last['type'], 'summary');
    assert.equal(last['target'], '-');
  });

  test('it is one snapshot, also while the origin is written and the reader is slow', async (t) => {
    const folder = tempDir(t);
    const path = join(folder, 'app.db');
    database(path);
    const command = spawn(process.execPath, [PROGRAM, 'app.db', '-'], {
      cwd: folder,
      env: environment({}),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const copy = join(folder, 'copy.db');
    const before = column(path, 'SELECT sum(amount) FROM item');
    writeFileSync(copy, '');
    let chunks = 0;
    for await (const chunk of command.stdout) {
      appendFileSync(copy, chunk as Buffer);
      if (chunks++ < 20) change(path, 'UPDATE item SET amount = amount + 1 WHERE id % 50 = 0');
    }
    if (command.exitCode === null) await once(command, 'exit');
    assert.equal(command.exitCode, 0);
    assert.deepEqual(column(copy, 'PRAGMA integrity_check'), ['ok']);
    assert.deepEqual(column(copy, 'SELECT sum(amount) FROM item'), before);
  });

  test('an empty database is no byte', (t) => {
    const folder = tempDir(t);
    writeFileSync(join(folder, 'app.db'), '');
    const { status, stdout } = shell('$sqlsync app.db - -q', folder);
    assert.deepEqual({ status, stdout }, { status: 0, stdout: '' });
  });

  test('the status tells that the reader went away, or that there is no space', (t) => {
    const folder = tempDir(t);
    database(join(folder, 'app.db'));
    const line = '$sqlsync app.db - | head -c 1000 > part; exit ${PIPESTATUS[0]}';
    const closed = shell(line, folder);
    assert.equal(closed.status, 4);
    assert.match(
      closed.stderr,
      /its reader ended before the database did \[REPLICA_UNWRITABLE\]\n.*throw it away/,
    );
    const full = shell('$sqlsync app.db - > /dev/full', folder);
    assert.equal(full.status, 4);
    assert.match(full.stderr, /^sqlsync: Standard output cannot be written: ENOSPC/);
  });

  test('an interruption ends it, also while its reader does not read', async (t) => {
    const folder = tempDir(t);
    database(join(folder, 'app.db'));
    const command = spawn(process.execPath, [PROGRAM, 'app.db', '-'], {
      cwd: folder,
      env: environment({}),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    t.after(() => command.kill('SIGKILL'));
    let said = '';
    command.stderr.setEncoding('utf8').on('data', (text: string) => (said += text));
    await once(command.stdout, 'readable');
    const ended = once(command, 'exit');
    command.kill('SIGINT');
    assert.deepEqual(await ended, [130, null]);
    assert.match(said, /Interrupted \[INTERRUPTED\]\n.*throw it away/);
  });

  test('messages in the same file or pipe would damage the database: that is refused', (t) => {
    const folder = tempDir(t);
    database(join(folder, 'app.db'));
    for (const line of [
      '$sqlsync app.db - > out.db 2>&1',
      'set -o pipefail; $sqlsync app.db - 2>&1 | cat > out.db',
    ]) {
      assert.equal(shell(line, folder).status, 2, line);
      assert.match(readFileSync(join(folder, 'out.db'), 'utf8'), /Standard error goes to the same place/);
    }
    assert.equal(shell('$sqlsync app.db - > /dev/null 2>&1', folder).status, 0);
  });

  test('what is about a file is refused, and so is a terminal', async (t) => {
    const folder = tempDir(t);
    database(join(folder, 'app.db'));
    for (const option of [
      '--dry-run',
      '--overwrite',
      '--check',
      '--retry=3',
      '--max-snapshot=5s',
      '--full',
    ]) {
      const run = await sqlsync(['app.db', '-', option], { cwd: folder });
      assert.equal(run.status, 2);
      assert.match(run.stderr, /is about a file, and - stands for standard output \[USAGE\]/);
      assert.equal(run.stdout, '');
    }
    const shown = await sqlsync(['app.db', '-'], { cwd: folder, terminal: true });
    assert.equal(shown.status, 2);
    assert.match(shown.stdout, /Standard output is a terminal/);
    assert.equal(existsSync(join(folder, '-')), false);
    assert.ok(readFileSync(join(folder, 'app.db')).length > 0);
  });
});
