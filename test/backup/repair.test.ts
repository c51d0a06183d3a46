import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { encodeChecked } from '../../src/backup/files/checked-json.ts';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { openBackend } from '../../src/backup/open-store.ts';
import { openOrRepairConfig } from '../../src/backup/repair/repair-config.ts';
import type { RepairSummary } from '../../src/backup/types.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { pageImage } from '../support/compare.ts';
import { DAMAGES, storeToDamage } from './damages.ts';
import { FaultyBackend } from './faulty-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);

/** Every kind of damage to every kind of file, and several at once. */
const IS_LONG = process.env['SQLSYNC_SLOW_TESTS'] === '1';

/** All repairs here read all data, unless they say so. */
const DEEP = { readData: true } as const;

const { folder, origins, files, images } = storeToDamage('repair', async ({ store }, kept) => {
  // Later snapshots need all pages of the oldest as bases; none needs those of the newest of the first
  // database.
  const all = await store.snapshots();
  for (const gone of [all[0], all[4]] as StoreSnapshot[]) {
    await store.forget([gone.id]);
    kept.delete(gone.id);
  }
  const { packsMarked } = await store.prune({ graceSeconds: 1e-9, maxUnusedRatio: 0 });
  assert.ok(packsMarked > 0);
});

for (const [damage, apply] of Object.entries(DAMAGES)) {
  describe(`${damage} in a store`, () => {
    for (const kind of ['indexes', 'packs', 'snapshots', 'marks', 'forgotten']) {
      test(`${damage} of its ${kind} is repaired as far as nothing is lost with it`, async (t) => {
        t.diagnostic(`SQLSYNC_SEED=${SEED}`);
        const random = new Random(SEED);
        const names = namesOf(kind).sort(() => random.integer(0, 1) - 0.5);
        for (const name of IS_LONG ? names : names.slice(0, 2))
          await assertRepairs(await damaged([[name, apply(files.get(name) as Uint8Array, random)]]), name);
      });
    }
  });
}

