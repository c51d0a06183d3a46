import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, describe, test } from 'node:test';
import type { ErrorCode, SqlsyncError } from '../../src/errors.ts';
import { authorize } from '../../src/sync/install/authorize.ts';
import type { AuthorizeOptions, KeyPlan } from '../../src/sync/install/authorize.ts';
import { keyLine, readPublicKey } from '../../src/sync/install/public-key.ts';
import type { RestrictionOptions } from '../../src/sync/request/restriction.ts';
import { smallDatabase } from '../pages/databases.ts';
import { BARE_HOST_MISSING, startBareHost } from '../support/bare-host.ts';
import type { BareHost } from '../support/bare-host.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { CLI } from '../support/relay-kill.ts';
import { remote, runCli } from '../support/ssh-cli.ts';
import { makeSshKey } from '../support/sshd.ts';
import { assertRefused, sqlsync } from './command.ts';

const started = await startBareHost();
const skip = started === undefined ? BARE_HOST_MISSING : false;
const host = started as BareHost; // where it is missing, every test that needs it is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-key-'));
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

/** Programs may take long to start on a busy machine. */
const PATIENT = ['--timeout', '600'];

const READ: RestrictionOptions = { folder: '/', access: 'read', create: false };

const key = skip === false ? makeSshKey(join(folder, 'pull')) : '';

