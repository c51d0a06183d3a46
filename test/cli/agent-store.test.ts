import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { pathToFileURL } from 'node:url';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { agentsGone, installRemote } from '../support/ssh-cli.ts';
import { placed } from '../support/ssh-place.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { Command, folderState, PROGRAM, sqlsync, summaryOf, until } from './command.ts';
import type { Run } from './command.ts';

const started = await startSshd();
const scratch = mkdtempSync(join(tmpdir(), 'sqlsync-agent-store-'));
if (started !== undefined) installRemote(started, join(scratch, 'pids'));
after(async () => {
  await started?.stop();
  rmSync(scratch, { recursive: true });
});

interface Place {
  readonly folder: string;
  readonly options: { readonly cwd: string; readonly env: NodeJS.ProcessEnv };
  /** Each agent leaves a file with its pid there. */
  readonly pids: string;
  /** Runs a command with --json, and returns its summary. */
  readonly run: (...args: string[]) => ReturnType<typeof summaryOf>;
  /** From now on agents have these flags. */
  readonly restrict: (flags: string) => void;
}

/** A folder with a database, and a host `vault` without SSH. */
function besideVault(t: TestContext): Place {
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'), { rows: 3000 });
  const pids = join(folder, 'pids');
  mkdirSync(pids);
  const shell = join(folder, 'shell');
  const restrict = (flags: string): void =>
    writeFileSync(
      shell,
      `#!/bin/sh\n: > '${pids}'/$$\nexec '${process.execPath}' '${PROGRAM}' agent ${flags}\n`,
      { mode: 0o755 },
    );
  restrict('');
  const env = { ...process.env, SQLSYNC_RSH: shell, XDG_CACHE_HOME: join(folder, 'cache') };
  const options = { cwd: folder, env };
  return { folder, options, pids, restrict, run: (...args) => summaryOf(args, options) };
}

