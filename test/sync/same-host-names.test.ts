import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { readSystemFileId, systemFileId } from '../../src/files/machine.ts';
import { assertRefused, NEEDS_ROOT, PROGRAM, sqlsync } from '../cli/command.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

const LINUX_ROOT =
  process.platform === 'linux'
    ? NEEDS_ROOT
    : 'NOT TESTED: only Linux tells one start of a kernel from another';

/**
 * A remote shell to "another machine": the same files in another folder, the same host name, another start of
 * a kernel.
 */
function cloneOf(folder: string, machine: string): string {
  const script = join(folder, `to-${machine}`);
  const bootId = join(folder, `boot-id-${machine}`);
  writeFileSync(bootId, `${machine}-0000-0000-0000-000000000000\n`);
  mkdirSync(join(folder, machine), { recursive: true });
  const inside = `mount --bind "${bootId}" /proc/sys/kernel/random/boot_id && mount --bind "${join(folder, machine)}" "${join(folder, 'srv')}" && exec "${process.execPath}" "${PROGRAM}" agent`;
  writeFileSync(script, `#!/bin/sh\nexec unshare --mount sh -c '${inside}'\n`);
  chmodSync(script, 0o755);
  return script;
}

describe('machines that have one host name', { skip: LINUX_ROOT }, () => {
  test('machines of one host name may copy to each other under one path, in a chain', async (t) => {
    const folder = tempDir(t);
    const app = join(folder, 'srv', 'app.db');
    mkdirSync(join(folder, 'srv'));
    smallDatabase(app, { rows: 20 });
    const [b, c] = [cloneOf(folder, 'b'), cloneOf(folder, 'c')];
    for (let round = 0; round < 2; round++) {
      const first = await sqlsync(['-e', b, app, `host:${app}`]);
      assert.equal(first.status, 0, first.stderr);
      // From b, which has a mark, on to c, by a client that runs on b.
      const onB = await sqlsync(['-e', c, join(folder, 'b', 'app.db'), `host:${app}`]);
      assert.equal(onB.status, 0, onB.stderr);
      change(app, 'UPDATE item SET amount = amount + 1');
    }
    assert.ok(existsSync(join(folder, 'c', 'app.db')));
    assertReplicaOf(join(folder, 'b', 'app.db'), join(folder, 'c', 'app.db'));
  });

  test('machines of one host name differ by the start of their kernel, and a file by its inode', () => {
    const own = systemFileId('1:2');
    const clone = own.replace(/^\S+/, '00000000-0000-0000-0000-000000000000');
    assert.ok(readSystemFileId(own).is('1:2'));
    assert.ok(!readSystemFileId(own).is('1:3'));
    assert.ok(!readSystemFileId(clone).is('1:2'));
    const container = own.replace(/ \S+ /, ' mnt:[1] ');
    assert.ok(readSystemFileId(container).is('1:2'), 'a file that two containers share');
    const facts = [own, clone, container, ''].map((text) => {
      const { isHere, isElsewhere } = readSystemFileId(text);
      return { isHere, isElsewhere };
    });
    assert.deepEqual(facts, [
      { isHere: true, isElsewhere: false },
      { isHere: false, isElsewhere: true },
      { isHere: false, isElsewhere: false },
      { isHere: false, isElsewhere: false },
    ]);
  });
});

describe('a host whose name has changed', () => {
  test('a host whose name has changed still notices swapped arguments, and restores an origin without marking it', async (t) => {
    const folder = tempDir(t);
    const [app, copy] = [join(folder, 'app.db'), join(folder, 'copy.db')];
    smallDatabase(app, { rows: 20 });
    const run = await sqlsync(['-q', app, copy]);
    assert.equal(run.status, 0, run.stderr);
    const markPath = join(folder, '.copy.db.sqlsync');
    const mark = JSON.parse(readFileSync(markPath, 'utf8')) as object;
    // The mark as it was written while the host had the name of an earlier container.
    writeFileSync(
      markPath,
      JSON.stringify({ ...mark, originHost: 'container-1', originName: `container-1:${app}` }),
    );
    await assertRefused([copy, app], { code: 'SWAPPED', status: 6, says: /look swapped/ });
    change(app, 'DELETE FROM item');
    const restored = await sqlsync(['-q', '--overwrite', copy, app]);
    assert.equal(restored.status, 0, restored.stderr);
    assert.ok(!existsSync(join(folder, '.app.db.sqlsync')));
    const again = await sqlsync(['-q', app, copy]);
    assert.equal(again.status, 0, again.stderr);
  });
});