describe('a repair', () => {
  test('a repair of several damaged files saves all that can still be read', async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const random = new Random(SEED);
    const all = [...files.keys()].filter((name) => name !== 'config' && !name.startsWith('forgotten/'));
    for (let round = 0; round < (IS_LONG ? 100 : 3); round++) {
      const changes = Array.from({ length: random.integer(2, 6) }, () => {
        const name = random.pick(all);
        const apply = random.pick(Object.values(DAMAGES));
        return [name, apply(files.get(name) as Uint8Array, random)] as const;
      });
      await assertRepairs(await damaged(changes), changes.map(([name]) => name).join(' '));
    }
  });

  test('a repair makes all indexes of a store without any from its packs', async () => {
    const place = await damaged(namesOf('indexes').map((name) => [name, undefined]));
    const { packsIndexed, lost } = await place.here.store.repair();
    assert.deepEqual([packsIndexed, lost], [namesOf('packs').length, []]);
    await assertStored(place.here, await place.here.store.snapshots(), images);
    const { problems } = await place.here.store.check(DEEP);
    assert.deepEqual(problems, []);
  });

  test('a repair brings back what is lost when the file is there again', async () => {
    for (const name of namesOf('packs')) {
      const { memory, here } = await damaged([[name, undefined]]);
      const found = await here.store.check();
      if (found.damaged.length === 0) continue;
      assert.equal((await here.store.repair()).lost.length, found.damaged.length);
      memory.files.set(name, files.get(name) as Uint8Array);
      assert.deepEqual((await here.store.repair()).lost, []);
      await assertStored(here, await here.store.snapshots(), images);
    }
  });

  test('a repair leaves it to the next backup to bring back what the database still has', async () => {
    let isHealed = false;
    const [, origin] = origins as [string, string];
    for (const name of namesOf('packs')) {
      const { here } = await damaged([[name, undefined]]);
      const { lost } = await here.store.repair();
      await backupHere(here, origin);
      const { damaged: still, problems } = await here.store.check(DEEP);
      assert.ok(still.length <= lost.length);
      assert.ok(problems.length === 0 || still.length > 0);
      isHealed ||= still.length < lost.length;
    }
    assert.ok(isHealed);
  });

  test('a repair changes nothing in a sound store, nor as a dry run', async () => {
    const sound = await damaged([]);
    assertNothingDone(await sound.here.store.repair(DEEP));
    assert.deepEqual(new Map(sound.memory.files), files);
    for (const name of [...namesOf('indexes'), ...namesOf('packs')]) {
      const { memory, here } = await damaged([[name, undefined]]);
      const untouched = new Map(memory.files);
      const trial = await here.store.repair({ dryRun: true, forget: true });
      assert.deepEqual(new Map(memory.files), untouched);
      assert.deepEqual({ ...(await here.store.repair({ forget: true })), dryRun: true }, trial);
    }
  });

  test('a repair that drops a mark while a prune runs loses nothing that a backup then relies upon', async () => {
    const [mark] = namesOf('marks') as [string];
    // The pages that are in the marked pack.
    const [origin] = origins as [string];
    for (let at = 1, operations = Infinity; at <= operations; at += IS_LONG ? 1 : 6) {
      const { memory, here } = await damaged([]);
      let under = '';
      let added: StoreSnapshot | undefined;
      const faulty = new FaultyBackend(
        memory,
        (_, operation, name) => {
          under = `${operation} ${name}`;
          return 'none';
        },
        undefined,
        async (number) => {
          // Only a deletion that is under way cannot be called back.
          if (number !== at || under.startsWith('delete packs/')) return;
          memory.files.set(mark, Buffer.from('{}'));
          await here.store.repair();
          added = await backupHere(here, origin);
        },
      );
      const pruning = new OpenStore({ ...here.access, backend: faulty, files: faulty });
      await pruning.prune({ graceSeconds: 1e-9 }).catch((error: unknown) => assert.ok(isDamage(error)));
      operations = faulty.count;
      if (added === undefined) continue;
      assert.deepEqual((await here.store.repair()).lost, [], `before operation ${at}, ${under}`);
      await assertStored(
        here,
        await here.store.snapshots(),
        new Map([...images, [added.id, pageImage(origin)]]),
      );
    }
  });

  test('a repair that is killed at any operation leaves the store no worse, and the next one finishes', async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const random = new Random(SEED);
    const flip = DAMAGES['a flipped bit'] as (typeof DAMAGES)[string];
    const [pack, other] = namesOf('packs') as [string, string];
    const [index, otherIndex] = namesOf('indexes') as [string, string];
    const [mark] = namesOf('marks') as [string];
    const changes = [
      [pack, flip(files.get(pack) as Uint8Array, random)],
      [other, files.get(other)?.slice(0, -100)],
      [index, flip(files.get(index) as Uint8Array, random)],
      [otherIndex, undefined],
      [mark, flip(files.get(mark) as Uint8Array, random)],
    ] as const;
    const whole = await damaged(changes);
    const final = await whole.here.store.repair(DEEP);
    for (const fault of ['before', 'after'] as const) {
      for (let at = 1, operations = Infinity; at <= operations; at++) {
        const { memory, here } = await damaged(changes);
        const faulty = new FaultyBackend(memory, (number) => (number >= at ? fault : 'none'));
        const dying = new OpenStore({ ...here.access, backend: faulty, files: faulty });
        try {
          await dying.repair(DEEP);
          operations = faulty.count;
        } catch (error) {
          assert.ok(error instanceof SqlsyncError && error.code === 'STORE_UNAVAILABLE', String(error));
        }
        const { lost } = await here.store.repair(DEEP);
        assert.deepEqual(
          lost.map(({ id, pagesLost }) => [id, pagesLost]),
          final.lost.map(({ id, pagesLost }) => [id, pagesLost]),
          `killed at ${at}`,
        );
        const isLost = new Set(lost.map(({ id }) => id));
        const kept = (await here.store.snapshots()).filter(({ id }) => !isLost.has(id));
        await assertStored(here, kept, images);
      }
    }
  });
});

