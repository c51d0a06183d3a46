import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import type { ErrorCode, SqlsyncError } from '../../src/errors.ts';
import { install, uninstall } from '../../src/sync/install/install.ts';
import type { Change, ChangeOptions } from '../../src/sync/install/install.ts';
import { VERSION } from '../../src/sync/program.ts';
import { writeServerFolder } from '../../src/release/server-folder.ts';
import { bindingRecipe, builtBindingPath } from '../../src/sqlite/binding-path.ts';
import { smallDatabase } from '../pages/databases.ts';
import {
  BARE_HOST_MISSING,
  OTHER_PLATFORM,
  PLATFORM,
  standInBundle,
  startBareHost,
} from '../support/bare-host.ts';
import type { BareHost } from '../support/bare-host.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { remote, runCli, SSH_WAYS, startCli } from '../support/ssh-cli.ts';
import type { CliOptions, CliResult } from '../support/ssh-cli.ts';
import { assertRefused, folderState, sqlsync } from './command.ts';

const started = await startBareHost();
const skip = started === undefined ? BARE_HOST_MISSING : false;
const host = started as BareHost; // where it is missing, every test that needs it is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-install-'));
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

const first = standInBundle(folder, '1.0.0');
const second = standInBundle(folder, '2.0.0');

const root = join(started?.home ?? '', '.local', 'share', 'sqlsync');
const link = join(started?.home ?? '', '.local', 'bin', 'sqlsync');

/** Programs may take long to start on a busy machine. */
const PATIENT = ['--timeout', '600'];

function setup(args: readonly string[], given: CliOptions = {}): Promise<CliResult> {
  return runCli(host, ['setup', `${host.user}@${host.host}`, ...args, ...PATIENT], given);
}

/** How this process reaches the host. */
function options(): ChangeOptions {
  const { user, clientKey, knownHostsFile, port } = host;
  return {
    location: { kind: 'ssh', host: host.host, port, user, path: '' },
    configFile: 'none',
    identityFiles: [clientKey],
    knownHostsFiles: [knownHostsFile],
    idleTimeoutMs: 600_000,
    confirm: () => Promise.resolve(true),
  };
}

/** The words by which a command reaches the host. */
function login(): string[] {
  const { clientKey, knownHostsFile, port } = host;
  const files = ['-i', clientKey, '--known-hosts', knownHostsFile, '-F', 'none'];
  return ['-p', String(port), ...files, ...PATIENT];
}

const bring = (bundle: string): Promise<Change> => install({ ...options(), bundle });

/** What a run of the command says that it changed, after it ended well. */
async function changeOf(args: readonly string[], given: CliOptions = {}): Promise<Record<string, unknown>> {
  const { status, events, stderr } = await setup(args, given);
  assert.equal(status, 0, JSON.stringify([...events.values()]) + stderr);
  return events.get('summary')?.['installation'] as Record<string, unknown>;
}

async function assertFails(work: Promise<unknown>, code: ErrorCode, says: RegExp): Promise<void> {
  await assert.rejects(work, (error: SqlsyncError) => {
    assert.deepEqual([error.code, typeof error.hint], [code, 'string'], String(error));
    assert.match(error.message, says);
    return true;
  });
}

/** The version that the link leads to says this, and nothing half-made is beside it. */
function assertInstalled(version: string, places: readonly string[] = [version]): void {
  const { stdout } = spawnSync(link, ['--version'], { encoding: 'utf8' });
  assert.equal(stdout.trim(), version);
  assert.deepEqual(readdirSync(root).sort(), [...places].sort());
  assert.deepEqual(readdirSync(join(host.home, '.local', 'bin')), ['sqlsync']);
}

/** A folder's last state may come a moment after the program here has ended. */
async function until(happened: () => boolean): Promise<void> {
  while (!happened()) await delay(20);
}

