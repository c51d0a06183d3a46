import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { backup, initStore, restore } from '../../src/index.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage } from '../support/compare.ts';
import { agentsGone, installRemote, remote } from '../support/ssh-cli.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, the test below is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-backup-ssh-'));
const pidDir = join(folder, 'agents');
mkdirSync(pidDir);
if (started !== undefined) installRemote(sshd, pidDir);
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

test(
  'a database on another host is backed up, and a snapshot restored to another host',
  { skip },
  async () => {
    const store = join(folder, 'store');
    await initStore(store);
    const path = join(folder, 'origin.db');
    smallDatabase(path);
    const origin = remote(sshd, path);
    const ssh = {
      port: sshd.port,
      identityFiles: [sshd.clientKey],
      knownHostsFiles: [sshd.knownHostsFile],
      configFile: 'none',
    };
    const first = await backup({ origin, store, ...ssh });
    assert.equal(first.snapshot.path, path);
    change(path, 'UPDATE item SET amount = amount + 1 WHERE id % 50 = 0');
    const image = pageImage(path);
    const second = await backup({ origin, store, verify: true, ...ssh });
    assert.equal(second.snapshot.parent, first.snapshot.id);
    assert.ok(
      second.bytesReceived < first.bytesReceived / 4,
      `${second.bytesReceived} of ${first.bytesReceived} bytes`,
    );

    const target = join(folder, 'restored.db');
    const made = await restore({ store, snapshot: first.snapshot.id, target: remote(sshd, target), ...ssh });
    assert.equal(made.created, true);
    const changed = await restore({
      store,
      snapshot: 'latest',
      target: remote(sshd, target),
      overwrite: true,
      ...ssh,
    });
    assert.ok(changed.pagesTransferred < first.snapshot.pageCount / 2);
    const restored = pageImage(target);
    // The bytes of page 1 that belong to the file itself stay as they were.
    assert.ok(restored.subarray(100).equals(image.subarray(100)));
    assert.ok(readFileSync(target).length === image.length);
    assert.ok((await agentsGone(pidDir)) >= 4);
  },
);
