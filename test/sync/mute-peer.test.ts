import assert from 'node:assert/strict';
import { chmodSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { PROGRAM, sqlsync } from '../cli/command.ts';

/** Behaviours of a remote shell in place of an agent, for longer than anything here may take. */
const FAR_SIDES = {
  'says nothing': { script: 'exec sleep 600', says: /has sent nothing after [23] s/ },
  'says a byte now and then': {
    script: `while :; do printf x; sleep 0.2; done`,
    says: /Protocol violation|has not greeted, and only sent "x/,
  },
  'says its greeting byte by byte, and never ends': {
    script: `for c in s q l s y n c '\\n'; do printf "$c"; sleep 0.1; done; while :; do printf '\\001'; sleep 0.3; done`,
    says: /Protocol violation|has not greeted, and only sent "sqlsync/,
  },
  'prints on stderr only': {
    script: `while :; do echo waiting >&2; sleep 0.2; done`,
    says: /has sent nothing/,
  },
};

function scriptIn(folder: string, name: string, script: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o755);
  return path;
}

describe('a far side that never greets is given up after --connect-timeout', () => {
  for (const [name, { script, says }] of Object.entries(FAR_SIDES)) {
    test(`a far side that ${name} and never greets is given up after --connect-timeout`, async (t) => {
      const folder = tempDir(t);
      smallDatabase(join(folder, 'app.db'), { rows: 10 });
      await sqlsync(['init', '-q', 'store'], { cwd: folder });
      const rsh = scriptIn(folder, 'rsh', script);
      // With the limit of silence at ten minutes the connect time-out ends the run, or nothing does.
      const limits = ['-e', rsh, '--connect-timeout', '2', '--timeout', '600', '-q'];
      const runs = [
        ['host:/app.db', 'copy.db'],
        ['app.db', 'host:/copy.db'],
        ['verify', 'app.db', 'host:/app.db'],
        ['backup', 'host:/app.db', 'store'],
      ];
      for (const args of runs) {
        const { status, stderr } = await sqlsync([...args, ...limits], { cwd: folder });
        assert.match(stderr, says, args.join(' '));
        assert.ok(status === 16 || status === 8, `${status}: ${stderr}`);
      }
    });
  }
});

describe('a far side that falls silent after its greeting', () => {
  /** Passes on so many bytes of a real agent's output, and then nothing more. */
  function cutAfter(folder: string, bytes: number): string {
    return scriptIn(
      folder,
      `cut-${bytes}`,
      `"${process.execPath}" "${PROGRAM}" agent | { dd bs=1 count=${bytes} status=none; exec sleep 600; }`,
    );
  }

  // The greeting of this version has some 50 bytes; half a frame follows.
  for (const bytes of [30, 70]) {
    test(`a far side that falls silent ${bytes} bytes from its start is given up, and nothing stays`, async (t: TestContext) => {
      const folder = tempDir(t);
      const app = join(folder, 'app.db');
      smallDatabase(app, { rows: 10 });
      const args = ['-e', cutAfter(folder, bytes), '--connect-timeout', '8', '--timeout', '2', '-q'];
      const { status, stderr } = await sqlsync([...args, `host:${app}`, 'copy.db'], { cwd: folder });
      assert.match(stderr, /has been silent for|has not greeted/);
      assert.equal(status, 16, stderr);
      assert.ok(!readdirSync(folder).includes('copy.db'));
    });
  }

  test('a far side that takes longer than --timeout to greet is waited for', async (t) => {
    const folder = tempDir(t);
    const app = join(folder, 'app.db');
    smallDatabase(app, { rows: 10 });
    // The silence of a busy machine is shorter than that.
    const rsh = scriptIn(folder, 'slow', `sleep 10; exec "${process.execPath}" "${PROGRAM}" agent`);
    const args = ['-e', rsh, '--connect-timeout', '120', '--timeout', '8', '-q'];
    change(app, 'UPDATE item SET amount = 1');
    const { status, stderr } = await sqlsync([...args, `host:${app}`, join(folder, 'copy.db')]);
    assert.equal(status, 0, stderr);
    assertReplicaOf(app, join(folder, 'copy.db'));
  });
});
