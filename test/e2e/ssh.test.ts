import assert from 'node:assert/strict';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import Database from 'better-sqlite3';
import { generateDatabase } from '../../fixtures/generate.ts';
import { Random } from '../../fixtures/random.ts';
import { assertReplicaOf, sha256File } from '../support/compare.ts';
import { Scenario } from '../support/relay-scenario.ts';
import { agentsGone, installRemote, remote, runCli, SSH_WAYS, wasExecuted } from '../support/ssh-cli.ts';
import type { CliOptions, CliResult } from '../support/ssh-cli.ts';
import { makeSshKey, SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-e2e-'));
const pidDir = join(folder, 'agents');
if (started !== undefined) installRemote(sshd, pidDir);
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});
const scenario = await Scenario.make(folder, { blobs: 5, pageSize: 4096 });

function makeFolder(name: string): string {
  const path = join(folder, name);
  mkdirSync(path, { recursive: true });
  return path;
}

function makeDatabase(parent: string, name: string): string {
  const path = join(parent, name);
  generateDatabase(path, { rows: 120 });
  return path;
}

/** A path of so many bytes, in folders that exist. */
function pathOf(bytes: number, name: string): string {
  const missing = bytes - folder.length - name.length - 2;
  const names = `${'d'.repeat(199)}/`.repeat(Math.ceil(missing / 200)).slice(0, missing);
  const parent = join(folder, names.replace(/\/$/, 'd'));
  mkdirSync(parent, { recursive: true });
  return join(parent, name);
}

function change(path: string, seed: number): void {
  const db = new Database(path);
  const random = new Random(seed);
  db.prepare('UPDATE item SET amount = ? WHERE id % 50 = 0').run(random.next());
  db.prepare('INSERT INTO item (label, payload) VALUES (?, ?)').run(random.text(20), random.bytes(100));
  db.close();
}

/** The summary of a run that must succeed. */
function summaryOf(result: CliResult): Record<string, unknown> {
  const summary = result.events.get('summary');
  assert.equal(result.status, 0, JSON.stringify([...result.events.values()]) + result.stderr);
  assert.ok(summary !== undefined);
  return summary;
}

for (const { name: transport, rsh } of SSH_WAYS) {
  describe(`over a real sshd by ${transport}`, { skip }, () => {
    const run = (args: string[], options: CliOptions = {}): Promise<CliResult> =>
      runCli(sshd, args, { rsh, ...options });
    for (const way of ['pull', 'push'] as const) {
      test(`${way}: new, unchanged, dry run, update, verify`, async () => {
        const place = makeFolder(transport);
        const origin = makeDatabase(place, `${way}-origin.db`);
        const replica = join(place, `${way}-replica.db`);
        const locations = way === 'pull' ? [remote(sshd, origin), replica] : [origin, remote(sshd, replica)];
        const created = summaryOf(await run(locations));
        assert.deepEqual([created['outcome'], created['created']], ['committed', true]);
        assertReplicaOf(origin, replica);

        const before = sha256File(replica);
        const unchanged = summaryOf(await run(locations));
        assert.deepEqual([unchanged['outcome'], unchanged['pagesTransferred']], ['unchanged', 0]);
        change(origin, 1);
        const dryRun = summaryOf(await run(['--dry-run', ...locations]));
        assert.equal(dryRun['outcome'], 'dryRun');
        assert.ok(Number(dryRun['pagesChanged']) > 0);
        assert.equal(sha256File(replica), before);

        const differs = await run(['verify', ...locations]);
        assert.equal(differs.status, 1);
        const updated = summaryOf(await run(locations));
        assert.deepEqual([updated['outcome'], updated['created']], ['committed', false]);
        assert.equal(updated['pagesChanged'], dryRun['pagesChanged']);
        assertReplicaOf(origin, replica);
        assert.equal(summaryOf(await run(['verify', ...locations]))['same'], true);
        const bothRemote = ['verify', remote(sshd, origin), remote(sshd, replica)];
        assert.equal(summaryOf(await run(bothRemote))['same'], true);
        await agentsGone(pidDir);
      });

      test(`${way}: a path with spaces, quotes and commands names a file, and nothing is executed`, async () => {
        const place = makeFolder(transport);
        const odd = join(place, `${way} it's "odd"; $(touch pwned) \`touch pwned\` & touch pwned`);
        mkdirSync(odd);
        const name = `-n $(touch pwned) 'x' "y" *.db`;
        const plain = makeDatabase(place, `${way}-plain.db`);
        const there = join(odd, name);
        if (way === 'pull') {
          generateDatabase(there, { rows: 20, seed: 3 });
          summaryOf(await run([remote(sshd, there), join(place, 'from-odd.db')], { cwd: odd }));
          assertReplicaOf(there, join(place, 'from-odd.db'));
        } else {
          summaryOf(await run([plain, remote(sshd, there)], { cwd: odd }));
          assertReplicaOf(plain, there);
        }
        assert.ok(!wasExecuted('pwned', [odd, place, folder, sshd.home, sshd.configDir, process.cwd()]));
      });
    }

    test('both locations remote is a usage error', async () => {
      const result = await run([remote(sshd, '/a.db'), remote(sshd, '/b.db')]);
      assert.deepEqual([result.status, result.events.get('error')?.['code']], [2, 'BOTH_REMOTE']);
    });

    test('--remote-exe may be the path of an executable that is not on the PATH', async () => {
      const place = makeFolder(transport);
      const origin = makeDatabase(place, 'by-path.db');
      const remoteExe = join(sshd.binDir, 'sqlsync');
      summaryOf(await run([remote(sshd, origin), join(place, 'by-path-r.db')], { remoteExe }));
    });
  });
}

