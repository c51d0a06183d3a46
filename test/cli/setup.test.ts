import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { PROTOCOL_VERSION } from '../../protocol/version.ts';
import type { SetupCheck } from '../../src/sync/runs/setup-report.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { installRemote, runCli, SSH_WAYS } from '../support/ssh-cli.ts';
import type { CliOptions, CliResult } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { assertRefused, folderState, jsonLines, NEEDS_ROOT, NOBODY, PROGRAM, sqlsync } from './command.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test that needs it is skipped
const scratch = mkdtempSync(join(tmpdir(), 'sqlsync-setup-'));
after(async () => {
  await started?.stop();
  rmSync(scratch, { recursive: true });
});

/** Where setup looks for a sqlsync that is on nobody's PATH, besides the home. */
const SYSTEM_PLACES = ['/usr/local/bin/sqlsync', '/opt/sqlsync/bin/sqlsync.js', '/opt/homebrew/bin/sqlsync'];

interface Report {
  readonly status: number | null;
  readonly ok: unknown;
  readonly link: Record<string, number> | undefined;
  readonly check: (name: SetupCheck['name']) => SetupCheck;
}

/** What setup says of the host, and of `path` there. */
async function setup(path: string | undefined, options: CliOptions = {}): Promise<Report> {
  const host = `${sshd.user}@${sshd.host}`;
  const result = await runCli(sshd, ['setup', host, ...(path === undefined ? [] : [path])], options);
  return reportOf(result);
}

function reportOf({ status, events, stderr }: CliResult): Report {
  const summary = events.get('summary');
  assert.ok(summary !== undefined, JSON.stringify([...events.values()]) + stderr);
  const checks = summary['checks'] as SetupCheck[];
  return {
    status,
    ok: summary['ok'],
    link: summary['link'] as Record<string, number> | undefined,
    check(name) {
      const found = checks.find((check) => check.name === name);
      return found ?? assert.fail(`no check ${name}: ${JSON.stringify(checks)}`);
    },
  };
}

