import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { remote, runCli } from '../support/ssh-cli.ts';
import { makeSshKey, SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { assertRefused, folderState, sqlsync } from './command.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test that needs it is skipped
after(() => started?.stop());

/** How bin/sqlsync.js ends on a Node.js that is too old. */
const REFUSING = `#!/bin/sh
echo 'sqlsync needs Node.js 22.18 or newer, but this is Node.js 18.20.0 (/usr/bin/node).' >&2
exit 9
`;

describe('over a real sshd', { skip }, () => {
  for (const way of ['pull', 'push', 'verify'] as const) {
    test(`${way}: a far sqlsync whose Node.js is too old is NODE_UNSUPPORTED, with what it said`, async (t) => {
      const folder = tempDir(t);
      const [near, far] = [join(folder, 'a.db'), remote(sshd, join(folder, 'b.db'))];
      smallDatabase(near, { rows: 20 });
      sshd.addExecutable('refusing', REFUSING);
      const before = folderState(folder);
      const args =
        way === 'pull' ? [far, join(folder, 'c.db')] : [...(way === 'verify' ? [way] : []), near, far];
      const { status, events } = await runCli(sshd, args, { remoteExe: 'refusing' });
      const error = events.get('error');
      assert.deepEqual([status, error?.['code']], [9, 'NODE_UNSUPPORTED'], JSON.stringify(error));
      assert.match(
        String(error?.['message']),
        /^sqlsync on .*127\.0\.0\.1.* cannot run: sqlsync needs Node\.js 22\.18 .* 18\.20\.0/,
      );
      assert.match(String(error?.['hint']), /newer Node\.js there by --remote-exe/);
      assert.deepEqual(folderState(folder), before);
    });
  }

  test('status 9 after the first bytes is a lost connection, or whatever those bytes mean', async (t) => {
    const folder = tempDir(t);
    sshd.addExecutable('talking', '#!/bin/sh\necho hello\nexit 9\n');
    const args = [remote(sshd, '/a.db'), join(folder, 'c.db')];
    const { events } = await runCli(sshd, args, { remoteExe: 'talking' });
    assert.notEqual(events.get('error')?.['code'], 'NODE_UNSUPPORTED');
  });

  test('a refused login hints at an `ssh` command with the port where ssh wants it', async (t) => {
    const identity = makeSshKey(join(tempDir(t), 'key'));
    const args = [remote(sshd, '/a.db'), join(tempDir(t), 'c.db')];
    const { events } = await runCli(sshd, args, { identity });
    const error = events.get('error');
    assert.equal(error?.['code'], 'AUTH_FAILED');
    const login = `ssh -p ${sshd.port} ${sshd.user}@127.0.0.1`;
    assert.ok(String(error['hint']).includes(`\`${login}\``), String(error['hint']));
  });
});

test('an identity file that is not there is a usage error, before anything connects', async (t) => {
  const folder = tempDir(t);
  writeFileSync(join(folder, 'here'), '');
  await assertRefused(['host.invalid:a.db', 'b.db', '-i', join(folder, 'here'), '-i', join(folder, 'gone')], {
    code: 'USAGE',
    status: 2,
    says: /--identity: \S*gone does not exist/,
  });
});

test('a host name that does not resolve hints that aliases of ssh_config are not read', async () => {
  const { status, stderr } = await sqlsync(['alias.invalid:a.db', 'b.db']);
  assert.equal(status, 10);
  assert.match(stderr, /real host name, user and --port: aliases of ~\/\.ssh\/config are not read/);
});