describe('the line for a restricted key', { skip }, () => {
  test('setup prints the line for a key without asking any host', async () => {
    const line = readFileSync(`${key}.pub`, 'utf8').trim();
    const run = await sqlsync(['setup', '--restrict', '/srv/db', '--read-only', '--key', `${key}.pub`]);
    assert.deepEqual([run.status, run.stderr], [0, '']);
    assert.equal(run.stdout, `restrict,command="sqlsync agent --restrict /srv/db --read-only" ${line}\n`);
  });

  test('what sshd and a shell make of a line is the folder that was named', () => {
    const { type, blob } = readPublicKey(`${key}.pub`);
    for (const name of [
      '/srv/db',
      "/it's",
      '/a "b" c',
      '/back\\slash\\"x',
      '/$(touch x) `y` ;&|',
      '-dash',
      'ä',
    ]) {
      const line = keyLine({ type, blob, comment: '' }, 'sqlsync', {
        folder: name,
        access: 'write',
        create: true,
      });
      // As sshd does: a quote ends an option unless a backslash stands before it.
      const quoted = /^restrict,command="((?:\\"|[^"])*)" /.exec(line)?.[1] ?? '';
      const command = quoted.replaceAll('\\"', '"');
      const { stdout } = spawnSync('sh', ['-c', command.replace('sqlsync', "printf '%s\\n'")], {
        encoding: 'utf8',
      });
      assert.deepEqual(stdout.split('\n').slice(0, -1), [
        'agent',
        '--restrict',
        name === '-dash' ? './-dash' : name,
        '--write-only',
        '--allow-create',
      ]);
    }
    const add = keyLine({ type, blob, comment: '' }, 'sqlsync', { ...READ, access: 'add' });
    assert.match(add, /"sqlsync agent --restrict \/ --append-only" /);
    assert.throws(() => keyLine({ type, blob, comment: '' }, 'sqlsync', { ...READ, folder: 'a\nb' }), {
      code: 'USAGE',
    });
  });

  test('a file that is not one public key is refused', async (t) => {
    const work = tempDir(t);
    const line = readFileSync(`${key}.pub`, 'utf8');
    const files: Record<string, string> = {
      private: readFileSync(key, 'utf8'),
      two: line + line,
      options: `no-pty ${line}`,
      cut: line.replace(/(AAAA\S{21})\S*/, '$1'),
      empty: '',
      type: line.replace('ssh-ed25519', 'ssh-rsa'),
    };
    for (const [name, text] of Object.entries(files)) {
      writeFileSync(join(work, name), text);
      assert.throws(() => readPublicKey(join(work, name)), { code: 'USAGE' }, name);
    }
    writeFileSync(join(work, 'fine'), `# mine\r\n${line.trim()} more words\r\n`);
    assert.equal(readPublicKey(join(work, 'fine')).comment, 'sqlsync-test more words');
    assert.throws(() => readPublicKey(join(work, 'none')), { code: 'USAGE' });
  });

  test('options for a key that fit nothing are usage errors', async () => {
    const pub = `${key}.pub`;
    for (const [args, says] of [
      [['--restrict', '/srv'], /needs --key/],
      [['--restrict', '/srv', '--key', pub, '--install'], /--install needs the host/],
      [['--restrict', '/srv', '--key', pub, '--read-only', '--write-only'], /exclude each other/],
      [['--key', pub, 'host'], /--key needs --restrict/],
      [['host', '--read-only'], /need --restrict/],
      [[], /the host is missing/],
    ] as const)
      await assertRefused(['setup', ...args], { code: 'USAGE', status: 2, says });
  });
});

describe('setup --restrict --install', { skip }, () => {
  const ssh = join(started?.home ?? '', '.ssh');
  const file = join(ssh, 'authorized_keys');

  afterEach(() => {
    host.restoreTools();
    for (const name of readdirSync(host.home)) rmSync(join(host.home, name), { recursive: true });
  });

  /** sqlsync on the PATH of the login, as the forced command finds it. */
  function installOnPath(): void {
    host.replaceTool('sqlsync', `exec '${process.execPath}' '${CLI}' "$@"`);
  }

  function write(
    restriction: RestrictionOptions,
    confirm: AuthorizeOptions['confirm'] = () => Promise.resolve(true),
  ): Promise<{ plan: KeyPlan; isDone: boolean }> {
    const { user, clientKey, knownHostsFile, port } = host;
    return authorize({
      location: { kind: 'ssh', host: host.host, port, user, path: '' },
      configFile: 'none',
      identityFiles: [clientKey],
      knownHostsFiles: [knownHostsFile],
      idleTimeoutMs: 600_000,
      key: readPublicKey(`${key}.pub`),
      restriction,
      confirm,
    });
  }

  async function assertFails(work: Promise<unknown>, code: ErrorCode, says: RegExp): Promise<void> {
    await assert.rejects(work, (error: SqlsyncError) => {
      assert.deepEqual([error.code, typeof error.hint], [code, 'string'], String(error));
      assert.match(error.message, says);
      return true;
    });
  }

  test('a key that setup restricted fetches from the folder, and can do nothing else', async (t) => {
    installOnPath();
    const [there, near] = [tempDir(t), tempDir(t)];
    smallDatabase(join(there, 'app.db'), { rows: 40 });
    const before = readFileSync(host.authorizedKeysFile, 'utf8');
    // The file that this sshd reads; people link theirs to other places, too.
    mkdirSync(ssh);
    symlinkSync(host.authorizedKeysFile, file);
    const args = ['setup', '--restrict', there, '--read-only', '--key', `${key}.pub`, '--install'];
    const { status, events } = await runCli(host, [
      ...args,
      `${host.user}@${host.host}`,
      '--yes',
      ...PATIENT,
    ]);
    assert.equal(status, 0, JSON.stringify([...events.values()]));
    const { line, action, changed } = events.get('summary') as Record<string, unknown>;
    assert.deepEqual([action, changed], ['add', true]);
    assert.equal(readFileSync(file, 'utf8'), `${before}${String(line)}\n`);
    assert.ok(lstatSync(file).isSymbolicLink());
    t.after(() => writeFileSync(host.authorizedKeysFile, before));
    const pull = await runCli(host, [remote(host, 'app.db'), join(near, 'copy.db'), ...PATIENT], {
      identity: key,
    });
    assert.equal(pull.status, 0, JSON.stringify(pull.events.get('error')));
    assertReplicaOf(join(there, 'app.db'), join(near, 'copy.db'));
    const push = await runCli(host, [join(near, 'copy.db'), remote(host, 'app.db'), ...PATIENT], {
      identity: key,
    });
    assert.equal(push.events.get('error')?.['code'], 'RESTRICTED');
  });

  test('the file keeps its mode and its other lines, whatever they are, and gets one line a key', async () => {
    installOnPath();
    const first = await write(READ);
    assert.deepEqual(
      [first.plan.action, statSync(file).mode & 0o777, statSync(ssh).mode & 0o777],
      ['add', 0o600, 0o700],
    );
    assert.equal(readFileSync(file, 'utf8'), `${first.plan.line}\n`);
    const others = [Buffer.from('# caf\xe9\nssh-ed25519 AAAAx other'), Buffer.from('\n\n# end')] as const;
    writeFileSync(file, others[0]);
    chmodSync(file, 0o640);
    const { line } = (await write(READ)).plan;
    assert.deepEqual(readFileSync(file), Buffer.concat([others[0], Buffer.from(`\n${line}\n`)]));
    writeFileSync(file, Buffer.concat([others[0], Buffer.from(`\n${line}`), others[1]]));
    assert.deepEqual((await write(READ)).isDone, false);
    const changed = await write({ ...READ, folder: host.home });
    assert.deepEqual([changed.plan.action, changed.isDone], ['replace', true]);
    const expected = [others[0], Buffer.from(`\n${changed.plan.line}`), others[1]];
    assert.deepEqual(readFileSync(file), Buffer.concat(expected));
    assert.equal(statSync(file).mode & 0o777, 0o640);
    assert.deepEqual(readdirSync(ssh), ['authorized_keys']);
  });

  test('a line that would not count, or could not work, is not written', async () => {
    await assertFails(write(READ), 'REMOTE_EXE_NOT_FOUND', /none is installed/);
    installOnPath();
    await assertFails(write({ ...READ, folder: '/no/such' }), 'RESTRICTED', /no folder \/no\/such/);
    mkdirSync(ssh);
    const full = `# one\n${readFileSync(`${key}.pub`, 'utf8')}`;
    writeFileSync(file, full);
    await assertFails(
      write(READ),
      'RESTRICTED',
      /Line 2 of \S*authorized_keys there gives that key other rights/,
    );
    writeFileSync(file, `# ${readFileSync(`${key}.pub`, 'utf8')}`);
    assert.equal((await write(READ)).plan.action, 'add');
  });

  test('a file that cannot be written whole, or that changes meanwhile, stays as it is', async () => {
    installOnPath();
    mkdirSync(ssh);
    writeFileSync(file, `# ${'x'.repeat(1500)}`);
    assert.equal((await write(READ, () => Promise.resolve(false))).isDone, false);
    // Here a quota leaves room for the text that is there, and not for a line more.
    host.replaceTool('sh', 'ulimit -f 3; trap "" XFSZ; exec /bin/sh "$@"');
    const before = readFileSync(file, 'utf8');
    await assertFails(write(READ), 'SYSTEM_ERROR', /could not be written/);
    assert.equal(readFileSync(file, 'utf8'), before);
    host.restoreTools();
    installOnPath();
    const raced = write(READ, () => {
      writeFileSync(file, 'another hand');
      return Promise.resolve(true);
    });
    await assertFails(raced, 'SYSTEM_ERROR', /changes at this moment/);
    assert.equal(readFileSync(file, 'utf8'), 'another hand');
    assert.deepEqual(readdirSync(ssh), ['authorized_keys']);
  });
});
