import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { message } from '../../protocol/encode.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { Restriction } from '../../src/sync/request/restriction.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { installRemote, installRemoteVariant, remote, runCli } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { assertRefused, jsonLines, sqlsync, summaryOf } from './command.ts';
import { assertDocumented } from './store-here.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test that needs it is skipped
const scratch = mkdtempSync(join(tmpdir(), 'sqlsync-folder-'));
const pids = join(scratch, 'pids');
if (started !== undefined) installRemote(sshd, pids);
after(async () => {
  await started?.stop();
  rmSync(scratch, { recursive: true });
});

const HOSTILE = ['-rf', 'line\nbreak.db', '$(touch executed).db', 'sub/数据库 \'"', 'sub/deep/--delete'];

function makeAll(folder: string, names: readonly string[]): void {
  for (const [seed, name] of names.entries()) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    smallDatabase(join(folder, name), { rows: 10 + seed, journalMode: 'delete', seed });
  }
}

function assertCopies(from: string, to: string, names: readonly string[]): void {
  for (const name of names) assertReplicaOf(join(from, name), join(to, name));
}

/** How many agents were started since the last call. */
function agents(): number {
  const names = readdirSync(pids);
  for (const name of names) rmSync(join(pids, name));
  return names.length;
}

describe('a folder of databases on another host', { skip }, () => {
  for (const way of ['fetched', 'sent'] as const) {
    test(`it is ${way} over one connection, with hostile names, and then only what has changed`, async (t) => {
      const [from, to] = [tempDir(t), tempDir(t)];
      makeAll(from, HOSTILE);
      writeFileSync(join(from, 'notes.txt'), 'text');
      symlinkSync('/etc', join(from, 'etc'));
      const words = (): string[] => (way === 'fetched' ? [remote(sshd, from), to] : [from, remote(sshd, to)]);
      agents();
      const first = await runCli(sshd, ['--recursive', ...words()]);
      const { databases, committed, omitted } = first.events.get('summary') ?? {};
      assert.deepEqual([first.status, databases, committed, omitted], [0, HOSTILE.length, HOSTILE.length, 2]);
      assert.equal(agents(), 1);
      assertCopies(from, to, HOSTILE);
      change(join(from, HOSTILE[3] as string), 'CREATE TABLE news (x)');
      const second = await runCli(sshd, ['--recursive', ...words()]);
      assert.deepEqual(
        [
          second.status,
          second.events.get('summary')?.['committed'],
          second.events.get('summary')?.['unchanged'],
        ],
        [0, 1, HOSTILE.length - 1],
      );
      assert.equal(agents(), 1);
      assertCopies(from, to, HOSTILE);
      assert.equal(existsSync('executed'), false);
    });
  }

  test('a database that fails does not keep the others from being copied, and decides the status', async (t) => {
    const [from, to] = [tempDir(t), tempDir(t)];
    makeAll(from, ['a.db', 'b.db', 'c.db', 'd.db']);
    makeAll(to, ['b.db']);
    for (const words of [
      [remote(sshd, from), to],
      [from, remote(sshd, to)],
    ]) {
      for (const name of ['a.db', 'c.db', 'd.db']) rmSync(join(to, name), { force: true });
      agents();
      const run = await runCli(sshd, ['--recursive', ...words]);
      assert.equal(run.status, 6, 'REPLICA_NOT_MARKED');
      const failures = run.events.get('summary')?.['failures'] as { code: string; origin: string }[];
      assert.deepEqual(
        failures.map(({ code }) => code),
        ['REPLICA_NOT_MARKED'],
      );
      assert.match(failures[0]?.origin ?? '', /b\.db$/);
      assertCopies(from, to, ['a.db', 'c.db', 'd.db']);
      assert.equal(agents(), 2, 'a failure ends a connection');
    }
  });

  test('a key that is restricted to a folder lists and fetches that, and nothing else', async (t) => {
    const [from, to, other] = [tempDir(t), tempDir(t), tempDir(t)];
    makeAll(from, ['a.db', 'sub/b.db']);
    makeAll(other, ['secret.db']);
    symlinkSync(other, join(from, 'out'));
    const readOnly = installRemoteVariant(sshd, 'read-only', {}, ['--restrict', `'${from}'`, '--read-only']);
    for (const folder of ['.', from]) {
      const run = await runCli(sshd, ['--recursive', remote(sshd, folder), to], { remoteExe: readOnly });
      assert.equal(run.status, 0, JSON.stringify(run.events.get('error')));
    }
    assertCopies(from, to, ['a.db', 'sub/b.db']);
    const some = await runCli(sshd, ['-r', remote(sshd, 'sub/*.db'), join(to, 'some')], {
      remoteExe: readOnly,
    });
    assert.deepEqual([some.status, readdirSync(join(to, 'some'))], [0, ['.b.db.sqlsync', 'b.db']]);
    for (const folder of [other, 'out', '..', '/', '../*']) {
      const refused = await runCli(sshd, ['--recursive', remote(sshd, folder), join(to, 'x')], {
        remoteExe: readOnly,
      });
      assert.deepEqual([refused.status, refused.events.get('error')?.['code']], [17, 'RESTRICTED'], folder);
    }
    assert.equal(existsSync(join(to, 'x')), false);
    const writeOnly = installRemoteVariant(sshd, 'write-only', {}, [
      '--restrict',
      `'${from}'`,
      '--write-only',
    ]);
    const unread = await runCli(sshd, ['--recursive', remote(sshd, '.'), join(to, 'x')], {
      remoteExe: writeOnly,
    });
    assert.equal(unread.status, 17);
    const sent = await runCli(sshd, ['--recursive', other, remote(sshd, 'new')], { remoteExe: writeOnly });
    assert.deepEqual(
      [sent.status, existsSync(join(from, 'new'))],
      [17, false],
      'no folder is made without --allow-create',
    );
  });
});

