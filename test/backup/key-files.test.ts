import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import { KeptFiles } from '../../src/backup/backends/kept-files.ts';
import { HashCache } from '../../src/backup/copy/hash-cache.ts';
import { ParentMemory } from '../../src/backup/copy/parent-memory.ts';
import { encodeConfig, newConfig, parseConfig } from '../../src/backup/files/config.ts';
import { decodeKeyFile } from '../../src/backup/keys/key-file.ts';
import { Password } from '../../src/backup/keys/password.ts';
import { listKeys, unlock } from '../../src/backup/keys/store-keys.ts';
import { initBackend, openBackend } from '../../src/backup/open-store.ts';
import { idOf, toHex } from '../../src/backup/packs/object-id.ts';
import { backupTaskOptions } from '../../src/library/options.ts';
import { PLAIN_SEALER } from '../../src/backup/sealed/sealer.ts';
import { OpenStore } from '../../src/backup/store.ts';
import { MemoryBackend } from './memory-backend.ts';

process.env['SQLSYNC_SCRYPT_N'] = String(2 ** 15);

/** Computed once for each key file. */
const PASSWORD = new Password('correct horse');
const SECOND = new Password('second');

let files: ReadonlyMap<string, Uint8Array> = new Map();

before(async () => {
  const memory = new MemoryBackend();
  await initBackend(memory, { password: PASSWORD });
  files = new Map(memory.files);
});

function copyOfStore(): MemoryBackend {
  const memory = new MemoryBackend();
  for (const [name, bytes] of files) memory.files.set(name, bytes);
  return memory;
}

async function openedBy(memory: MemoryBackend, password: Password): Promise<OpenStore> {
  return new OpenStore(await openBackend(memory, { password }));
}

describe('the id of a store', () => {
  const hostile = ['..', '../../victim', '/tmp', 'a/b', '', 'AA'.repeat(16), `${'00'.repeat(16)}\n`];

  test('an id that is no plain name counts as damage, in a config and in a key file', () => {
    const [, key = new Uint8Array(0)] = [...files].find(([name]) => name.startsWith('keys/')) ?? [];
    for (const id of hostile) {
      const config = encodeConfig(newConfig({ id }), PLAIN_SEALER);
      assert.throws(() => parseConfig(config, 'store'), { code: 'STORE_DAMAGED' }, id);
      const text = JSON.stringify({ ...(JSON.parse(Buffer.from(key).toString()) as object), store: id });
      assert.throws(() => decodeKeyFile(Buffer.from(text), 'keys/1'), { code: 'STORE_DAMAGED' }, id);
    }
  });

  test('an id that is no plain name leads no cache out of its folder', (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'sqlsync-ids-'));
    const earlier = process.env['XDG_CACHE_HOME'];
    t.after(() => {
      if (earlier === undefined) delete process.env['XDG_CACHE_HOME'];
      else process.env['XDG_CACHE_HOME'] = earlier;
      rmSync(folder, { recursive: true });
    });
    process.env['XDG_CACHE_HOME'] = folder;
    for (const id of hostile.slice(0, 5))
      assert.deepEqual(
        [KeptFiles.of(id), HashCache.elsewhere(id), ParentMemory.of(id, 'place')],
        [undefined, undefined, undefined],
        id,
      );
    assert.equal(existsSync(join(folder, 'sqlsync')), false);
    assert.ok(KeptFiles.of('00'.repeat(16)));
  });
});

describe('the key that opened a store last', () => {
  test('the key file that is known opens the store without a list, and another one after a list', async () => {
    const memory = copyOfStore();
    const { key = '', store = '' } = (await openBackend(memory, { password: PASSWORD })).unlocked ?? {};
    memory.list = () => assert.fail('a list');
    assert.equal((await unlock(memory, [store], PASSWORD, key)).key, key);
    const again = copyOfStore();
    assert.equal((await unlock(again, [store], PASSWORD, '00'.repeat(32))).key, key);
    again.files.set(`keys/${key}`, Buffer.from('changed'));
    await assert.rejects(unlock(again, [store], PASSWORD, key), { code: 'STORE_DAMAGED' });
  });

  test('the right password for a key file whose key was changed is damage, and not a wrong password', async () => {
    const memory = copyOfStore();
    const [name = '', bytes = new Uint8Array(0)] =
      [...files].find(([each]) => each.startsWith('keys/')) ?? [];
    const record = JSON.parse(Buffer.from(bytes).toString()) as object;
    const changed = Buffer.from(JSON.stringify({ ...record, wrapped: Buffer.alloc(48).toString('base64') }));
    memory.files.delete(name);
    memory.files.set(`keys/${toHex(idOf(changed))}`, changed);
    await assert.rejects(openBackend(memory, { password: PASSWORD }), {
      code: 'STORE_DAMAGED',
      message: /was changed since/,
    });
    await assert.rejects(openBackend(memory, { password: SECOND }), { code: 'STORE_PASSWORD' });
  });
});

