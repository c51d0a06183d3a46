import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { S3Backend } from '../../src/backup/backends/s3/s3-backend.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { loadCommands } from '../../src/cli/command-files.ts';
import { STORES } from '../../src/cli/store/store-command.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { S3Server } from '../support/s3-server.ts';
import { Command } from './command.ts';

const PASSWORD = 'unmistakable password 7f3a';
const NEXT_PASSWORD = 'unmistakable password e05b';
const KEYS = {
  accessKeyId: 'AKIDSECRETS',
  secretAccessKey: 'unmistakable+secret/access/key/52d9',
  sessionToken: 'unmistakable+session/token/c1a8==',
};

/** How often to look at the words of processes. */
const LOOK_MS = 15;

test('no secret is ever in an output, an error, a process list, a cache, a temporary file or the store, and no content of a database in the clear', async (t) => {
  const scene = await makeScene(t);
  const { folder, store, server } = scene;
  const { sessionToken, secretAccessKey } = KEYS;
  writeFileSync(
    join(folder, 'look.sh'),
    'cp -r "$TMPDIR" seen; cat /proc/self/cmdline /proc/$PPID/cmdline\n',
  );
  await scene.run(0, 'init', store, '--encrypt', '--grace', '0', '-v');
  await scene.run(0, 'backup', 'a.db', store, '--verify', '-v');
  change(join(folder, 'a.db'), 'UPDATE item SET amount = -1 WHERE id % 7 = 0');
  await scene.run(0, 'backup', 'a.db', store, '--json', '--password-command', 'cat password');
  await scene.run(0, 'follow', 'a.db', store, '-v');
  await scene.run(0, 'snapshots', store, '--json', '-v');
  await scene.run(0, 'verify', 'a.db', store, '-v');
  await scene.run(0, 'restore', store, 'back.db', '-v');
  await scene.run(0, 'diff', `${store}#latest`, '#latest', '-v');
  await scene.run(0, 'dump', store, 'item');
  await scene.run(0, 'open', store, '--exec', 'sh look.sh', '-v');
  await scene.run(0, 'stats', store, '--json');
  await scene.run(0, 'report', store, '-o', 'report.html', '-v');
  await scene.run(0, 'init', 'other', '--encrypt', '-v');
  await scene.run(0, 'copy', store, 'other', '-v');
  await scene.run(0, 'forget', store, '--keep-last', '1', '-v');
  await scene.run(0, 'prune', store, '--max-unused', '0%', '--json', '-v');
  await scene.run(0, 'check', store, '--read-data', '-v');
  server.objects.delete('store/config');
  await scene.run(0, 'repair', store, '-v');
  await scene.run(0, 'key', 'add', store, '--new-password-file', 'next', '-v');
  await scene.run(0, 'key', 'list', store, '--json');

  const { unlocked } = await openBackend(new S3Backend({ address: store }), { password: PASSWORD });
  const master = Buffer.from(unlocked?.master ?? []);
  assert.equal(master.length, 32);

  await scene.run(27, 'check', store, '-v', '--password-file', 'wrong');
  await scene.run(27, 'snapshots', store, '--json', '--password-command', 'cat password; exit 3');
  for (const code of ['AccessDenied', 'SignatureDoesNotMatch', 'InvalidToken', 'ExpiredToken']) {
    server.twist = () => ({ status: 403, code });
    await scene.run(18, 'snapshots', store, '-v');
  }
  server.twist = () => ({ status: 400, code: 'InvalidRequest' });
  await scene.run(18, 'prune', store, '--json');

  const tried = new Set(scene.commands);
  const all = (await loadCommands()).filter(({ group }) => group === STORES).map(({ name }) => name);
  assert.deepEqual(
    all.filter((name) => !tried.has(name)),
    [],
    'a command that is not tried here',
  );
  const secrets = {
    'the password': PASSWORD,
    'the new password': NEXT_PASSWORD,
    'the secret key': secretAccessKey,
    'the session token': sessionToken,
    'the master key': master.toString('latin1'),
    'the master key in hexadecimal': master.toString('hex'),
    'the master key in base64': master.toString('base64'),
    'the master key in base64url': master.toString('base64url'),
  };
  const written = filesBelow(folder).filter(([name]) => !/^(password|next|wrong)$/.test(name));
  const stored = [...server.objects].map(([name, { bytes }]) => [name, bytes.toString('latin1')] as const);
  for (const [what, secret] of Object.entries(secrets))
    for (const [where, text] of [...scene.outputs, ...scene.processes, ...written, ...stored])
      assert.ok(!text.includes(secret), `${what} is in ${where}`);
  // Databases are what commands were asked for, and what `open` showed was temporary.
  const sealed = [...written, ...stored].filter(([name]) => !/(\.db(-\w+)?|^seen\/.*)$/.test(name));
  for (const [where, text] of sealed)
    assert.ok(!text.includes(scene.content), `content of the database is in ${where}`);
  assert.ok(
    written.some(([name, text]) => name.startsWith('seen/') && text.includes(scene.content)),
    'the search would find the content',
  );
  assert.ok(scene.processes.length > scene.commands.length, 'the words of processes were seen');
  for (const cache of ['.cache/sqlsync/files', '.cache/sqlsync/hashes', '.local/state/sqlsync/stores'])
    assert.ok(
      written.some(([name]) => name.startsWith(`home/${cache}/`)),
      `nothing was kept in ${cache}`,
    );
  assert.deepEqual(readdirSync(join(folder, 'tmp')), []);
});