test('a peer whose list leads out of the folder is refused, and nothing is made', async (t) => {
  const to = tempDir(t);
  const { syncFolder } = await import('../../src/sync/runs/sync-folder.ts');
  const program = join(to, 'liar.ts');
  // Speaks the protocol, and lies.
  writeFileSync(
    program,
    `import { message } from '${join(import.meta.dirname, '../../protocol/encode.ts')}';
import { Connection } from '${join(import.meta.dirname, '../../src/sync/link/connection.ts')}';
import { freeChunk } from '${join(import.meta.dirname, '../../src/transport/chunk-memory.ts')}';
const connection = new Connection({ description: 'x', input: process.stdin, output: process.stdout, freeChunk, exited: new Promise(() => {}), terminate() {} }, 'unassigned', { idleTimeoutMs: 30000 });
await connection.receive();
connection.send(message('listed', { databases: ['../out.db'], stamps: new Uint8Array(32), omitted: [], isLast: true }));
await connection.drained();
`,
  );
  const rsh = `${process.execPath} ${program}`;
  const fail = (): never => assert.fail('nothing was to be done');
  const listeners = {
    onListed: fail,
    onOmitted: fail,
    onDeleted: fail,
    onDone: fail,
    onFailed: fail,
    onRetry: fail,
  };
  await assert.rejects(syncFolder({ origin: 'h:in', replica: join(to, 'copy'), rsh }, listeners), {
    code: 'PROTOCOL',
    message: /"\.\.\/out\.db"/,
  });
  assert.deepEqual(readdirSync(to), ['liar.ts']);
});

test('a long list comes in parts', async (t) => {
  const folder = tempDir(t);
  for (let number = 0; number < 5000; number++)
    writeFileSync(join(folder, `${number}`), number % 2 === 0 ? 'SQLite format 3\0' : 'text');
  const [near, far] = memoryTransportPair();
  const restriction = new Restriction({ folder, access: 'read', create: false });
  const done = runFarAgent(far, { idleTimeoutMs: 0, restriction });
  const connection = new Connection(near, 'listing', { idleTimeoutMs: 0 });
  connection.send(
    message('list', { path: '.', include: [], exclude: [], stamps: true, idleTimeoutMs: 0, maxTimeMs: 0 }),
  );
  const parts = [await connection.receiveOnly('listed')];
  while (parts.at(-1)?.isLast === false) parts.push(await connection.receiveOnly('listed'));
  assert.ok(parts.length > 1);
  assert.equal(new Set(parts.flatMap(({ databases }) => databases)).size, 2500);
  assert.equal(parts.flatMap(({ omitted }) => omitted).length, 2500);
  connection.send(message('close', {}));
  await done;
});