interface Refusal {
  name: string;
  code: string;
  status: number;
  message: RegExp;
  options?: () => CliOptions;
  /** By default a push of `origin` to `replica`. */
  locations?: (origin: string, replica: string) => string[];
}

const REFUSALS: Refusal[] = [
  {
    name: 'a host with another key than the known one',
    code: 'HOST_KEY_MISMATCH',
    status: 12,
    message: /SHA256:/,
    options: () => ({
      knownHosts: knownHosts('wrong', makeSshKey(join(mkdtempSync(join(folder, 'k-')), 'wrong-host-key'))),
    }),
  },
  {
    name: 'a host that is not known',
    code: 'HOST_KEY_UNKNOWN',
    status: 11,
    message: /not known/,
    options: () => ({ knownHosts: knownHosts('empty', undefined) }),
  },
  {
    name: 'a key that may not log in',
    code: 'AUTH_FAILED',
    status: 13,
    message: /refused to log in/,
    options: () => ({ identity: makeSshKey(join(mkdtempSync(join(folder, 'k-')), 'wrong-key')) }),
  },
  {
    name: 'a port where nobody listens',
    code: 'CONNECT_FAILED',
    status: 10,
    message: /port 1\b.*refused/,
    options: () => ({ port: 1 }),
  },
  {
    name: 'a remote program that is missing',
    code: 'REMOTE_EXE_NOT_FOUND',
    status: 14,
    message: /sqlsync-that-nobody-has.*not found/,
    options: () => ({ remoteExe: 'sqlsync-that-nobody-has' }),
  },
  {
    name: 'a remote origin that is missing',
    code: 'ORIGIN_NOT_FOUND',
    status: 3,
    message: /missing\.db/,
    locations: (_, replica) => [remote(sshd, join(folder, 'missing.db')), replica],
  },
  {
    name: 'a remote folder that is missing',
    code: 'REPLICA_UNWRITABLE',
    status: 4,
    message: /missing/,
    locations: (origin) => [origin, remote(sshd, join(folder, 'missing', 'r.db'))],
  },
  {
    name: 'a remote path of 4,000 characters, which SQLite cannot open, as replica',
    code: 'REPLICA_UNWRITABLE',
    status: 4,
    message: /has a path of 4000 bytes .*SQLite can open/,
    locations: (origin) => [origin, remote(sshd, pathOf(4000, 'new.db'))],
  },
  {
    name: 'a remote path of 4,000 characters, which SQLite cannot open, as origin',
    code: 'ORIGIN_UNREADABLE',
    status: 3,
    message: /has a path of 4000 bytes .*SQLite can open/,
    locations: (origin, replica) => {
      const path = pathOf(4000, 'origin.db');
      copyFileSync(origin, path);
      return [remote(sshd, path), replica];
    },
  },
  {
    name: 'a remote origin that the user may not read',
    code: 'ORIGIN_PERMISSION',
    status: 3,
    message: /forbidden/,
    options: asNobody,
    locations: (_, replica) => [remote(sshd, forbidden('origin.db')), replica],
  },
  {
    name: 'a remote folder that the user may not write',
    code: 'REPLICA_UNWRITABLE',
    status: 4,
    message: /forbidden/,
    options: asNobody,
    locations: (origin) => [origin, remote(sshd, forbidden('r.db'))],
  },
  {
    name: 'a login shell that prints a banner',
    code: 'PROTOCOL',
    status: 8,
    message: /it said: Welcome to \ufffd\[31mvault\ufffd\[0m/,
    options: () => ({ remoteExe: `printf 'Welcome to \\033[31mvault\\033[0m\\n'; sqlsync` }),
  },
  {
    name: 'a remote program that is another than sqlsync',
    code: 'PROTOCOL',
    status: 8,
    message: /it said: agent/,
    options: () => ({ remoteExe: 'echo' }),
  },
  {
    name: 'a remote program that ends at once',
    code: 'CONNECTION_LOST',
    status: 15,
    message: /exit status 7.*some trouble/,
    options: () => ({ remoteExe: 'echo some trouble >&2; exit 7; ' }),
  },
];

for (const { name: transport, rsh } of SSH_WAYS) {
  describe(`refusals over a real sshd by ${transport}`, { skip }, () => {
    for (const { name, code, status, message, options, locations } of REFUSALS) {
      test(`${name} is refused with a message and an exit status of its own`, async () => {
        const pair = scenario.pair('wal');
        const which = locations?.(pair.origin, pair.replica) ?? [pair.origin, remote(sshd, pair.replica)];
        const result = await runCli(sshd, which, { rsh, ...options?.() });
        const error = result.events.get('error');
        assert.equal(error?.['code'], code, JSON.stringify(error) + result.stderr);
        assert.match(String(error['message']), message);
        assert.ok(typeof error['hint'] === 'string', 'a hint');
        assert.equal(error['exitStatus'], status);
        assert.equal(result.status, status);
        assert.equal(scenario.state('wal', pair), 'old');
        await agentsGone(pidDir);
      });
    }
  });
}

function knownHosts(name: string, key: string | undefined): string {
  const path = join(folder, `known-${name}`);
  const line = key === undefined ? '' : `[127.0.0.1]:${sshd.port} ${readFileSync(`${key}.pub`, 'utf8')}`;
  writeFileSync(path, line);
  return path;
}

/** Root may read and write everything, so the remote agent then runs as somebody else. */
function asNobody(): CliOptions {
  if (process.getuid?.() !== 0) return {};
  chmodSync(folder, 0o755);
  chmodSync(sshd.configDir, 0o755);
  chmodSync(sshd.binDir, 0o755);
  chmodSync(pidDir, 0o777);
  return { remoteExe: 'HOME=/nonexistent setpriv --reuid=65534 --regid=65534 --clear-groups sqlsync' };
}

/** The path of a file that the user of the remote agent may not read, or of one in a folder that it may not enter. */
function forbidden(name: string): string {
  const path = join(folder, 'forbidden');
  mkdirSync(path, { recursive: true, mode: 0o700 });
  if (process.getuid?.() === 0) {
    chmodSync(path, 0o755);
    rmSync(join(path, 'origin.db'), { force: true });
    generateDatabase(join(path, 'origin.db'), { rows: 5 });
    chmodSync(join(path, 'origin.db'), 0o600);
  } else chmodSync(path, 0o000);
  return join(path, name);
}