describe('the signal that ends a run', () => {
  test('ends the search for the key between two key files, and before the password is asked for', async () => {
    const memory = copyOfStore();
    await (await openedBy(memory, PASSWORD)).addKey(SECOND);
    const controller = new AbortController();
    let asked = 0;
    const password = new Password(() => {
      asked++;
      controller.abort();
      return 'of no key';
    });
    const { signal } = controller;
    await assert.rejects(openBackend(memory, { password, signal }), { code: 'INTERRUPTED' });
    assert.equal(asked, 1);
    const unasked = new Password(() => assert.fail('the password is asked for'));
    await assert.rejects(openBackend(memory, { password: unasked, signal }), { code: 'INTERRUPTED' });
    const again = new MemoryBackend();
    await assert.rejects(initBackend(again, { password: unasked, signal }), { code: 'INTERRUPTED' });
    assert.deepEqual([...again.files.keys()], []);
  });

  test('reaches the function that gets the password', async () => {
    const { signal } = new AbortController();
    let got: AbortSignal | undefined;
    const password = new Password((given) => {
      got = given;
      return 'correct horse';
    });
    await openBackend(copyOfStore(), { password, signal });
    assert.equal(got, signal);
  });
});

test('a cost of scrypt that no reader would accept is refused when a key is made', async () => {
  const usual = process.env['SQLSYNC_SCRYPT_N'];
  for (const N of ['1', '16384', '100000', '2097152', 'x', '-32768']) {
    process.env['SQLSYNC_SCRYPT_N'] = N;
    await assert
      .rejects(initBackend(new MemoryBackend(), { password: PASSWORD }), {
        code: 'USAGE',
        message: /SQLSYNC_SCRYPT_N/,
      })
      .finally(() => (process.env['SQLSYNC_SCRYPT_N'] = usual));
  }
});

test('an encrypted store is not begun where there is another store', async () => {
  const memory = new MemoryBackend();
  await initBackend(memory);
  await assert.rejects(initBackend(memory, { password: PASSWORD }), { code: 'STORE_EXISTS' });
  assert.deepEqual([...memory.files.keys()], ['config']);
});

test('the library shows no password in an error', () => {
  for (const password of ['hunter2\0', ['hunter2'], 42])
    assert.throws(
      () => backupTaskOptions({ origin: 'a.db', store: 'store', password: password as string }),
      ({ code, message }: NodeJS.ErrnoException) =>
        code === 'USAGE' && message.includes('password') && !/hunter2|42/.test(message),
    );
});

describe('runs that change keys at the same time', () => {
  test('a key is not removed by a run whose own key is gone', async () => {
    const memory = copyOfStore();
    const [one, two] = [await openedBy(memory, PASSWORD), await openedBy(memory, PASSWORD)];
    const key = await one.changePassword(SECOND);
    await assert.rejects(two.removeKey(key), { code: 'STORE_FILE_MISSING' });
    await openedBy(memory, SECOND);
  });

  test('two runs that each remove the key of the other leave one that opens, in every order', async () => {
    const both = copyOfStore();
    await (await openedBy(both, PASSWORD)).addKey(SECOND);
    for (let order = 0; order < 64; order++) {
      const memory = new MemoryBackend();
      for (const [name, bytes] of both.files) memory.files.set(name, bytes);
      const waiting: (() => void)[][] = [[], []];
      const stores: OpenStore[] = [];
      for (const [run, password] of [PASSWORD, SECOND].entries()) {
        const access = await openBackend(memory, { password });
        const gate = (): Promise<void> => new Promise((resolve) => waiting[run]?.push(resolve));
        stores.push(new OpenStore({ ...access, backend: gated(memory, gate) }));
      }
      const own = (await listKeys(memory, await unlock(memory, undefined, PASSWORD))).keys;
      const runs = stores.map((store, run) =>
        store.removeKey(own.find(({ isCurrent }) => isCurrent === (run === 1))?.id ?? ''),
      );
      const ended = Promise.allSettled(runs);
      // Each bit says which run makes its next operation.
      for (let step = 0; step < 24; step++) {
        await new Promise((resolve) => setImmediate(resolve));
        const first = step < 6 ? (order >> step) & 1 : step & 1;
        (waiting[first]?.shift() ?? waiting[1 - first]?.shift())?.();
      }
      await ended;
      const opens = await Promise.allSettled([openedBy(memory, PASSWORD), openedBy(memory, SECOND)]);
      assert.ok(
        opens.some(({ status }) => status === 'fulfilled'),
        `order ${order}`,
      );
    }
  });
});

/** The same files; each operation waits for `gate`. */
function gated(memory: MemoryBackend, gate: () => Promise<void>): MemoryBackend {
  return new Proxy(memory, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name);
      if (typeof value !== 'function') return value;
      return async (...args: unknown[]) => {
        await gate();
        return Reflect.apply(value, target, args) as unknown;
      };
    },
  });
}