test('every command takes a store on another host', async (t) => {
  const { folder, run } = besideVault(t);
  const store = `vault:${folder}/deep/store`;
  await run('init', store, '--grace', '0');
  await run('backup', 'a.db', store);
  change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 50 = 0');
  await run('backup', 'a.db', `ssh://vault${folder}/deep/store`, '--verify');
  await run('restore', `${store}#latest`, 'back.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
  assert.equal((await run('verify', `${store}#latest`, 'a.db'))['same'], true);
  const { snapshots } = await run('snapshots', store);
  const [first, second] = (snapshots as { id: string }[]).map(({ id }) => id);
  await run('diff', `${store}#${first}`, `#${second}`);
  await run('stats', store);
  await run('report', store, '-o', 'report.html');
  await run('report', `${store}#${first}`, `#${second}`, '-o', 'report.html');
  await run('forget', store, '--keep-last', '1', '--prune');
  await run('repair', store, '--read-data');
  await run('init', 'here');
  await run('copy', store, 'here');
  await run('copy', 'here', store);
  await run('restore', 'here', 'again.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'again.db'));
  // The files are those of a store in a folder, and only their owner may read them.
  await run('check', 'deep/store', '--read-data');
  const [pack = ''] = readdirSync(join(folder, 'deep', 'store', 'packs'));
  assert.equal(statSync(join(folder, 'deep', 'store', 'packs', pack)).mode & 0o077, 0);
  const left = readdirSync(join(folder, 'deep'), { recursive: true, encoding: 'utf8' });
  assert.deepEqual(
    left.filter((name) => name.includes('.tmp-')),
    [],
  );
});

test('an encrypted store on another host is made, filled, checked and read', async (t) => {
  const { folder, options } = besideVault(t);
  writeFileSync(join(folder, 'password'), 'secret on the host\n');
  const env = { ...options.env, SQLSYNC_PASSWORD_FILE: join(folder, 'password'), XDG_STATE_HOME: folder };
  const run = (...args: string[]) => summaryOf(args, { ...options, env });
  const store = `vault:${folder}/store`;
  await run('init', store, '--encrypt');
  await run('backup', 'a.db', store);
  await run('restore', store, 'back.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
  assert.equal((await run('check', store, '--read-data'))['dataRead'], 'there');
});

test('a check has the data read on the host of the store, and reads what is changed there', async (t) => {
  const { folder, options, run } = besideVault(t);
  const store = `vault:${folder}/store`;
  await run('init', store);
  await run('backup', 'a.db', store);
  const there = await run('check', store, '--read-data');
  const here = await run('check', store, '--read-data', '--read-here');
  assert.deepEqual([there['dataRead'], here['dataRead']], ['there', 'all']);
  const figures = ['packsRead', 'bytesRead', 'packs', 'packBytes'];
  assert.deepEqual(
    figures.map((name) => there[name]),
    figures.map((name) => here[name]),
  );
  const packs = join(folder, 'store', 'packs');
  const [path = ''] = readdirSync(packs)
    .map((name) => join(packs, name))
    .toSorted((a, b) => statSync(b).size - statSync(a).size);
  const bytes = readFileSync(path);
  const at = bytes.length >> 1;
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
  const [found, same] = (await Promise.all(
    [store, 'store'].map((each) => sqlsync(['check', each, '--read-data', '--json'], options)),
  )) as [Run, Run];
  assert.notEqual(found.status, 0);
  assert.equal(found.status, same.status);
  const [summary, expected] = [found, same].map(
    ({ stdout }) => JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Record<string, unknown>,
  ) as [Record<string, unknown>, Record<string, unknown>];
  assert.equal(summary['dataRead'], 'all');
  assert.deepEqual(summary['damaged'], expected['damaged']);
});

test('a backup whose agent is killed, again and again, goes on with another one', async (t) => {
  const { folder, options, pids, run } = besideVault(t);
  const store = `vault:${folder}/store`;
  await run('init', store);
  const before = new Set(readdirSync(pids));
  const killed = new Set<string>();
  for (let round = 1; killed.size === 0; round++) {
    assert.ok(round <= MAX_ROUNDS, 'no agent was killed');
    change(join(folder, 'a.db'), bigTable(round));
    const command = new Command(['backup', 'a.db', store], options);
    // Only in the middle of a put, three times.
    const killer = setInterval(() => {
      if (killed.size >= 3 || !isPutting(folder)) return;
      for (const pid of readdirSync(pids)) {
        if (before.has(pid) || killed.has(pid) || !isAgent(pid)) continue;
        killed.add(pid);
        process.kill(Number(pid), 'SIGKILL');
      }
    }, 10);
    const { status, stderr } = await command.done;
    clearInterval(killer);
    assert.equal(status, 0, stderr);
  }
  await run('check', store, '--read-data');
  await run('restore', store, 'back.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
});

test('a backup that is killed leaves a store that is sound, and an agent that ends', async (t) => {
  const { folder, options, pids, run } = besideVault(t);
  const store = `vault:${folder}/store`;
  await run('init', store);
  await run('backup', 'a.db', store);
  let isKilled = false;
  for (let round = 1; !isKilled; round++) {
    assert.ok(round <= MAX_ROUNDS, 'no backup was killed');
    change(join(folder, 'a.db'), bigTable(round));
    const command = new Command(['backup', 'a.db', store], options);
    const killer = setInterval(() => {
      if (isPutting(folder)) command.child.kill('SIGKILL');
    }, 5);
    const { status, signal, stderr } = await command.done;
    clearInterval(killer);
    isKilled = signal === 'SIGKILL';
    assert.ok(isKilled || status === 0, stderr);
  }
  await agentsGone(pids);
  await run('check', store, '--read-data');
  await run('backup', 'a.db', store);
  await run('restore', store, 'back.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
});

test('a key that may only add backs up, checks and restores, and neither forgets nor prunes', async (t) => {
  const { folder, options, run, restrict } = besideVault(t);
  const vault = tempDir(t);
  const store = 'vault:store';
  // By a login: no key that may only add makes a store.
  await run('init', `vault:${vault}/store`, '--grace', '0');
  restrict(`--restrict '${vault}' --append-only`);
  const first = await run('backup', 'a.db', store);
  change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 50 = 0');
  await run('backup', 'a.db', store);
  await run('check', store, '--read-data');
  await run('restore', store, 'back.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
  const [
    {
      snapshot: { id },
    },
  ] = first['backups'] as [{ snapshot: { id: string } }];
  const refused = async (...args: string[]): Promise<void> => {
    const before = folderState(vault);
    const { status, stderr } = await sqlsync(args, options);
    assert.equal(status, 18, stderr);
    assert.match(stderr, /agent there (?:is restricted|refuses it): .*\[STORE_UNAVAILABLE\]/s);
    assert.deepEqual(folderState(vault), before);
  };
  await refused('forget', store, id);
  await refused('forget', store, '--keep-last', '1', '--prune');
  // Now there is something to prune.
  restrict('');
  await run('forget', `vault:${vault}/store`, id);
  restrict(`--restrict '${vault}' --append-only`);
  await refused('prune', store);
  await run('backup', 'a.db', store);
  restrict(`--restrict '${vault}' --read-only`);
  await run('restore', store, 'again.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'again.db'));
  await refused('backup', 'a.db', store);
});

test('a database is followed into a store on another host, by a key that may only add', async (t) => {
  const { folder, options, run, restrict } = besideVault(t);
  const vault = tempDir(t);
  await run('init', `vault:${vault}/store`);
  restrict(`--restrict '${vault}' --append-only`);
  const command = new Command(['follow', 'a.db', 'vault:store', '--store', '--interval', '50ms'], options);
  await command.says('has a snapshot of');
  change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 50 = 0');
  await until(
    () => readdirIfThere(join(vault, 'store', 'steps')).some((name) => !name.startsWith('.')),
    command,
  );
  command.child.kill('SIGTERM');
  await command.done;
  await run('restore', 'vault:store', 'back.db');
  assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
});

test('a store on another host that is not there is named, and a program that has opened one ends by itself', async (t) => {
  const { folder, options, run } = besideVault(t);
  const missing = await sqlsync(['snapshots', `vault:${folder}/none`], options);
  assert.equal(missing.status, 18);
  assert.match(missing.stderr, /There is no store in vault:.*none \[STORE_NOT_FOUND\]/);
  const store = `vault:${folder}/store`;
  await run('init', store);
  const library = pathToFileURL(join(dirname(dirname(PROGRAM)), 'src', 'index.ts')).href;
  const program = `const { openStore } = await import('${library}');
    console.log((await (await openStore('${store}')).snapshots()).length)`;
  const said = execFileSync(process.execPath, ['--input-type=module', '-e', program], {
    env: options.env,
    encoding: 'utf8',
    timeout: 60_000,
  });
  assert.equal(said, '0\n');
});

describe('a store on another host over SSH', { skip: started === undefined ? SSHD_MISSING : false }, () => {
  const sshd = started as Sshd;
  for (const [way, more] of [
    ['the SSH built in', {}],
    ['the ssh of SQLSYNC_RSH', { SQLSYNC_RSH: 'ssh' }],
  ] as const) {
    test(`a store on another host is made, filled and read by ${way}, also by a key that may only add`, async (t) => {
      const { folder, env } = placed(t, sshd);
      const options = { cwd: folder, env: { ...env, ...more } };
      const vault = tempDir(t);
      await summaryOf(['init', `sqlsync-test:${vault}/store`], options);
      const key = readFileSync(sshd.authorizedKeysFile, 'utf8');
      t.after(() => writeFileSync(sshd.authorizedKeysFile, key));
      const command = `sqlsync agent --restrict '${vault}' --append-only`;
      writeFileSync(sshd.authorizedKeysFile, `restrict,command="${command}" ${key}`);
      await summaryOf(['backup', 'a.db', 'sqlsync-test:store'], options);
      await summaryOf(['restore', 'ssh://sqlsync-test/~/store#latest', 'back.db'], options);
      assertReplicaOf(join(folder, 'a.db'), join(folder, 'back.db'));
    });
  }
});

/** How often a put may be too short for a look at it. */
const MAX_ROUNDS = 30;

function bigTable(number: number): string {
  return `CREATE TABLE big${number} AS
    WITH RECURSIVE i (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM i WHERE i < 20000)
    SELECT i, randomblob(800) AS x FROM i`;
}

function readdirIfThere(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}

/** True if an unfinished pack is there. */
function isPutting(folder: string): boolean {
  return readdirIfThere(join(folder, 'store', 'packs')).some((name) => name.startsWith('.tmp-'));
}

/** False if it has ended, and another program may have its number. */
function isAgent(pid: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('\0agent\0');
  } catch {
    return false;
  }
}
