import assert from 'node:assert/strict';
import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { message } from '../../protocol/encode.ts';
import { DEFAULT_HASH } from '../../protocol/messages.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { openToRead } from '../../src/sync/runs/open-to-read.ts';
import { Restriction } from '../../src/sync/request/restriction.ts';
import type { RestrictionOptions } from '../../src/sync/request/restriction.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import { change, names, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, sha256File, tempDir } from '../support/compare.ts';
import { failureOf, runNear } from '../support/relay-near.ts';
import type { Pair, Role } from '../support/relay-near.ts';
import { installRemote, remote, runCli, SSH_WAYS, wasExecuted } from '../support/ssh-cli.ts';
import type { CliResult } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { assertRefused, folderState, PROGRAM } from './command.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test that needs it is skipped
const scratch = mkdtempSync(join(tmpdir(), 'sqlsync-restrict-'));
if (started !== undefined) installRemote(sshd, join(scratch, 'pids'));
after(async () => {
  await started?.stop();
  rmSync(scratch, { recursive: true });
});

interface Host {
  /** The folder that the key is restricted to, with app.db in it. */
  readonly folder: string;
  readonly near: string;
}

function host(t: TestContext): Host {
  const [folder, near] = [tempDir(t), tempDir(t)];
  smallDatabase(join(folder, 'app.db'), { rows: 60, journalMode: 'delete' });
  smallDatabase(join(near, 'near.db'), { rows: 40, journalMode: 'delete', seed: 2 });
  return { folder, near };
}

/** Restricts the key to this command, as a line of the README does. */
function allowOnly(flags: string): void {
  const key = readFileSync(`${sshd.clientKey}.pub`, 'utf8');
  writeFileSync(sshd.authorizedKeysFile, `restrict,command="sqlsync agent --restrict ${flags}" ${key}`);
}

function assertRestricted({ status, events }: CliResult, says: RegExp): void {
  const error = events.get('error');
  assert.deepEqual([status, error?.['code']], [17, 'RESTRICTED'], JSON.stringify(error));
  assert.match(String(error?.['message']), says);
}

function assertDone(result: CliResult): void {
  assert.equal(result.status, 0, JSON.stringify(result.events.get('error')));
}