/** An agent that the installed program runs until its stdin ends. */
async function startAgent(t: TestContext): Promise<{ end: () => Promise<void> }> {
  const agent = spawn(link, ['agent'], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.after(() => agent.kill('SIGKILL'));
  await once(agent.stdout, 'data');
  return {
    end: async () => {
      const ended = once(agent, 'exit');
      agent.stdin.end();
      await ended;
    },
  };
}

describe('sqlsync setup --install', { skip }, () => {
  afterEach(() => {
    host.restoreTools();
    for (const name of readdirSync(host.home)) rmSync(join(host.home, name), { recursive: true });
  });

  for (const { name, rsh } of SSH_WAYS) {
    test(`an account with nothing but a shell is the other side after one command, by ${name}`, async (t) => {
      const near = tempDir(t);
      smallDatabase(join(near, 'app.db'), { rows: 60 });
      const arrive = ['--install', '--bundle', first];
      const dry = await changeOf([...arrive, '--dry-run'], { rsh });
      assert.equal(dry['changed'], false);
      assert.deepEqual(folderState(host.home), {});
      const { changed, version, place } = await changeOf([...arrive, '--yes'], { rsh });
      assert.deepEqual([changed, version, place], [true, '1.0.0', join(root, '1.0.0')]);
      assertInstalled('1.0.0');
      assert.equal(readlinkSync(link), join(root, '1.0.0', 'bin', 'sqlsync'));
      // No PATH there leads to it.
      const copy = join(near, 'copy.db');
      const push = await runCli(host, [join(near, 'app.db'), remote(host, copy), '-v', ...PATIENT], { rsh });
      assert.equal(push.status, 0, JSON.stringify(push.events.get('error')));
      assertReplicaOf(join(near, 'app.db'), copy);
      const again = await changeOf([...arrive, '--yes'], { rsh });
      assert.deepEqual([again['changed'], again['version']], [false, '1.0.0']);
      const removal = await changeOf(['--uninstall', '--yes'], { rsh });
      assert.deepEqual(removal['removed'], ['sqlsync', '1.0.0']);
      assert.deepEqual([existsSync(root), readdirSync(join(host.home, '.local', 'bin'))], [false, []]);
    });
  }

  test('with -v a sync says that it uses the installed program, since no PATH leads to it', async (t) => {
    await bring(first);
    const near = tempDir(t);
    smallDatabase(join(near, 'app.db'), { rows: 20 });
    const args = [remote(host, join(near, 'app.db')), join(near, 'copy.db'), ...login()];
    const loud = await sqlsync([...args, '-v']);
    assert.equal(loud.status, 0, loud.stderr);
    assert.match(loud.stderr, /no sqlsync is on the PATH of that login; ~\/\.local\/bin\/sqlsync is used/);
    const silent = await sqlsync(args);
    assert.deepEqual([silent.status, silent.stderr], [0, '']);
    rmSync(link);
    const missing = await sqlsync(args);
    assert.equal(missing.status, 14);
    assert.match(missing.stderr, /"sqlsync agent" ended with status 127/);
  });

  test('an upgrade removes the old version, but not while an agent of it runs', async (t) => {
    await bring(first);
    const agent = await startAgent(t);
    const upgrade = await bring(second);
    assert.deepEqual([upgrade.removed, upgrade.kept], [[], ['1.0.0']]);
    assertInstalled('2.0.0', ['1.0.0', '2.0.0']);
    const removal = await uninstall(options());
    assert.deepEqual([removal.removed, removal.kept], [['sqlsync', '2.0.0'], ['1.0.0']]);
    await bring(second);
    await agent.end();
    const third = await bring(second);
    assert.deepEqual([third.isDone, third.removed, third.kept], [true, ['1.0.0'], []]);
    assertInstalled('2.0.0');
    const back = await bring(first);
    assert.deepEqual(back.removed, ['2.0.0']);
    assertInstalled('1.0.0');
  });

  test('another bundle of the same version takes its place, and so does one that no longer runs', async (t) => {
    await bring(first);
    const other = tempDir(t);
    const { place } = await bring(standInBundle(other, '1.0.0', { fillerBytes: 5 }));
    assert.match(place, /\/1\.0\.0-[0-9a-f]{8}$/);
    assertInstalled('1.0.0', [place.slice(root.length + 1)]);
    await bring(first);
    rmSync(join(root, '1.0.0', 'bin'), { recursive: true });
    assert.equal((await bring(first)).isDone, true);
    assert.equal(spawnSync(link, ['--version'], { encoding: 'utf8' }).stdout.trim(), '1.0.0');
    assert.equal(readdirSync(root).length, 1);
  });

  test('a version that does not arrive whole, or does not run, replaces nothing', async (t) => {
    const large = standInBundle(tempDir(t), '3.0.0', { fillerBytes: 4e6 });
    const liar = standInBundle(tempDir(t), '3.0.0', { says: 'error while loading libstdc++.so.6' });
    await bring(first);
    const tar = spawnSync('sh', ['-c', 'command -v tar'], { encoding: 'utf8' }).stdout.trim();
    for (const [tool, script, bundle, code, says] of [
      // A quota: the system refuses the rest.
      ['sh', 'ulimit -f 2000; exec /bin/sh "$@"', large, 'SYSTEM_ERROR', /could not be unpacked.*status/],
      // A full disk on which nobody reported it.
      ['tar', `${tar} "$@"; : > "$7/lib/filler"`, large, 'SYSTEM_ERROR', /bytes were written; expected \d+/],
      ['tar', 'echo broken >&2; exit 3', large, 'SYSTEM_ERROR', /status 3: broken/],
      ['df', 'echo; echo disk 1 1 100 1 /', large, 'SYSTEM_ERROR', /room for 1 MB; expected 5 MB/],
      ['uname', 'echo Darwin', large, 'NODE_UNSUPPORTED', /Darwin/],
      ['true', '', liar, 'NODE_UNSUPPORTED', /it said: error while loading libstdc/],
    ] as const) {
      host.replaceTool(tool, script);
      await assertFails(bring(bundle), code, says);
      assertInstalled('1.0.0');
      host.restoreTools();
    }
  });

  test('a home that is mounted noexec is refused before anything is sent', async (t) => {
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'noexec', 'tmpfs', host.home]);
    if (mounted.status !== 0) return t.skip('NOT TESTED: nothing can be mounted here');
    try {
      await assertFails(bring(first), 'SYSTEM_ERROR', /mounted noexec/);
      assert.equal(existsSync(link), false);
      assert.deepEqual(readdirSync(root), []);
    } finally {
      spawnSync('umount', ['--lazy', host.home]);
    }
  });

  for (const end of ['SIGKILL', 'SIGINT', 'a lost connection'] as const)
    test(`an installation that ${end} ends leaves the old version and nothing else`, async (t) => {
      await bring(first);
      const reached = join(tempDir(t), 'reached');
      const large = standInBundle(tempDir(t), '2.0.0', { fillerBytes: 5 });
      const args = [
        'setup',
        `${host.user}@${host.host}`,
        '--install',
        '--yes',
        '--bundle',
        large,
        ...PATIENT,
      ];
      // It waits for more than comes.
      host.replaceTool('head', `: > '${reached}'; exec cat`);
      const run = startCli(host, args);
      await until(() => existsSync(reached));
      if (end === 'a lost connection') host.killSessions();
      else run.kill(end);
      const { status } = await run.ended;
      assert.equal(status, { SIGKILL: null, SIGINT: 130, 'a lost connection': 15 }[end]);
      await until(() => readdirSync(root).length === 1);
      assertInstalled('1.0.0');
    });

  test('what an installation left that was killed over there is removed by the next', async () => {
    await bring(first);
    const dead = spawnSync('true').pid;
    mkdirSync(join(root, `.new-${dead}`, 'lib'), { recursive: true });
    symlinkSync('nowhere', join(host.home, '.local', 'bin', `.sqlsync-${dead}`));
    await bring(second);
    assertInstalled('2.0.0');
  });

  test('a sqlsync of another origin is not replaced, and one on the PATH is named', async () => {
    host.replaceTool('sqlsync', 'echo 0.0.1');
    await bring(first);
    const args = ['setup', `${host.user}@${host.host}`, '--install', '--yes', '--bundle', first, ...login()];
    const { stdout } = await sqlsync(args);
    assert.match(
      stdout,
      /PATH there has another one, \S*\/tools\/sqlsync; for this one add: --remote-exe \S+/,
    );
    rmSync(link);
    writeFileSync(link, 'mine');
    await assertFails(bring(second), 'SYSTEM_ERROR', /not one that setup installed/);
    assert.equal(readFileSync(link, 'utf8'), 'mine');
  });

  test('the other host is not changed without a yes, nor by a bundle that it cannot run', async (t) => {
    const arm = standInBundle(tempDir(t), '1.0.0', { platform: OTHER_PLATFORM });
    const { status, events } = await setup(['--install', '--bundle', first]);
    assert.deepEqual([status, events.get('error')?.['code']], [2, 'USAGE']);
    assert.match(String(events.get('error')?.['message']), /there is no terminal/);
    await install({ ...options(), bundle: first, confirm: () => Promise.resolve(false) });
    await assertFails(bring(arm), 'USAGE', /is for linux-/);
    assert.deepEqual(folderState(host.home), {});
  });

  test(
    'the real bundle is installed, and syncs',
    { skip: process.env['SQLSYNC_SLOW_TESTS'] !== '1' && 'SQLSYNC_SLOW_TESTS=1 npm test runs it' },
    async (t) => {
      const [work, near] = [tempDir(t), tempDir(t)];
      const name = `sqlsync-${VERSION}-${PLATFORM}`;
      const { key } = bindingRecipe();
      const parts = { node: process.execPath, binding: builtBindingPath(key), key };
      writeServerFolder(join(work, name), parts);
      const archive = join(work, 'real.tar.gz');
      assert.equal(spawnSync('tar', ['-C', work, '-czf', archive, name]).status, 0);
      assert.equal((await bring(archive)).isDone, true);
      smallDatabase(join(near, 'app.db'), { rows: 60 });
      for (const [from, to] of [
        [join(near, 'app.db'), remote(host, join(near, 'there.db'))],
        [remote(host, join(near, 'there.db')), join(near, 'back.db')],
      ] as const) {
        const { status, events } = await runCli(host, [from, to, ...PATIENT]);
        assert.equal(status, 0, JSON.stringify(events.get('error')));
      }
      assertReplicaOf(join(near, 'app.db'), join(near, 'back.db'));
    },
  );
});

test('options of an installation that fit nothing are usage errors', async () => {
  for (const [args, says] of [
    [['setup', 'host', '--install', '--uninstall'], /exclude each other/],
    [['setup', 'host', '--bundle', 'x.tar.gz'], /--bundle needs --install/],
    [['setup', 'host', '--yes'], /need --install or --uninstall/],
  ] as const)
    await assertRefused([...args], { code: 'USAGE', status: 2, says });
});
