import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { agentsGone, installRemote, remote, SSH_WAYS } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { Following, stateOf, untilSeen } from './following.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
after(() => started?.stop());

/** With SQLSYNC_SLOW_TESTS each transport goes both ways, else one. */
const WAYS = ['pull', 'push'] as const;
const CHANGE = 'UPDATE item SET amount = amount + 1 WHERE id % 50 = 7';

for (const [i, { name, rsh }] of SSH_WAYS.entries()) {
  const ways = process.env['SQLSYNC_SLOW_TESTS'] === '1' ? WAYS : [WAYS[i % 2] ?? 'pull'];
  for (const way of ways) {
    test(
      `a replica follows over a real sshd by ${name}, on after its connection is killed, until SIGTERM (${way})`,
      { skip },
      async (t) => {
        const folder = tempDir(t);
        const pidDir = join(folder, 'agents');
        installRemote(sshd, pidDir);
        const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'replica.db')];
        generateDatabase(origin, { rows: 600, pageSize: 1024, journalMode: 'wal' });
        const other = new OtherProcess(t);
        const app = await other.open(origin, { timeoutMs: 20_000 });
        const following = new Following(t, [
          '--port',
          String(sshd.port),
          '--identity',
          sshd.clientKey,
          '--known-hosts',
          sshd.knownHostsFile,
          '--remote-exe',
          'sqlsync',
          '--ssh-config',
          'none',
          ...(rsh === undefined ? [] : ['--rsh', rsh]),
          way === 'pull' ? remote(sshd, origin) : origin,
          way === 'push' ? remote(sshd, replica) : replica,
        ]);
        const untilFollowed = async (): Promise<void> => {
          const state = await stateOf(other, origin);
          assert.ok(state !== undefined, 'the origin can be read');
          await untilSeen(other, replica, state, [following]);
        };
        await following.untilEvents('step', 1);
        for (const isKilled of [false, true]) {
          if (isKilled) {
            sshd.killSessions();
            await following.untilEvents('failure', 1);
          }
          await app.call('exec', CHANGE);
          await untilFollowed();
        }
        const { status, summary, stdout } = await following.end();
        assert.equal(status, 0, stdout);
        for (const { code } of following.events('failure'))
          assert.match(String(code), /^CONNECT(?:ION_LOST|_FAILED)$/);
        assert.ok(Number(summary['failures']) >= 1);
        assert.ok((await agentsGone(pidDir)) >= 2);
        assertReplicaOf(origin, replica);
      },
    );
  }
}
