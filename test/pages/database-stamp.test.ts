import '../support/environment.ts';
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { STAMP_BYTES } from '../../src/pages/database-stamp.ts';
import type { StampMoment } from '../../src/pages/database-stamp.ts';
import { beginStamped } from '../../src/pages/database-stamp.ts';
import { timesEveryWrite } from '../../src/files/mounts.ts';
import { FilePages } from '../../src/pages/file-pages.ts';
import { WalIndex } from '../../src/pages/wal-index.ts';
import { DatabaseReader } from '../../src/sqlite/database-reader.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { noQuickCheck } from '../support/quick.ts';

const HOUR_MS = 3_600_000;
const BOOT = 'a3c9e2d0-0000-0000-0000-000000000000';

function database(t: TestContext, journalMode: 'wal' | 'delete'): string {
  const path = join(tempDir(t), 'a.db');
  generateDatabase(path, { rows: 20, journalMode });
  return path;
}

interface Look {
  readonly moment?: Partial<StampMoment>;
  /** Runs between reading the wal-index and the snapshot. */
  readonly between?: () => unknown;
}

async function stamp(path: string, { moment: given, between }: Look = {}): Promise<string | undefined> {
  const moment = { now: Date.now() + HOUR_MS, bootId: BOOT, ...given };
  const files = new FilePages(path);
  const reader = new DatabaseReader(path);
  try {
    await files.stamp.settle(moment.now);
    reader.attach();
    files.stamp.attached();
    await between?.();
    reader.begin();
    const taken = files.stamp.take(moment);
    assert.ok(taken === undefined || taken.length === STAMP_BYTES);
    return taken && Buffer.from(taken).toString('hex');
  } finally {
    reader.close();
    files.close();
  }
}

describe('the stamp of a database', { skip: noQuickCheck() ?? false }, () => {
  for (const mode of ['wal', 'delete'] as const) {
    test(`the stamp is the same in each look at a database in mode ${mode} that nothing touches`, async (t) => {
      const path = database(t, mode);
      const first = await stamp(path);
      assert.ok(first !== undefined);
      assert.equal(await stamp(path), first);
    });
  }

  test('the stamp is another one after a start of the kernel, and missing if that cannot be known', async (t) => {
    const path = database(t, 'delete');
    assert.notEqual(await stamp(path), await stamp(path, { moment: { bootId: 'another' } }));
    assert.equal(await stamp(path, { moment: { bootId: undefined } }), undefined);
  });

  test('the stamp is missing until the last change is 3 s old, and if it lies in the future', async (t) => {
    const path = database(t, 'delete');
    const { ctimeMs } = statSync(path);
    assert.equal(await stamp(path, { moment: { now: ctimeMs + 2999 } }), undefined);
    assert.notEqual(await stamp(path, { moment: { now: ctimeMs + 3001 } }), undefined);
    assert.equal(await stamp(path, { moment: { now: ctimeMs - HOUR_MS } }), undefined);
  });

  test('the stamp is missing if a commit came between the look at the wal-index and the snapshot', async (t) => {
    const path = database(t, 'wal');
    const writer = await new OtherProcess(t).open(path);
    await writer.exec('UPDATE item SET amount = 1');
    const before = await stamp(path);
    assert.ok(before !== undefined);
    const between = (): Promise<void> => writer.exec('UPDATE item SET amount = 2');
    assert.equal(await stamp(path, { between }), undefined);
    assert.notEqual(await stamp(path), before);
  });

  test('the stamp is missing for a file with another name', async (t) => {
    const path = database(t, 'delete');
    linkSync(path, `${path}.link`);
    assert.equal(await stamp(path), undefined);
  });

  test('the stamp is missing for a database in rollback mode beside a -wal with content', async (t) => {
    const path = database(t, 'delete');
    assert.notEqual(await stamp(path), undefined);
    writeFileSync(`${path}-wal`, Buffer.alloc(100));
    assert.equal(await stamp(path), undefined);
  });

  test('the stamp is missing on a file system that does not time each write', async (t) => {
    if (!existsSync('/dev/shm') || timesEveryWrite('/dev/shm/a.db')) return t.skip('/dev/shm is no tmpfs');
    const folder = mkdtempSync('/dev/shm/sqlsync-test-');
    t.after(() => rmSync(folder, { recursive: true }));
    copyFileSync(database(t, 'delete'), join(folder, 'a.db'));
    assert.equal(await stamp(join(folder, 'a.db')), undefined);
  });

  test('the stamp is missing where dirty pages could not be written to the disk before', async (t) => {
    const path = database(t, 'wal');
    const files = new FilePages(path);
    const reader = new DatabaseReader(path);
    assert.ok(beginStamped(reader, files.stamp).pageCount > 1);
    assert.equal(files.stamp.take({ now: Date.now() + HOUR_MS, bootId: BOOT }), undefined);
    reader.close();
    files.close();
  });

  test('one function begins the stamp for all snapshots', async (t) => {
    const path = database(t, 'wal');
    const files = new FilePages(path);
    await files.stamp.settle(Date.now() + HOUR_MS);
    const reader = new DatabaseReader(path);
    assert.ok(beginStamped(reader, files.stamp).pageCount > 1);
    assert.notEqual(files.stamp.take({ now: Date.now() + HOUR_MS, bootId: BOOT }), undefined);
    reader.close();
    files.close();
  });
});

describe('the header of a wal-index', () => {
  /** The -shm of a database, for the test to change as a file of its own. */
  async function index(t: TestContext, harm: (bytes: Buffer) => void): Promise<Buffer | undefined> {
    const path = database(t, 'wal');
    await (await new OtherProcess(t).open(path)).exec('UPDATE item SET amount = 1');
    const copy = join(tempDir(t), 'copy');
    copyFileSync(`${path}-shm`, `${copy}-shm`);
    const bytes = readFileSync(`${copy}-shm`);
    harm(bytes);
    writeFileSync(`${copy}-shm`, bytes);
    const opened = WalIndex.open(copy);
    t.after(() => opened?.close());
    return opened?.header();
  }

  test('the header of a wal-index is read if both copies are the same and their checksum is right', async (t) => {
    const header = await index(t, () => {});
    assert.equal(header?.length, 48);
  });

  const FAULTS: Record<string, (bytes: Buffer) => void> = {
    'one copy is torn': (bytes) => bytes.writeUInt8(bytes.readUInt8(56) ^ 1, 56),
    'the checksum of both is wrong': (bytes) => {
      for (const at of [8, 56]) bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    },
    'it was never written': (bytes) => bytes.fill(0, 0, 96),
  };
  for (const [name, harm] of Object.entries(FAULTS)) {
    test(`the header of a wal-index is unknown if ${name}`, async (t) => {
      assert.equal(await index(t, harm), undefined);
    });
  }

  test('the header of a wal-index is unknown without a wal-index', (t) => {
    assert.equal(WalIndex.open(join(tempDir(t), 'a.db')), undefined);
  });
});
