import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, mock, test } from 'node:test';
import { generateDatabase } from '../../fixtures/generate.ts';
import { applyStep, randomStep } from '../../fixtures/history.ts';
import { Random } from '../../fixtures/random.ts';
import Database from 'better-sqlite3';
import { MemoryBackend } from './memory-backend.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { SnapshotSource } from '../../src/backup/snapshots/snapshot-source.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { StoreDamage } from '../../src/backup/store-error.ts';
import { loadContents } from '../../src/backup/files/store-files.ts';
import type { StoreAccess, StoreContents } from '../../src/backup/files/store-files.ts';
import { stillIntact } from '../../src/backup/check/still-intact.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import type { PageNumber } from '../../src/pages/page-types.ts';
import { backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/** Repeat a failure with `SQLSYNC_SEED=…`, more cases with SQLSYNC_RUNS: flipped bytes in packs; a third as many in each other kind of file. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['SQLSYNC_RUNS'] ?? 6);

const GRACE_SECONDS = 100;
const DAYS = 8;
const KINDS = ['packs', 'indexes', 'snapshots', 'marks', 'forgotten'] as const;

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-flipped-'));
const origins = ['a.db', 'b.db', 'c.db'].map((name) => join(folder, name));
const memory = new MemoryBackend();
const images = new Map<string, Buffer>();

/**
 * Databases of two page sizes, with days of changes, forgets and prunes; some of the content is stored twice,
 * marked, or half moved.
 */
before(async () => {
  const random = new Random(SEED);
  mock.timers.enable({ apis: ['Date'], now: 1_700_000_000_000 });
  const here = await storeHere(memory, folder, GRACE_SECONDS);
  for (const [i, origin] of origins.entries())
    generateDatabase(origin, { seed: SEED + i, pageSize: i === 0 ? 512 : 1024, rows: 40 });
  for (let day = 0; day < DAYS; day++) {
    for (const origin of origins) {
      const image = changed(origin, random);
      for (const { id } of await backups(here, origin, random.chance(0.3) ? 2 : 1)) images.set(id, image);
    }
    const kept = [...images.keys()];
    const forgotten = kept.filter((_, i) => i < kept.length - 4 && random.chance(0.2));
    await here.store.forget(forgotten);
    for (const id of forgotten) images.delete(id);
    mock.timers.setTime(Date.now() + (GRACE_SECONDS / 2) * 1000);
    if (day % 3 === 2) await here.store.prune({ maxUnusedRatio: 0.05 });
  }
  // What a backup leaves if it is killed before it puts its index.
  const names = new Set(memory.files.keys());
  changed(origins[0] as string, random);
  await backupHere(here, origins[0] as string);
  for (const name of memory.files.keys())
    if (!names.has(name) && !name.startsWith('packs/')) memory.files.delete(name);
  mock.timers.reset();
});
after(() => rmSync(folder, { recursive: true, force: true }));

describe('a flipped byte anywhere in a store', () => {
  for (const kind of KINDS) {
    test(`a flipped byte is found in ${kind}, and the check tells which snapshots restore`, async (t) => {
      t.diagnostic(`SQLSYNC_SEED=${SEED} SQLSYNC_RUNS=${RUNS}`);
      const random = new Random(SEED);
      const names = [...memory.files.keys()].filter((name) => name.startsWith(`${kind}/`));
      assert.ok(names.length > 0);
      for (let run = 0; run < (kind === 'packs' ? RUNS : RUNS / 3); run++) {
        const name = random.pick(names);
        const { bytes, at } = flipped(name, random);
        const access = await openBackend(storeWith(name, bytes));
        await assertTold(access, name, `${name} at ${at}`);
      }
    });
  }

  test('a flipped byte is found in the config when the store is opened', async () => {
    const random = new Random(SEED);
    for (let run = 0; run < RUNS * 10; run++) {
      const { bytes, at } = flipped('config', random);
      await assert.rejects(openBackend(storeWith('config', bytes)), { code: 'STORE_DAMAGED' }, `at ${at}`);
    }
  });
});

/**
 * Checks that `check` names the file and is right about every snapshot, as is the list in the error of a
 * failed restore.
 */
async function assertTold(access: StoreAccess, name: string, what: string): Promise<void> {
  const store = new OpenStore(access);
  const { problems, intact, damaged } = await store.check({ readData: true });
  const all = await loadContents(access, () => {});
  // Nobody needs a pack that no index names, unless something is missing.
  const isGarbage = name.startsWith('packs/') && !all.index.packs.has(name.slice('packs/'.length));
  assert.ok(
    isGarbage || problems.some(({ file }) => file === name),
    `${what} is not named: ${JSON.stringify(problems)}`,
  );
  const snapshots = await store.snapshots();
  const restores = new Set<string>();
  const lists: StoreSnapshot[] = [];
  for (const snapshot of snapshots) {
    const bytes = readOrNothing(all, snapshot);
    if (bytes === undefined) {
      // A restore of just this snapshot has read nothing else.
      const contents = await loadContents(access, () => {});
      assert.equal(readOrNothing(contents, snapshot), undefined);
      lists.push(...stillIntact(contents, snapshots));
    } else {
      assert.ok(bytes.equals(images.get(snapshot.id) as Buffer), `${what}: ${snapshot.id} is another one`);
      restores.add(snapshot.id);
    }
  }
  assert.deepEqual(new Set(intact.map(({ id }) => id)), restores, what);
  assert.equal(damaged.length, snapshots.length - restores.size, what);
  for (const { id } of lists) assert.ok(restores.has(id), `${what}: ${id}`);
}

function readOrNothing({ reader }: StoreContents, snapshot: StoreSnapshot): Buffer | undefined {
  const bytes = Buffer.alloc(snapshot.pageCount * snapshot.pageSize);
  try {
    new SnapshotSource(reader, snapshot).readInto(1 as PageNumber, bytes);
    return bytes;
  } catch (error) {
    assert.ok(error instanceof StoreDamage, String(error));
    return undefined;
  }
}

function flipped(name: string, random: Random): { bytes: Uint8Array; at: number } {
  const bytes = new Uint8Array(memory.files.get(name) as Uint8Array);
  const at = random.integer(0, bytes.length - 1);
  bytes[at] = (bytes[at] as number) ^ random.integer(1, 255);
  return { bytes, at };
}

function storeWith(name: string, bytes: Uint8Array): MemoryBackend {
  const copy = new MemoryBackend();
  for (const [file, content] of memory.files) copy.files.set(file, file === name ? bytes : content);
  return copy;
}

/** Makes this many backups at once; each stores what is new. */
function backups(here: StoreHere, origin: string, count: number): Promise<StoreSnapshot[]> {
  return Promise.all(Array.from({ length: count }, () => backupHere(here, origin)));
}

/** Changes a database; returns its bytes after that. */
function changed(path: string, random: Random): Buffer {
  const db = new Database(path);
  try {
    for (let steps = random.integer(1, 3); steps > 0; steps--) applyStep(db, randomStep(random));
    db.pragma('wal_checkpoint(TRUNCATE)');
    return db.serialize();
  } finally {
    db.close();
  }
}
