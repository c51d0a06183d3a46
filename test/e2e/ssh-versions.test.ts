import assert from 'node:assert/strict';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { PROTOCOL_VERSION } from '../../protocol/version.ts';
import { folderState } from '../cli/command.ts';
import { smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { remote, runCli, SSH_WAYS } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const ROOT = dirname(dirname(import.meta.dirname));
const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-versions-'));
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

/** Another sqlsync on the host: this one, with other numbers. */
function install(name: string, protocol: number, program: string): void {
  const root = join(folder, name);
  mkdirSync(root);
  for (const part of ['bin', 'src', 'protocol', 'package.json']) {
    cpSync(join(ROOT, part), join(root, part), { recursive: true });
  }
  for (const part of ['node_modules', 'build']) symlinkSync(join(ROOT, part), join(root, part));
  replaceIn(join(root, 'package.json'), /"version": "[^"]+"/, `"version": "${program}"`);
  const version = join(root, 'protocol', 'version.ts');
  replaceIn(version, /PROTOCOL_VERSION = \d+;/, `PROTOCOL_VERSION = ${protocol};`);
  replaceIn(version, /MIN_PROTOCOL_VERSION = \d+;/, `MIN_PROTOCOL_VERSION = ${protocol};`);
  const command = join(root, 'bin', 'sqlsync.js');
  sshd.addExecutable(
    name,
    `#!/bin/sh\nexport NODE_COMPILE_CACHE='${join(folder, 'cache')}'\nexec '${process.execPath}' '${command}' "$@"\n`,
  );
}

function replaceIn(path: string, pattern: RegExp, text: string): void {
  const before = readFileSync(path, 'utf8');
  const changed = before.replace(pattern, text);
  if (changed !== before || pattern.test(text)) return writeFileSync(path, changed);
  assert.fail(`${path} has no ${pattern.source}`);
}

if (started !== undefined) {
  install('older', 0, '0.0.9');
  install('newer', PROTOCOL_VERSION + 1, '9.9.9');
  install('compatible', PROTOCOL_VERSION, '9.9.9');
}

const ours = `${PROTOCOL_VERSION} to ${PROTOCOL_VERSION}`;
const newer = PROTOCOL_VERSION + 1;

const OTHERS = {
  older: {
    says: new RegExp(`sqlsync 0\\.0\\.9\\) speaks protocol 0 to 0, .* ${ours}`),
    hint: /other side is older.* install sqlsync \d/,
  },
  newer: {
    says: new RegExp(`sqlsync 9\\.9\\.9\\) speaks protocol ${newer} to ${newer}, .* ${ours}`),
    hint: /This side is older.* install sqlsync 9\.9\.9 here/,
  },
} as const;

describe('over a real sshd, a far program', { skip }, () => {
  for (const [name, { says, hint }] of Object.entries(OTHERS)) {
    for (const way of ['pull', 'push', 'verify'] as const) {
      test(`a far program of a protocol that is ${name} is refused, with the side to renew (${way})`, async (t) => {
        const here = tempDir(t);
        const [a, b] = [join(here, 'a.db'), join(here, 'b.db')];
        smallDatabase(a, { rows: 20, journalMode: 'delete' });
        smallDatabase(b, { rows: 30, journalMode: 'delete' });
        const before = folderState(here);
        const [near, far] = way === 'pull' ? [b, remote(sshd, a)] : [a, remote(sshd, b)];
        const args = way === 'pull' ? [far, near] : [...(way === 'verify' ? [way] : []), near, far];
        const { rsh } = SSH_WAYS[way === 'push' ? 1 : 0] ?? {};
        const { status, events } = await runCli(sshd, args, { remoteExe: name, rsh });
        const error = events.get('error');
        assert.deepEqual([status, error?.['code']], [8, 'PROTOCOL_VERSION'], JSON.stringify(error));
        assert.match(String(error?.['message']), says);
        assert.match(String(error?.['hint']), hint);
        assert.deepEqual(folderState(here), before);
      });
    }

    test(`setup finds a far program of a protocol that is ${name}`, async () => {
      const { status, events } = await runCli(sshd, ['setup', remote(sshd, '')], { remoteExe: name });
      assert.equal(status, 8);
      const checks = events.get('summary')?.['checks'] as { name: string; detail: string; mend?: string }[];
      const check = checks.find((one) => one.name === 'protocol');
      assert.match(check?.detail ?? '', says);
      assert.match(check?.mend ?? '', hint);
    });
  }

  test('a far program of a newer version that speaks the same protocol works', async (t) => {
    const here = tempDir(t);
    const [origin, replica] = [join(here, 'a.db'), join(here, 'b.db')];
    smallDatabase(origin, { rows: 20 });
    const { status, events } = await runCli(sshd, [remote(sshd, origin), replica], {
      remoteExe: 'compatible',
    });
    assert.equal(status, 0, JSON.stringify([...events.values()]));
    assertReplicaOf(origin, replica);
  });
});