describe('the config of a store', () => {
  test('a repair writes a damaged or missing config anew, and keeps a longer grace period', async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const random = new Random(SEED);
    for (const apply of Object.values(DAMAGES)) {
      for (let i = 0; i < (IS_LONG ? 10 : 2); i++) {
        const memory = new MemoryBackend();
        const { access } = await storeHere(memory, folder, 100_000);
        for (const [name, bytes] of files) if (name !== 'config') await memory.put(name, [bytes]);
        const bytes = apply(memory.files.get('config') as Uint8Array, random);
        memory.files.delete('config');
        if (bytes !== undefined) await memory.put('config', [bytes]);
        const trial = await openOrRepairConfig(memory, { dryRun: true });
        assert.deepEqual(
          [trial.configWritten, memory.files.get('config')],
          [true, bytes && Buffer.from(bytes)],
        );
        const { configWritten } = await openOrRepairConfig(memory, { dryRun: false });
        assert.ok(configWritten);
        const { config } = await openBackend(memory);
        assert.notEqual(config.id, access.config.id);
        const isKnown = Buffer.from(bytes ?? []).includes('"graceSeconds": 100000,');
        assert.ok(config.graceSeconds >= (isKnown ? 100_000 : 12 * 3600));
        const again = await openOrRepairConfig(memory, { dryRun: false });
        assert.deepEqual([again.configWritten, again.access.config], [false, config]);
      }
    }
  });

  test('a repair reads the grace period exactly if one byte of the config is wrong, and never takes a shorter one', async () => {
    const config = Buffer.from(
      encodeChecked({ ...(await storeHere(new MemoryBackend(), folder, 172_800)).access.config }),
    );
    const repaired = async (bytes: Uint8Array): Promise<number> => {
      const memory = new MemoryBackend();
      for (const [name, file] of files) if (name !== 'config') await memory.put(name, [file]);
      await memory.put('config', [bytes]);
      await openOrRepairConfig(memory, { dryRun: false });
      return (await openBackend(memory)).config.graceSeconds;
    };
    const flipped = (at: number, to?: string): Buffer => {
      const bytes = Buffer.from(config);
      bytes.write(to ?? String.fromCharCode(bytes.readUInt8(at) ^ 2), at, 'latin1');
      return bytes;
    };
    const digits = config.indexOf('172800');
    for (const at of [
      0,
      config.indexOf('"version": 1') + 11,
      config.indexOf('graceS'),
      digits,
      digits + 5,
      config.length - 1,
    ])
      assert.equal(await repaired(flipped(at)), 172_800, `byte ${at}`);
    const twice = (bytes: Buffer): Buffer =>
      Buffer.concat([bytes.subarray(0, -9), Buffer.from('x'.repeat(9))]);
    assert.equal(await repaired(twice(config)), 172_800);
    assert.equal(await repaired(twice(flipped(digits + 4, '?'))), 172_890);
    assert.equal(await repaired(twice(flipped(config.indexOf('graceS'), 'G'))), 172_800);
    assert.equal(await repaired(config.subarray(0, digits + 3)), 12 * 3600);
    assert.equal(await repaired(Buffer.alloc(0)), 12 * 3600);
  });

  test('the config is there at every moment of its replacement, and a store in a folder goes on with it', async () => {
    const place = mkdtempSync(join(folder, 'replaced-'));
    const backend = new DirectoryBackend(place);
    for (const [name, file] of files) await backend.put(name, [name === 'config' ? Buffer.from('{') : file]);
    assert.equal(
      await openOrRepairConfig(backend, { dryRun: true }).then(({ configWritten }) => configWritten),
      true,
    );
    assert.equal(readFileSync(join(place, 'config'), 'utf8'), '{');
    const refusing = new FaultyBackend(backend, (_, operation) => (operation === 'put' ? 'before' : 'none'));
    await assert.rejects(openOrRepairConfig(refusing, { dryRun: false }), { code: 'STORE_UNAVAILABLE' });
    assert.equal(readFileSync(join(place, 'config'), 'utf8'), '{');
    const { access } = await openOrRepairConfig(backend, { dryRun: false });
    const store = new OpenStore(access);
    assert.deepEqual((await store.repair({ readData: true })).lost, []);
    assert.deepEqual((await store.check({ readData: true })).problems, []);
    await store.prune({ graceSeconds: 0 });
    assert.deepEqual(
      readdirSync(place).filter((name) => name.startsWith('.')),
      [],
    );
  });

  test('a config of a later version, or one that no file proves to be of a store, stays as it is', async () => {
    const later = encodeChecked({ format: 'sqlsync-store', version: 3, id: '00', time: '' });
    for (const [names, config, code] of [
      [[...files.keys()], Buffer.from(later).toString(), 'STORE_VERSION'],
      [namesOf('packs'), '{', 'STORE_DAMAGED'],
      [[], undefined, 'STORE_NOT_FOUND'],
    ] as const) {
      const memory = new MemoryBackend();
      for (const name of names)
        if (name !== 'config') await memory.put(name, [files.get(name) as Uint8Array]);
      if (config !== undefined) await memory.put('config', [Buffer.from(config)]);
      await assert.rejects(
        openOrRepairConfig(memory, { dryRun: false }),
        (error) => error instanceof SqlsyncError && error.code === code,
      );
      assert.equal(memory.files.get('config')?.toString(), config);
    }
  });
});