describe('a key with a forced command', { skip }, () => {
  test('a forced command with --read-only may fetch and verify, and never write', async (t) => {
    const { folder, near } = host(t);
    allowOnly(`'${folder}' --read-only`);
    const before = folderState(folder);
    const copy = join(near, 'copy.db');
    for (const name of ['app.db', './app.db', join(folder, 'app.db')]) {
      assertDone(await runCli(sshd, [remote(sshd, name), copy]));
    }
    assertReplicaOf(join(folder, 'app.db'), copy);
    assertDone(await runCli(sshd, ['verify', copy, remote(sshd, 'app.db')]));
    const push = await runCli(sshd, [join(near, 'near.db'), remote(sshd, 'app.db'), '--overwrite']);
    assertRestricted(push, /may be read, but not written/);
    assert.deepEqual(folderState(folder), before);
  });

  test('a forced command with --write-only may update existing replicas, and never read them nor make another', async (t) => {
    const { folder, near } = host(t);
    const origin = join(near, 'near.db');
    allowOnly(`'${folder}' --write-only`);
    assertDone(await runCli(sshd, [origin, remote(sshd, 'app.db'), '--overwrite']));
    assertReplicaOf(origin, join(folder, 'app.db'));
    const fetched = await runCli(sshd, [remote(sshd, 'app.db'), join(near, 'stolen.db')]);
    assertRestricted(fetched, /may be written, but not read/);
    assertRestricted(
      await runCli(sshd, [origin, remote(sshd, 'new.db')]),
      /does not exist, and this agent may not create it/,
    );
    assert.deepEqual(names(folder), ['.app.db.sqlsync', 'app.db']);
    assert.deepEqual(names(near), ['near.db']);
  });

  test('a forced command with --allow-create may make replicas, in its folder only', async (t) => {
    const { folder, near } = host(t);
    const origin = join(near, 'near.db');
    allowOnly(`'${folder}' --write-only --allow-create`);
    assertDone(await runCli(sshd, [origin, remote(sshd, 'new.db')]));
    assertReplicaOf(origin, join(folder, 'new.db'));
    const outside = await runCli(sshd, [origin, remote(sshd, join(near, 'new.db'))]);
    assertRestricted(outside, /inside the folder/);
    assert.deepEqual(names(near), ['near.db']);
  });

  for (const name of [
    'line\nbreak.db',
    '-dash.db',
    '--write-only',
    'naïve-数据库-🗄.db',
    `$(touch executed) "it's" \`touch executed\`; touch executed.db`,
    `${'d'.repeat(200)}/${'e'.repeat(90)}.db`,
  ]) {
    test(`a forced command finds the right file by the name ${JSON.stringify(name.slice(0, 50))}, both ways`, async (t) => {
      const { folder, near } = host(t);
      mkdirSync(dirname(join(folder, name)), { recursive: true });
      allowOnly(`'${folder}' --allow-create`);
      assertDone(await runCli(sshd, [join(near, 'near.db'), remote(sshd, name)]));
      assertReplicaOf(join(near, 'near.db'), join(folder, name));
      assertDone(await runCli(sshd, [remote(sshd, name), join(near, 'back.db')]));
      assert.equal(sha256File(join(near, 'back.db')), sha256File(join(folder, name)));
      assert.ok(!wasExecuted('executed', [folder, near, sshd.home, '.']), 'it was executed');
    });
  }

  test('sshd runs the forced command, whatever the client asks for', async (t) => {
    const { folder, near } = host(t);
    allowOnly(`'${folder}' --read-only`);
    const executed = join(near, 'executed');
    const remoteExe = `touch ${executed}; sqlsync agent #`;
    assertDone(await runCli(sshd, [remote(sshd, 'app.db'), join(near, 'copy.db')], { remoteExe }));
    assert.equal(existsSync(executed), false);
    assertReplicaOf(join(folder, 'app.db'), join(near, 'copy.db'));
  });
});

/** One database that a near side asks of an agent in this process; returns the errors of both sides. */
async function ask(
  role: Role,
  named: string,
  near: string,
  options: RestrictionOptions,
  modes: Pick<Pair, 'overwrite' | 'replace'> = {},
): Promise<unknown> {
  const [nearEnd, farEnd] = memoryTransportPair();
  const far = failureOf(
    runFarAgent(farEnd, { idleTimeoutMs: 0, restriction: new Restriction(options) }).finally(() =>
      farEnd.output.end(),
    ),
  );
  const pair =
    role === 'pull'
      ? { origin: named, replica: join(near, 'fetched.db') }
      : { origin: join(near, 'near.db'), replica: named };
  const failure = await failureOf(runNear(nearEnd, role, { ...pair, ...modes }));
  assert.equal((await far)?.code, failure?.code, 'what the far side knows');
  return failure;
}

