import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { LocalBackend, ByteRange, StoredFile, StoreFolder } from '../../src/backup/backends/backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-overtaken-'));
after(() => rmSync(folder, { recursive: true }));

/**
 * A store as a command found it before it was held up, and as it is after prunes have copied and deleted what
 * the command was about to read.
 */
class OvertakenBackend implements LocalBackend {
  readonly description = 'an overtaken store';
  isOver = false;
  readonly #old: MemoryBackend;
  readonly #new: MemoryBackend;
  readonly #isMoment: (operation: string, count: number) => boolean;
  #count = 0;
  #hasWritten = false;

  constructor(
    states: { readonly old: MemoryBackend; readonly new: MemoryBackend },
    isMoment: (operation: string, count: number) => boolean,
  ) {
    this.#old = states.old;
    this.#new = states.new;
    this.#isMoment = isMoment;
  }

  #at(operation: string): MemoryBackend {
    // Others have seen what the command wrote: the prunes cannot undo it.
    this.#hasWritten ||= operation.startsWith('put') || operation.startsWith('delete');
    this.isOver ||= !this.#hasWritten && this.#isMoment(operation, ++this.#count);
    return this.isOver ? this.#new : this.#old;
  }

  put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    return this.#at(`put ${name}`).put(name, pieces);
  }
  replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    return this.#at('put config').replaceConfig(pieces);
  }
  get(name: string, range?: ByteRange): Promise<Uint8Array> {
    return this.#at(`get ${name}`).get(name, range);
  }
  getNow(name: string, range?: ByteRange): Uint8Array {
    return this.#at(`get ${name}`).getNow(name, range);
  }
  list(where: StoreFolder): Promise<StoredFile[]> {
    return this.#at(`list ${where}`).list(where);
  }
  delete(name: string): Promise<void> {
    return this.#at(`delete ${name}`).delete(name);
  }
}

async function copyOf(memory: MemoryBackend): Promise<MemoryBackend> {
  const copy = new MemoryBackend();
  for (const [name, bytes] of memory.files) await copy.put(name, [bytes]);
  return copy;
}

let origin = '';
let here: StoreHere;
let states: {
  readonly old: MemoryBackend;
  readonly new: MemoryBackend;
  readonly withoutFirst: MemoryBackend;
};
let kept: readonly StoreSnapshot[] = [];
let image = Buffer.alloc(0);

before(async () => {
  origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 400 });
  const memory = new MemoryBackend();
  here = await storeHere(memory, folder, 12 * 3600);
  const gone = await backupHere(here, origin);
  change(origin, `UPDATE item SET payload = randomblob(700) WHERE id > 100`);
  await backupHere(here, origin);
  change(origin, `UPDATE item SET payload = randomblob(700) WHERE id % 5 = 0`);
  await backupHere(here, origin);
  image = readFileSync(origin);
  await here.store.forget([gone.id]);
  kept = await here.store.snapshots();
  const old = await copyOf(memory);
  const prune = (store: OpenStore): Promise<unknown> => store.prune({ graceSeconds: 0, maxUnusedRatio: 0 });
  await prune(here.store);
  await prune(here.store);
  const pruned = await copyOf(memory);
  const lost = [...old.files.keys()].filter((name) => name.startsWith('packs/') && !pruned.files.has(name));
  assert.ok(lost.length > 0, 'prunes have copied and deleted packs');
  await here.store.forget([kept[0]?.id ?? '']);
  await prune(here.store);
  await prune(here.store);
  states = { old, new: pruned, withoutFirst: await copyOf(memory) };
});

/**
 * Runs `work` on a store that prunes overtake at each of its operations in turn, up to the last operation.
 */
async function atEachOperation(
  later: MemoryBackend,
  work: (store: OpenStore, access: StoreHere['access'], at: number) => Promise<void>,
): Promise<void> {
  let at = 1;
  for (; ; at++) {
    const overtaken = { old: await copyOf(states.old), new: await copyOf(later) };
    const backend = new OvertakenBackend(overtaken, (_, count) => count === at);
    const access = { ...here.access, backend, files: backend };
    await work(new OpenStore(access), access, at);
    if (!backend.isOver) break;
  }
  assert.ok(at > 5, `overtaken at ${at} operations`);
}

