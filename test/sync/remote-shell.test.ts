import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { RemoteShell } from '../../src/sync/link/remote-shell.ts';
import { mendMissing, survey } from '../../src/sync/runs/setup-survey.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { tempDir } from '../support/compare.ts';

/** A shell on which `programs` come before those of the system; its stdout is their descriptor 3. */
function hostile(t: TestContext, programs: Readonly<Record<string, string>>, timeoutMs: number): RemoteShell {
  const folder = tempDir(t);
  for (const [name, lines] of Object.entries(programs)) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
  }
  const path = `${folder}:${process.env['PATH'] ?? ''}`;
  const options = { command: 'env', args: [`PATH=${path}`, `HOME=${folder}`, 'sh', '-c', 'sh 3>&1'] };
  const transport: Transport = spawnProcess({ ...options, description: 'the host' });
  const shell = new RemoteShell(transport, timeoutMs);
  t.after(() => shell.close());
  return shell;
}

/** `head` is what discards an upload, and makes the bytes of a download. */
const ifUpload = (lines: string): string => `[ $# = 3 ] && exec /usr/bin/head "$@"\n${lines}`;

describe('a hostile host that setup asks', () => {
  test('a host that floods while it receives data is refused before that takes memory', async (t) => {
    const shell = hostile(t, { head: ifUpload('exec yes >&3') }, 20_000);
    const before = process.memoryUsage().rss;
    await assert.rejects(shell.measure(), { code: 'PROTOCOL', message: /it sends too much/ });
    assert.ok(process.memoryUsage().rss - before < 200e6);
  });

  test('a host that takes nothing of the data is given up as silent', async (t) => {
    const shell = hostile(t, { head: ifUpload('exec sleep 10') }, 1000);
    await assert.rejects(shell.measure(), { code: 'TIMEOUT', message: /silent for 1 s/ });
  });

  test('the place of sqlsync on a hostile host puts no command into the line to paste', async (t) => {
    const name = '/x; touch /tmp/PWNED; #';
    const tr = `/usr/bin/tr "$@"\necho 'elsewhere=${name}'`;
    const found = await survey(hostile(t, { tr }, 20_000), '', 'sqlsync');
    const location = { kind: 'ssh', host: 'db1', path: '' } as const;
    const line = mendMissing({ location, idleTimeoutMs: 0 }, found);
    assert.equal(line, `it is at '${name}'; add: --remote-exe '${name}'`);
  });
});