describe('a restricted agent', () => {
  /** Names that lead out of the folder, to a database or to nothing. */
  const ESCAPES: Record<string, (folder: string, outside: string) => string> = {
    'a relative path': () => '../outside/secret.db',
    'a relative path to nothing': () => '../outside/nothing.db',
    'an absolute path': (_, outside) => join(outside, 'secret.db'),
    'an absolute path to nothing': (_, outside) => join(outside, 'nothing.db'),
    'a path whose beginning only looks like the folder': (folder) => `${folder}-too/secret.db`,
    'a link': () => 'link.db',
    'a link to nothing': () => 'dangling.db',
    'a link to itself': () => 'circle.db',
    'a folder that is a link': () => 'linked/secret.db',
    'a folder that is a link, and nothing in it': () => 'linked/nothing.db',
    'a link within a folder within the folder': () => 'sub/up/outside/secret.db',
    'the folder itself': () => '.',
    'the empty name': () => '',
    'a NUL byte': () => 'app.db\0/../../outside/secret.db',
    'the descriptor of a file': () => '/proc/self/fd/0',
  };

  function prison(t: TestContext): { folder: string; outside: string; near: string } {
    const base = tempDir(t);
    const [folder, outside, near] = ['folder', 'outside', 'near'].map((name) => join(base, name)) as [
      string,
      string,
      string,
    ];
    for (const name of [folder, outside, near, `${folder}-too`, join(folder, 'sub')]) mkdirSync(name);
    smallDatabase(join(folder, 'app.db'), { rows: 30, journalMode: 'delete' });
    smallDatabase(join(outside, 'secret.db'), { rows: 30, journalMode: 'delete' });
    smallDatabase(join(`${folder}-too`, 'secret.db'), { rows: 30, journalMode: 'delete' });
    smallDatabase(join(near, 'near.db'), { rows: 20, journalMode: 'delete' });
    symlinkSync('../outside/secret.db', join(folder, 'link.db'));
    symlinkSync('../outside/dangling.db', join(folder, 'dangling.db'));
    symlinkSync('circle.db', join(folder, 'circle.db'));
    symlinkSync('../outside', join(folder, 'linked'));
    symlinkSync('../..', join(folder, 'sub', 'up'));
    symlinkSync('app.db', join(folder, 'inside.db'));
    return { folder, outside, near };
  }

  for (const [what, escape] of Object.entries(ESCAPES)) {
    for (const role of ['pull', 'push'] as const) {
      test(`a restricted agent does not leave its folder by ${what} (${role})`, async (t) => {
        const { folder, outside, near } = prison(t);
        const before = [folder, outside, near].map(folderState);
        const options = { folder, access: 'both', create: true } as const;
        const failure = await ask(role, escape(folder, outside), near, options);
        assert.ok(failure instanceof SqlsyncError, 'it was done');
        // A link in the replica's own place stays unopened.
        const expected = role === 'push' && /^a link(?! within)/.test(what) ? 'REPLICA_LINK' : 'RESTRICTED';
        assert.equal(failure.code, expected, failure.message);
        if (expected === 'RESTRICTED') {
          assert.match(failure.message, /does not lead to a file inside the folder/);
          assert.ok(!failure.message.includes('outside/'), 'it says where the link leads');
        }
        assert.deepEqual([folder, outside, near].map(folderState), before);
      });
    }
  }

  for (const name of [
    'app.db-wal',
    'app.db-shm',
    'app.db-journal',
    '.app.db.sqlsync',
    '.app.db.sqlsync-part',
    '.app.db.sqlsync-queue-lock',
    'APP.db-WAL',
    '.app.db.SQLSync',
  ]) {
    test(`a restricted agent makes no replica that is part of another database: ${name}`, async (t) => {
      const { folder, near } = prison(t);
      const before = folderState(folder);
      const failure = await ask('push', name, near, { folder, access: 'both', create: true });
      assert.equal((failure as SqlsyncError).code, 'RESTRICTED');
      assert.match((failure as SqlsyncError).message, /beside another database/);
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('a restricted agent reads by a link that stays in the folder, and by another name of the folder', async (t) => {
    const { folder, near } = prison(t);
    const alias = join(near, 'alias');
    symlinkSync(folder, alias);
    for (const named of ['inside.db', 'sub/../app.db', join(alias, 'app.db'), join(folder, 'app.db')]) {
      const failure = await ask('pull', named, near, { folder: alias, access: 'read', create: false });
      assert.equal(failure, undefined, `${named}: ${String(failure)}`);
      assertReplicaOf(join(folder, 'app.db'), join(near, 'fetched.db'));
      for (const file of names(near)) if (file.includes('fetched')) rmSync(join(near, file));
    }
  });

  for (const isEmpty of [true, false]) {
    test(`a restricted agent serves and writes ${isEmpty ? 'databases without pages' : 'another page size'} as any other`, async (t) => {
      const { folder, near } = prison(t);
      const options = { folder, access: 'both', create: true } as const;
      const own = join(near, 'near.db');
      if (isEmpty) writeFileSync(own, '');
      else change(own, 'PRAGMA page_size = 1024; VACUUM');
      writeFileSync(join(folder, 'none.db'), '');
      for (const name of ['app.db', 'none.db']) {
        const modes = { overwrite: true, replace: true };
        assert.equal(await ask('push', name, near, options, modes), undefined, name);
      }
      if (!isEmpty) return assertReplicaOf(own, join(folder, 'app.db'));
      assert.equal(await ask('pull', 'none.db', near, options), undefined);
      assert.equal(statSync(join(near, 'fetched.db')).size, 0);
    });
  }

  test('a restricted agent refuses a database without pages that took the place of the one it looked at', (t) => {
    const { folder, outside } = prison(t);
    const { replica } = new Restriction({ folder, access: 'write', create: false });
    const path = replica.path('app.db');
    const { dev, ino } = statSync(path);
    replica.opened(path, `${dev}:${ino}`, false);
    rmSync(path);
    linkSync(join(outside, 'secret.db'), path);
    assert.throws(() => replica.opened(path, `${dev}:${ino}`, false), { code: 'RESTRICTED' });
  });

  test('a restricted agent looks at every database of a conversation, not only at the first', async (t) => {
    const { folder, outside } = prison(t);
    const [nearEnd, farEnd] = memoryTransportPair();
    const restriction = new Restriction({ folder, access: 'read', create: false });
    const far = failureOf(runFarAgent(farEnd, { idleTimeoutMs: 0, restriction }));
    const connection = new Connection(nearEnd, 'opening', { idleTimeoutMs: 20_000 });
    const open = (path: string): void =>
      connection.send(
        message('open', {
          path,
          key: new Uint8Array(16),
          hash: 1,
          compression: 0,
          replicaHost: '',
          replicaPath: '',
          replicaFileId: '',
          overwrite: false,
          knownStamp: new Uint8Array(0),
          reader: 0,
          busyTimeoutMs: 0,
          idleTimeoutMs: 20_000,
          maxTimeMs: 0,
          maxSnapshotMs: 0,
          maxWalGrowthBytes: 0,
          lookEveryMs: 0,
        }),
      );
    open('app.db');
    await connection.receiveOnly('snapshot');
    open(join(outside, 'secret.db'));
    await assert.rejects(connection.receive(), { code: 'RESTRICTED' });
    assert.equal((await far)?.code, 'RESTRICTED');
    connection.end();
  });

  test('a restricted agent refuses a file that took the place of the one it looked at', (t) => {
    const { folder, outside } = prison(t);
    const { origin } = new Restriction({ folder, access: 'read', create: false });
    const path = origin.path('app.db');
    const { dev, ino } = statSync(path);
    rmSync(path);
    linkSync(join(outside, 'secret.db'), path);
    assert.throws(() => origin.opened(path, `${dev}:${ino}`, true), { code: 'RESTRICTED' });
    rmSync(path);
    symlinkSync(join(outside, 'secret.db'), path);
    const secret = statSync(path);
    assert.throws(() => origin.opened(path, `${secret.dev}:${secret.ino}`, false), { code: 'RESTRICTED' });
  });

  test(
    'a restricted agent refuses a file that it did not open itself',
    { skip: process.platform !== 'linux' },
    (t) => {
      const { folder } = prison(t);
      const { origin } = new Restriction({ folder, access: 'read', create: false });
      const path = origin.path('app.db');
      const { dev, ino } = statSync(path);
      assert.throws(() => origin.opened(path, `${dev}:${ino}`, true), { code: 'RESTRICTED' });
    },
  );

  test('a restricted agent does not follow the name of its folder to another folder', (t) => {
    const { folder, outside } = prison(t);
    const { origin } = new Restriction({ folder, access: 'read', create: false });
    renameSync(folder, `${folder}-moved`);
    symlinkSync(outside, folder);
    const secret = statSync(join(outside, 'secret.db'));
    const path = origin.path('secret.db');
    assert.throws(() => origin.opened(path, `${secret.dev}:${secret.ino}`, false), { code: 'RESTRICTED' });
  });
});

describe('the flags of the agent', () => {
  const usage = (says: RegExp) => ({ code: 'USAGE', status: 2, says }) as const;

  for (const flag of ['--read-only', '--append-only', '--write-only', '--allow-create']) {
    test(`${flag} without --restrict is a mistake that does not pass for a restriction`, () =>
      assertRefused(['agent', flag], usage(/need --restrict/)));
  }

  test('flags of the agent that contradict each other are refused, and so is a folder that is none', async (t) => {
    const folder = tempDir(t);
    const file = join(folder, 'file');
    writeFileSync(file, '');
    const before = sha256File(file);
    await assertRefused(
      ['agent', '--restrict', join(folder, 'gone')],
      usage(/cannot be used: it does not exist/),
    );
    await assertRefused(['agent', '--restrict', file], usage(/it is not a folder/));
    await assertRefused(['agent', '--restrict', folder, '--readonly'], usage(/unknown option --readonly/));
    assert.equal(sha256File(file), before);
  });

  test(
    'the near side learns of wrong flags of a forced command, and need not run again',
    { skip },
    async (t) => {
      const { folder, near } = host(t);
      const wrong: [flags: string, says: RegExp][] = [
        [`'${join(folder, 'gone')}' --read-only`, /\/gone cannot be used: it does not exist/],
        [`'${join(folder, 'app.db')}' --read-only`, /app\.db cannot be used: it is not a folder/],
        [`'${folder}' --read-only --write-only`, /--read-only and --write-only exclude each other/],
        [`'${folder}' --readonly`, /unknown option --readonly/],
        [`'${folder}' --max-time soon`, /--max-time/],
      ];
      for (const [flags, says] of wrong) {
        allowOnly(flags);
        for (const { rsh } of SSH_WAYS) {
          const result = await runCli(sshd, [remote(sshd, 'app.db'), join(near, 'new.db')], { rsh });
          assertRestricted(result, says);
          const hint = String(result.events.get('error')?.['hint']);
          assert.match(hint, /administrator .* authorized_keys/);
          assert.doesNotMatch(hint, /again/);
        }
      }
      assert.deepEqual(names(near), ['near.db']);
    },
  );

  for (const [one, other] of [
    ['--read-only', '--write-only'],
    ['--read-only', '--allow-create'],
    ['--append-only', '--read-only'],
    ['--append-only', '--write-only'],
  ] as const) {
    test(`${one} excludes ${other}`, (t) =>
      assertRefused(['agent', '--restrict', tempDir(t), one, other], usage(/exclude/)));
  }
});

test('an update by --write-only leaves a replica that can be updated again', async (t) => {
  const { folder, near } = host(t);
  const origin = join(near, 'near.db');
  const options = { folder, access: 'write', create: true } as const;
  for (const round of [1, 2]) {
    assert.equal(await ask('push', 'copy.db', near, options), undefined, `round ${round}`);
    change(origin, `UPDATE item SET amount = ${round}`);
  }
});

test('an agent with --max-time ends a client that goes on talking, and its snapshot', async (t) => {
  const path = join(tempDir(t), 'app.db');
  smallDatabase(path, { rows: 20 });
  const agent = spawnProcess({ command: process.execPath, args: [PROGRAM, 'agent', '--max-time', '0.5'] });
  t.after(() => agent.terminate());
  const connection = new Connection(agent, 'opening', { idleTimeoutMs: 0 });
  const request = {
    path,
    key: new Uint8Array(16),
    hash: DEFAULT_HASH,
    busyTimeoutMs: 0,
    idleTimeoutMs: 0,
  } as const;
  connection.send(openToRead(request));
  await connection.receiveOnly('snapshot');
  connection.state = 'driving';
  const talking = setInterval(() => connection.send(message('alive', { busy: true })), 20);
  t.after(() => clearInterval(talking));
  await assert.rejects(connection.receive(), { code: 'TIMEOUT', message: /not done after 0\.5 s/ });
  assert.equal((await agent.exited).status, 16);
});