describe('sqlsync setup', { skip }, () => {
  beforeEach(() => installRemote(sshd, join(scratch, 'pids')));

  for (const { name, rsh } of SSH_WAYS) {
    test(`setup finds a host ready by ${name}, says how fast the link is, and changes nothing there`, async (t) => {
      const folder = tempDir(t);
      const path = join(folder, `it's a "$(touch executed)" \u00e9.db`);
      smallDatabase(path, { rows: 60, journalMode: 'delete' });
      const before = folderState(folder);
      const { status, ok, link, check } = await setup(path, { rsh });
      assert.deepEqual([status, ok], [0, true]);
      assert.match(check('login').detail, new RegExp(`^as ${sshd.user} on Linux`));
      assert.match(check('sqlsync').detail, /^sqlsync \d+\.\d+\.\d+ at \S*\/bin\/sqlsync$/);
      assert.equal(check('protocol').detail, `version ${PROTOCOL_VERSION}`);
      assert.match(check('read').detail, /a database of \d+\.\d MB in rollback mode/);
      assert.match(check('write').detail, /may be written, \d+\.\d GB free/);
      for (const figure of ['roundTripMs', 'downloadBytesPerS', 'uploadBytesPerS']) {
        assert.ok((link?.[figure] ?? 0) > 0, `${figure}: ${JSON.stringify(link)}`);
      }
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('setup says where sqlsync is if the login does not find it, and else how to bring it there', async () => {
    rmSync(join(sshd.binDir, 'sqlsync'));
    const missing = await setup(undefined);
    assert.deepEqual([missing.status, missing.ok], [14, false]);
    assert.equal(missing.check('sqlsync').code, 'REMOTE_EXE_NOT_FOUND');
    const bring = /sqlsync setup --install \S+@127\.0\.0\.1 --port \d+$/;
    // The remote host is this machine, which may have a sqlsync of its own in one of the usual places.
    const ofThisMachine = SYSTEM_PLACES.some((place) => existsSync(place));
    assert.match(missing.check('sqlsync').mend ?? '', ofThisMachine ? /add: --remote-exe \S*sqlsync/ : bring);
    const other = join(sshd.home, 'bin');
    mkdirSync(other);
    writeFileSync(join(other, 'sqlsync'), '#!/bin/sh\n', { mode: 0o755 });
    const found = await setup(undefined);
    assert.match(found.check('sqlsync').mend ?? '', /add: --remote-exe \S*\/bin\/sqlsync$/);
    rmSync(other, { recursive: true });
  });

  test('setup reports a sqlsync whose Node.js is too old, with the remedy', async () => {
    sshd.addExecutable('sqlsync', "#!/bin/sh\necho 'sqlsync needs Node.js 22.18' >&2\nexit 9\n");
    const { status, check } = await setup(undefined);
    assert.equal(status, 9);
    assert.equal(check('sqlsync').code, 'NODE_UNSUPPORTED');
    assert.match(check('sqlsync').mend ?? '', /node_modules\/\.bin\/node/);
  });

  test('setup reports what is in the way of reading and writing, with the command that mends it', async (t) => {
    const folder = tempDir(t);
    const gone = await setup(join(folder, 'no folder', 'new.db'));
    assert.equal(gone.status, 4);
    assert.equal(gone.check('read').state, 'unknown');
    assert.match(gone.check('write').mend ?? '', /^ssh -p \d+ \S+ 'mkdir -p '.*no folder/);
    writeFileSync(join(folder, 'text'), 'x'.repeat(5000));
    const text = await setup(join(folder, 'text'));
    assert.equal(text.status, 3);
    assert.equal(text.check('read').code, 'ORIGIN_NOT_A_DATABASE');
    const fresh = await setup(join(folder, 'new.db'));
    assert.deepEqual([fresh.status, fresh.check('write').state], [0, 'ok']);
    assert.match(fresh.check('read').detail, /does not exist/);
  });

  test('setup knows a forced command, and has its agent look at the path', async (t) => {
    const folder = tempDir(t);
    smallDatabase(join(folder, 'app.db'), { rows: 30, journalMode: 'delete' });
    const plain = readFileSync(sshd.authorizedKeysFile, 'utf8');
    t.after(() => writeFileSync(sshd.authorizedKeysFile, plain));
    writeFileSync(
      sshd.authorizedKeysFile,
      `restrict,command="sqlsync agent --restrict '${folder}' --read-only" ${plain}`,
    );
    const { status, check, link } = await setup('app.db');
    assert.equal(status, 0);
    assert.match(check('login').detail, /forced command/);
    assert.match(check('read').detail, /^app\.db, a database of/);
    assert.equal(check('write').state, 'unknown');
    assert.ok(link === undefined || link === null);
  });

  test('setup prints its findings for people too', async () => {
    const { binDir, clientKey, host, knownHostsFile, port, user } = sshd;
    const args = ['--port', String(port), '-i', clientKey, '--known-hosts', knownHostsFile];
    const run = await sqlsync(['setup', `${user}@${host}:`, ...args]);
    assert.equal(run.status, 0, run.stderr);
    assert.match(run.stdout, /is ready\n {2}ok {7}login/);
    assert.match(run.stdout, /round trip [\d.]+ ms, .*\/s from there, .*\/s to there/);
    assert.ok(run.stdout.includes(binDir));
  });
});

test(
  'setup as a user without rights changes nobody else’s folders, and does not guess what is in them',
  { skip: NEEDS_ROOT },
  async (t) => {
    const folder = tempDir(t);
    chmodSync(folder, 0o755);
    const hidden = join(folder, 'hidden');
    mkdirSync(hidden, { mode: 0o700 });
    smallDatabase(join(hidden, 'app.db'), { rows: 10 });
    smallDatabase(join(folder, 'app.db'), { rows: 10, journalMode: 'delete' });
    // The last steps of sshd: another user, a shell, the words of the command.
    const shell = join(folder, 'rsh');
    const become = `setpriv --reuid=${NOBODY.uid} --regid=${NOBODY.gid} --clear-groups`;
    writeFileSync(shell, `#!/bin/sh\nshift\ncd /\nHOME=/nonexistent exec ${become} sh -c "$*"\n`, {
      mode: 0o755,
    });
    const exe = join(folder, 'sqlsync');
    writeFileSync(exe, `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' "$@"\n`, { mode: 0o755 });
    const checksOf = async (path: string): Promise<Map<string, Record<string, string>>> => {
      const { stdout } = await sqlsync([
        'setup',
        `host:${path}`,
        '--rsh',
        shell,
        '--remote-exe',
        exe,
        '--json',
      ]);
      const checks = jsonLines(stdout).at(-1)?.['checks'] as Record<string, string>[];
      return new Map(checks.map((check) => [check['name'] ?? '', check]));
    };
    const open = await checksOf(join(folder, 'app.db'));
    assert.equal(open.get('read')?.['state'], 'ok', JSON.stringify([...open]));
    assert.equal(open.get('write')?.['code'], 'REPLICA_UNWRITABLE');
    assert.match(open.get('write')?.['mend'] ?? '', /sudo install -d -o nobody .*sqlsync/);
    const closed = await checksOf(join(hidden, 'app.db'));
    assert.equal(closed.get('read')?.['code'], 'ORIGIN_PERMISSION', JSON.stringify([...closed]));
    assert.doesNotMatch(closed.get('read')?.['detail'] ?? '', /does not exist/);
  },
);

test('setup of what is no host is a usage error', async () => {
  await assertRefused(['setup', './folder'], { code: 'USAGE', status: 2, says: /is not a host/ });
  await assertRefused(['setup', 'host:a.db', 'b.db'], { code: 'USAGE', status: 2, says: /given twice/ });
});