describe('a folder of databases of this host', () => {
  test('it is copied to another folder, by patterns, and its fields are documented', async (t) => {
    const folder = tempDir(t);
    makeAll(join(folder, 'from'), ['a.db', 'cache/b.db', 'sub/c.db', 'sub/d.sqlite']);
    const run = await sqlsync(['-r', 'from', 'to', '--json', '--exclude', 'cache/', '--exclude=*.sqlite'], {
      cwd: folder,
    });
    assert.equal(run.status, 0, run.stderr);
    const summary = jsonLines(run.stdout).at(-1) as Record<string, unknown> & { type: string };
    assertDocumented('sync', summary);
    assert.equal(summary['databases'], 2);
    assertCopies(join(folder, 'from'), join(folder, 'to'), ['a.db', 'sub/c.db']);
    assert.deepEqual(existsSync(join(folder, 'to', 'cache')), false);
  });

  test('a dry run writes nothing', async (t) => {
    const folder = tempDir(t);
    makeAll(join(folder, 'from'), ['sub/a.db']);
    const summary = await summaryOf(['-r', '-n', 'from', 'to'], { cwd: folder });
    assert.deepEqual([summary['databases'], existsSync(join(folder, 'to'))], [1, false]);
  });

  test('--delete deletes copies without an origin, and no other database', async (t) => {
    const folder = tempDir(t);
    const [from, to] = [join(folder, 'from'), join(folder, 'to')];
    makeAll(from, ['a.db', 'sub/b.db']);
    await summaryOf(['-r', 'from', 'to'], { cwd: folder });
    makeAll(to, ['own.db']);
    rmSync(join(from, 'sub', 'b.db'));
    assert.equal(
      (await summaryOf(['-r', 'from', 'to'], { cwd: folder }))['deleted'],
      0,
      'it has to be asked for',
    );
    assert.equal((await summaryOf(['-r', '-n', '--delete', 'from', 'to'], { cwd: folder }))['deleted'], 1);
    assert.equal(existsSync(join(to, 'sub', 'b.db')), true);
    // What may be a damaged database may be one that is only not known.
    writeFileSync(join(from, 'sub', 'b.db'), 'damaged');
    assert.equal((await summaryOf(['-r', '--delete', 'from', 'to'], { cwd: folder }))['deleted'], 0);
    rmSync(join(from, 'sub', 'b.db'));
    assert.equal((await summaryOf(['-r', '--delete', 'from', 'to'], { cwd: folder }))['deleted'], 1);
    assert.deepEqual(readdirSync(join(to, 'sub')), []);
    // Nobody deleted these databases: one was moved and is reached by a link, as is a folder, and one was emptied.
    makeAll(from, ['moved.db', 'folder/c.db', 'emptied.db']);
    await summaryOf(['-r', 'from', 'to'], { cwd: folder });
    for (const name of ['moved.db', 'folder']) {
      renameSync(join(from, name), join(folder, name));
      symlinkSync(join(folder, name), join(from, name));
    }
    writeFileSync(join(from, 'emptied.db'), '');
    assert.equal((await summaryOf(['-r', '--delete', 'from', 'to'], { cwd: folder }))['deleted'], 0);
    for (const name of ['moved.db', 'folder/c.db', 'emptied.db']) assert.ok(existsSync(join(to, name)), name);
    for (const name of ['moved.db', 'folder', 'emptied.db']) rmSync(join(from, name));
    assert.equal((await summaryOf(['-r', '--delete', 'from', 'to'], { cwd: folder }))['deleted'], 3);
    assert.deepEqual([existsSync(join(to, 'own.db')), existsSync(join(to, 'a.db'))], [true, true]);
    rmSync(join(from, 'a.db'));
    assert.equal(
      (await summaryOf(['-r', '--delete', 'from', 'to'], { cwd: folder }))['deleted'],
      0,
      'an empty folder may be an unmounted one',
    );
  });

  test('a folder within itself, a database in its place, and options without --recursive are refused', async (t) => {
    const folder = tempDir(t);
    makeAll(folder, ['from/a.db']);
    const usage = { code: 'USAGE', status: 2 } as const;
    await assertRefused(
      ['-r', 'from', 'from/copies'],
      { ...usage, says: /lies in the folder/ },
      { cwd: folder },
    );
    await assertRefused(
      ['from', 'to', '--delete'],
      { ...usage, says: /--delete is for --recursive/ },
      { cwd: folder },
    );
    await assertRefused(
      ['-r', 'from', 'h:to', '--delete'],
      { ...usage, says: /on this host/ },
      { cwd: folder },
    );
    await assertRefused(
      ['-r', 'from/a.db', 'to'],
      { code: 'ORIGIN_NOT_FOUND', status: 3, says: /is no folder/ },
      { cwd: folder },
    );
    assert.deepEqual(readdirSync(folder), ['from']);
    assert.ok(readFileSync(join(folder, 'from', 'a.db')).length > 0);
  });
});