interface Place {
  readonly memory: MemoryBackend;
  readonly here: StoreHere;
}

/** A copy of the store in which files have these bytes, or are missing. */
async function damaged(changes: readonly (readonly [string, Uint8Array | undefined])[]): Promise<Place> {
  const memory = new MemoryBackend();
  for (const [name, bytes] of new Map<string, Uint8Array | undefined>([...files, ...changes]))
    if (bytes !== undefined) await memory.put(name, [bytes]);
  const access = await openBackend(memory);
  const { cache } = await storeHere(new MemoryBackend(), mkdtempSync(join(folder, 'cache-')));
  return { memory, here: { access, store: new OpenStore(access), cache } };
}

/** Checks all that must be true of every repair. */
async function assertRepairs({ memory, here }: Place, what: string): Promise<void> {
  const { store } = here;
  const restorable = await restorableNow(here);
  const packs = packsIn(memory);
  const summary = await store.repair(DEEP);
  assert.deepEqual(
    [...packs].filter((name) => !memory.files.has(name)),
    [],
    `${what}: no pack is deleted`,
  );
  const lost = new Set(summary.lost.map(({ id }) => id));
  for (const { id } of restorable)
    assert.ok(!lost.has(id), `${what}: snapshot ${id} could be restored before`);
  await assertStored(here, restorable, images);
  assertNothingDone(await store.repair(DEEP), what);
  const checked = await store.check(DEEP);
  const givenUp = new Set(summary.packsDamaged.map((id) => `packs/${id}`));
  for (const { file, message } of checked.problems)
    assert.ok(lost.has(file.replace('snapshots/', '')) || givenUp.has(file), `${what}: ${message}`);
  for (const { snapshot } of checked.damaged) assert.ok(lost.has(snapshot.id), what);
  const { forgotten } = await store.repair({ ...DEEP, forget: true });
  assert.deepEqual(new Set(forgotten), lost, what);
  const clean = await store.check(DEEP);
  assert.deepEqual([clean.problems, clean.damaged], [[], []], what);
  await assertStored(here, await store.snapshots(), images);
  const [origin] = origins as [string];
  const added = await backupHere(here, origin);
  for (let i = 0; i < 3; i++) await store.prune({ graceSeconds: 0 });
  const pruned = await store.check(DEEP);
  assert.deepEqual([pruned.problems, pruned.damaged], [[], []], what);
  const left = await store.snapshots();
  assert.ok(left.some(({ id }) => id === added.id));
  await assertStored(here, left, new Map([...images, [added.id, pageImage(origin)]]));
  for (const pack of summary.packsDamaged) assert.ok(!memory.files.has(`packs/${pack}`), `${what}: pruned`);
}

/** The snapshots that can be restored although the store is damaged. */
async function restorableNow(here: StoreHere): Promise<StoreSnapshot[]> {
  const restorable: StoreSnapshot[] = [];
  for (const snapshot of await here.store.snapshots()) {
    try {
      await assertStored(here, [snapshot], images);
      restorable.push(snapshot);
    } catch (error) {
      assert.ok(error instanceof SqlsyncError, String(error));
    }
  }
  return restorable;
}

function assertNothingDone(summary: RepairSummary, what?: string): void {
  const { configWritten, indexesRemoved, packsIndexed, packsGivenUp } = summary;
  const { objectsSaved, marksRemoved, notesWritten } = summary;
  assert.deepEqual(
    {
      configWritten,
      indexesRemoved,
      packsIndexed,
      packsGivenUp,
      objectsSaved,
      marksRemoved,
      notesWritten,
    },
    {
      configWritten: false,
      indexesRemoved: 0,
      packsIndexed: 0,
      packsGivenUp: 0,
      objectsSaved: 0,
      marksRemoved: 0,
      notesWritten: 0,
    },
    what,
  );
}

function isDamage(error: unknown): boolean {
  return error instanceof SqlsyncError && error.code.startsWith('STORE_');
}

function namesOf(kind: string): string[] {
  return [...files.keys()].filter((name) => name.startsWith(`${kind}/`));
}

function packsIn({ files: all }: MemoryBackend): Set<string> {
  return new Set([...all.keys()].filter((name) => name.startsWith('packs/')));
}
