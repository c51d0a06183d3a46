import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { runBackup } from '../../src/backup/copy/backup.ts';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import type { BackupSummary } from '../../src/backup/options.ts';
import { runRestore } from '../../src/backup/restore/restore.ts';
import { change, column } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

describe('a backup into a damaged store', () => {
  test('a backup stores a damaged base of deltas again, and older snapshots restore with it', async (t) => {
    const place = await makePlace(t, 2);
    const [first] = place.days as [Day];
    flip(place, `packs/${first.pack}`, first.payload);
    // So that all pages are read.
    rmSync(join(place.store, 'cache'), { recursive: true });
    const { warnings } = await backUp(place);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0] as string, new RegExp(`^packs/${first.pack} .*; what is lost is stored again`));
    // The page itself changed on the second day: only the first one's snapshot has lost it.
    await assertRestore(place, first.pack, [first.snapshot]);
  });

  test('a backup with --verify learns of damage that it did not read itself, and stores those pages again', async (t) => {
    const place = await makePlace(t, 1);
    const [first] = place.days as [Day];
    flip(place, `packs/${first.pack}`, first.payload);
    change(place.origin, 'UPDATE item SET amount = 7 WHERE id = 40');
    const { warnings, verified } = await backUp(place, true);
    assert.ok(verified);
    assert.match(warnings.join('\n'), new RegExp(`^packs/${first.pack} .*; what is lost is stored again`));
    await assertRestore(place, first.pack, []);
  });

  test('a backup stores again what only a damaged index names', async (t) => {
    const place = await makePlace(t, 2);
    const { name } = (await place.here.access.backend.list('indexes'))[0] as { name: string };
    const path = join(place.store, 'indexes', name);
    writeFileSync(path, readFileSync(path).fill(7, 100, 101));
    const { warnings } = await backUp(place);
    assert.equal(warnings.length, 1);
    assert.match(warnings[0] as string, new RegExp(`^indexes/${name} .*stored again`));
    await assertNewestRestores(place);
  });

  test('a backup relies on none of many damaged packs', async (t) => {
    const place = await makePlace(t, 10);
    for (const { pack, payload } of place.days) flip(place, `packs/${pack}`, payload);
    rmSync(join(place.store, 'cache'), { recursive: true });
    const { warnings } = await backUp(place);
    assert.equal(warnings.length, 2);
    assert.equal(warnings[1], '9 more packs in the store were changed since they were written');
    await assertNewestRestores(place);
  });
});

test('a restore that fails names the file, and the snapshots that do not need it', async (t) => {
  const place = await makePlace(t, 2);
  const { store, here, days } = place;
  const [first] = days as [Day];
  const other = join(store, '..', 'other.db');
  change(other, 'CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(9000))');
  const { id } = await backupHere(here, other);
  flip(place, `packs/${first.pack}`, first.payload);
  const target = join(store, '..', 'restored.db');
  await assert.rejects(runRestore({ store, snapshot: first.snapshot, target }), {
    code: 'STORE_DAMAGED',
    message: new RegExp(`^packs/${first.pack} `),
    hint: new RegExp(`need nothing that was found damaged, newest first: ${id.slice(0, 8)};`),
  });
  assert.ok(!existsSync(target));
  await runRestore({ store, snapshot: id, target });
  assert.ok(readFileSync(target).equals(readFileSync(other)));
});

interface Day {
  readonly snapshot: string;
  /** The pack that the backup wrote, and bytes that are in it as they are. */
  readonly pack: string;
  readonly payload: Buffer;
}

interface Place {
  readonly store: string;
  readonly here: StoreHere;
  readonly origin: string;
  readonly days: readonly Day[];
  readonly images: Map<string, Buffer>;
}

/**
 * Makes this many backups in a folder; each day adds rows of incompressible bytes, and changes blocks of the
 * first day's pages.
 */
async function makePlace(t: TestContext, dayCount: number): Promise<Place> {
  const folder = tempDir(t);
  const store = join(folder, 'store');
  const origin = join(folder, 'origin.db');
  const here = await storeHere(new DirectoryBackend(store), store);
  const images = new Map<string, Buffer>();
  const days: Day[] = [];
  const seen = new Set<string>();
  change(
    origin,
    'PRAGMA journal_mode = WAL; CREATE TABLE item (id INTEGER PRIMARY KEY, day, amount, payload)',
  );
  for (let day = 0; day < dayCount; day++) {
    change(
      origin,
      `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
       INSERT INTO item (day, amount, payload) SELECT ${day}, 0, randomblob(1500) FROM n;
       UPDATE item SET amount = ${day} WHERE id < 20`,
    );
    const { id: snapshot } = await backupHere(here, origin);
    images.set(snapshot, readFileSync(origin));
    const packs = await here.access.backend.list('packs');
    const pack = packs.find(({ name }) => !seen.has(name))?.name as string;
    seen.add(pack);
    // Not at the edge of a day's pages, where a page has rows of two days.
    const sql = `SELECT payload FROM item WHERE day = ${day} ORDER BY id LIMIT 1 OFFSET 10`;
    days.push({ snapshot, pack, payload: (column(origin, sql)[0] as Buffer).subarray(700, 740) });
  }
  return { store, here, origin, days, images };
}

function flip({ store }: Place, file: string, bytes: Uint8Array): void {
  const path = join(store, file);
  const flipped = readFileSync(path);
  const at = flipped.indexOf(bytes);
  assert.ok(at >= 0, 'the bytes are in the pack as they are');
  flipped[at] = (flipped[at] as number) ^ 1;
  writeFileSync(path, flipped);
}

async function backUp({ store, origin, images }: Place, verify = false): Promise<BackupSummary> {
  const summary = await runBackup({ store, origin, verify });
  images.set(summary.snapshot.id, readFileSync(origin));
  return summary;
}

async function assertNewestRestores({ here, images }: Place): Promise<void> {
  const newest = (await here.store.snapshots()).slice(-1);
  assert.ok(images.has(newest[0]?.id as string));
  await assertStored(here, newest, images);
}

/** Checks that all but these snapshots restore exactly, although a pack is still damaged. */
async function assertRestore({ here, images }: Place, pack: string, lost: readonly string[]): Promise<void> {
  const { problems, damaged, intact } = await here.store.check({ readData: true });
  const ids = damaged.map(({ snapshot }) => snapshot.id);
  assert.deepEqual([problems.map(({ file }) => file), ids], [[`packs/${pack}`], lost]);
  assert.ok(intact.length >= images.size - lost.length);
  await assertStored(here, intact, images);
}