/** What was written, by the name of where. */
type Texts = (readonly [name: string, text: string])[];

interface Scene {
  readonly folder: string;
  readonly store: string;
  readonly server: S3Server;
  /** Bytes of the database that no compression changes. */
  readonly content: string;
  /** The names of the commands that ran. */
  readonly commands: string[];
  readonly outputs: Texts;
  /** The words of all their processes. */
  readonly processes: Texts;
  /** Runs a command, and checks its exit status. */
  run(status: number, ...args: string[]): Promise<void>;
}

async function makeScene(t: TestContext): Promise<Scene> {
  const server = await S3Server.start(t);
  server.keys = [KEYS];
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'), { rows: 400 });
  const content = randomBytes(3000);
  change(
    join(folder, 'a.db'),
    `CREATE TABLE note (x); INSERT INTO note VALUES (x'${content.toString('hex')}')`,
  );
  for (const name of ['tmp', 'home']) mkdirSync(join(folder, name), { mode: 0o700 });
  for (const [name, text] of [
    ['password', PASSWORD],
    ['next', NEXT_PASSWORD],
    ['wrong', 'wrong'],
  ] as const)
    writeFileSync(join(folder, name), `${text}\n`, { mode: 0o600 });
  const env = {
    AWS_ACCESS_KEY_ID: KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: KEYS.secretAccessKey,
    AWS_SESSION_TOKEN: KEYS.sessionToken,
    SQLSYNC_SCRYPT_N: String(2 ** 15),
    SQLSYNC_PASSWORD_FILE: join(folder, 'password'),
    HOME: join(folder, 'home'),
    TMPDIR: join(folder, 'tmp'),
  };
  for (const [name, value] of Object.entries(env).filter(([each]) => each.startsWith('AWS_'))) {
    process.env[name] = value;
    t.after(() => delete process.env[name]);
  }
  const scene = {
    folder,
    store: server.address,
    server,
    content: content.subarray(100, 148).toString('latin1'),
    commands: [] as string[],
    outputs: [] as Texts,
    processes: [] as Texts,
  };
  const run = async (status: number, ...args: string[]): Promise<void> => {
    const name = args[0] as string;
    scene.commands.push(name);
    // A group of its own: no terminal to ask on.
    const command = new Command(args, { cwd: folder, env, detached: true });
    const before = server.count('put');
    let isEnded = false;
    const words = new Set<string>();
    const ended = command.done.then(() => true);
    while (!(await Promise.race([ended, delay(LOOK_MS, false)]))) {
      for (const pid of descendantsOf(command.child.pid ?? 0)) words.add(wordsOf(pid));
      // It goes on until it is ended; a second signal would be a kill.
      if (name === 'follow' && server.count('put') > before && !isEnded)
        isEnded = command.child.kill('SIGINT');
    }
    const { stdout, stderr, ...end } = await command.done;
    assert.equal(end.status, status, `${args.join(' ')}: ${stdout}${stderr}`);
    const where = `sqlsync ${args.join(' ')}`;
    scene.outputs.push([`the output of ${where}`, name === 'dump' ? stderr : `${stdout}${stderr}`]);
    for (const each of words) scene.processes.push([`the words of a process of ${where}`, each]);
  };
  return { ...scene, run };
}

/** The process and all that it started; without those that ended meanwhile. */
function descendantsOf(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean);
    return [pid, ...children.flatMap((child) => descendantsOf(Number(child)))];
  } catch {
    return [];
  }
}

function wordsOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

function filesBelow(folder: string): Texts {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => statSync(join(folder, name)).isFile())
    .map((name) => [name, readFileSync(join(folder, name), 'latin1')]);
}