describe('a command that prunes overtake finds no damage', () => {
  test('a restore that prunes overtake copies its snapshot', async () => {
    const last = kept.at(-1) as StoreSnapshot;
    await atEachOperation(states.new, async (store, _, at) => {
      const copy = await store.localCopy(last);
      assert.ok(readFileSync(copy.path).equals(image), `overtaken at ${at}`);
      copy.remove();
    });
  });

  test('a diff that prunes overtake compares its two snapshots', async () => {
    const [a, b] = kept as [StoreSnapshot, StoreSnapshot];
    const expected = await new OpenStore({ ...here.access, backend: states.old, files: states.old }).diff(
      a,
      b,
    );
    await atEachOperation(states.new, async (store) => {
      assert.deepEqual(await store.diff(a, b), expected);
    });
  });

  test('figures of a store that prunes overtake are right', async () => {
    const { rawBytes, uniqueBytes } = await new OpenStore({
      ...here.access,
      backend: states.old,
      files: states.old,
    }).stats();
    await atEachOperation(states.new, async (store) => {
      const stats = await store.stats();
      assert.deepEqual([stats.rawBytes, stats.uniqueBytes], [rawBytes, uniqueBytes]);
    });
  });

  test('a check that prunes overtake finds no damage, with data and without', async () => {
    for (const readData of [false, true]) {
      for (const later of [states.new, states.withoutFirst])
        await atEachOperation(later, async (store, _, at) => {
          const { problems, damaged } = await store.check({ readData });
          assert.deepEqual([problems, damaged], [[], []], `overtaken at ${at}`);
        });
    }
  });

  test('a prune that other prunes overtake does its work', async () => {
    await atEachOperation(states.new, async (store, access, at) => {
      await store.prune({ graceSeconds: 0, maxUnusedRatio: 0 });
      const { problems, damaged } = await store.check({ readData: true });
      assert.deepEqual([problems, damaged], [[], []], `overtaken at ${at}`);
      await assertStored({ access }, await store.snapshots(), new Map([[kept.at(-1)?.id ?? '', image]]));
    });
  });

  test('a backup that prunes overtake is made, or fails without a word of damage', async () => {
    const outcomes = new Set<string>();
    await atEachOperation(states.new, async (store, access) => {
      const warnings: string[] = [];
      const options = { onWarning: (text: string) => warnings.push(text), host: kept[0]?.host ?? '' };
      const made = await backupHere({ access, store, cache: here.cache }, origin, options).catch(
        (error: unknown) => {
          assert.ok(error instanceof SqlsyncError);
          return error.code;
        },
      );
      outcomes.add(typeof made === 'string' ? made : 'made');
      assert.deepEqual(warnings, []);
      const { problems, damaged } = await store.check({ readData: true });
      assert.deepEqual([problems, damaged], [[], []]);
    });
    assert.ok(
      [...outcomes].every((outcome) => ['made', 'STORE_PRUNED'].includes(outcome)),
      [...outcomes].join(),
    );
  });

  test('a reader whose snapshot was forgotten meanwhile learns just that', async () => {
    const [first] = kept as [StoreSnapshot];
    const outcomes = new Set<string>();
    await atEachOperation(states.withoutFirst, async (store) => {
      const copy = await store.localCopy(first).catch((error: unknown) => {
        assert.ok(error instanceof SqlsyncError);
        return error.code;
      });
      if (typeof copy !== 'string') copy.remove();
      outcomes.add(typeof copy === 'string' ? copy : 'copied');
    });
    assert.deepEqual([...outcomes].toSorted(), ['SNAPSHOT_NOT_FOUND', 'copied']);
  });
});

describe('objects that are really missing', () => {
  test('objects that are gone are damage, also if they went during the read', async () => {
    const last = kept.at(-1) as StoreSnapshot;
    const broken = await copyOf(states.old);
    const pack = [...broken.files.keys()].filter((name) => name.startsWith('packs/')).toSorted();
    for (const name of pack) await broken.delete(name);
    const backend = new OvertakenBackend({ old: states.old, new: broken }, (operation) =>
      operation.startsWith('get packs/'),
    );
    const store = new OpenStore({ ...here.access, backend, files: backend });
    await assert.rejects(store.localCopy(last), { code: 'STORE_FILE_MISSING' });
    const checked = new OvertakenBackend({ old: states.old, new: broken }, (operation) =>
      operation.startsWith('get packs/'),
    );
    const { problems, damaged } = await new OpenStore({
      ...here.access,
      backend: checked,
      files: checked,
    }).check({
      readData: true,
    });
    assert.deepEqual([problems.length, damaged.length], [pack.length, kept.length]);
  });
});
