import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { SqlsyncError } from '../../src/errors.ts';
import { encodeChecked } from '../../src/backup/files/checked-json.ts';
import { isForgotten } from '../../src/backup/files/forgotten-notes.ts';
import { lookForSnapshot } from '../../src/backup/files/recall.ts';
import { Password } from '../../src/backup/keys/password.ts';
import { initBackend, openBackend } from '../../src/backup/open-store.ts';
import { decodeIndex } from '../../src/backup/packs/index-file.ts';
import type { IndexedPack } from '../../src/backup/packs/index-file.ts';
import { idOf, toHex } from '../../src/backup/packs/object-id.ts';
import { openOrRepairConfig } from '../../src/backup/repair/repair-config.ts';
import { AesGcmSealer } from '../../src/backup/sealed/aes-gcm.ts';
import { OpenStore } from '../../src/backup/store.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { FaultyBackend } from './faulty-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, restoreHere, storeHere } from './store-here.ts';

process.env['SQLSYNC_SCRYPT_N'] = String(2 ** 15);

/** Computed once for each key file, however often a test opens the store. */
const PASSWORD = new Password('correct horse');
const GRACE_SECONDS = 4711;

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-encrypted-'));
const origin = join(folder, 'origin.db');
const images = new Map<string, Buffer>();
let snapshots: StoreSnapshot[] = [];
/** An encrypted store with a chain of snapshots, a forgotten one and a mark. */
let files: ReadonlyMap<string, Uint8Array> = new Map();

before(async () => {
  const memory = new MemoryBackend();
  const here = await storeHere(memory, folder, GRACE_SECONDS, PASSWORD);
  smallDatabase(origin, { rows: 60, pageSize: 512 });
  for (let day = 0; day < 3; day++) {
    change(origin, `UPDATE item SET amount = amount + ${day + 1} WHERE id % 3 = ${day}`);
    const snapshot = await backupHere(here, origin);
    images.set(snapshot.id, readFileSync(origin));
  }
  const [first] = await here.store.snapshots();
  await here.store.forget([first?.id ?? '']);
  snapshots = await here.store.snapshots();
  const sealer = here.access.sealer;
  const mark = sealer.seal(
    { kind: 'mark' },
    Buffer.from(JSON.stringify({ version: 1, time: new Date().toISOString(), packs: [] })),
  );
  await memory.put(`marks/${toHex(idOf(mark))}`, [mark]);
  files = new Map(memory.files);
});
after(() => rmSync(folder, { recursive: true, force: true }));

describe('an encrypted store', () => {
  test('every snapshot of an encrypted store restores to its exact bytes', async () => {
    const access = await openBackend(storeWith(), { password: PASSWORD });
    await assertStored({ access }, snapshots, images);
    const target = join(folder, 'target.db');
    const { cache } = await storeHere(new MemoryBackend(), folder);
    const [last] = snapshots.slice(-1);
    await restoreHere({ access, store: new OpenStore(access), cache }, last as StoreSnapshot, target);
    assert.deepEqual(readFileSync(target), images.get(last?.id ?? ''));
  });

  test('a snapshot of an encrypted store whose index is large restores to its exact bytes', async () => {
    const large = join(folder, 'large.db');
    smallDatabase(large, { rows: 5000, pageSize: 512 });
    const memory = new MemoryBackend();
    const here = await storeHere(memory, join(folder, 'large'), undefined, PASSWORD);
    const snapshot = await backupHere(here, large);
    // The memory of the body of an index is freed if it is not from Node.js's pool, which lends up to half its size.
    const index = [...memory.files].find(([name]) => name.startsWith('indexes/'));
    assert.ok((index?.[1].length ?? 0) > Buffer.poolSize);
    const access = await openBackend(memory, { password: PASSWORD });
    await assertStored({ access }, [snapshot], new Map([[snapshot.id, readFileSync(large)]]));
  });

  test('no file of an encrypted store holds a part of the database, a name or an id in the clear', () => {
    const image = [...images.values()].at(-1) as Buffer;
    for (const [name, bytes] of files) {
      const file = Buffer.from(bytes);
      for (let at = 0; at + 64 <= image.length; at += 512) {
        const part = image.subarray(at, at + 64);
        if (new Set(part).size > 8) assert.ok(!file.includes(part), `${name} has page bytes at ${at}`);
      }
      for (const text of ['origin.db', 'correct horse', 'SQLite format'])
        assert.ok(!file.includes(text), `${name} has ${text}`);
      for (const { root = '' } of snapshots)
        assert.ok(!file.includes(Buffer.from(root, 'hex')), `${name} has an id`);
    }
  });

  test('an encrypted store does not open without its password, or with another one', async () => {
    await assert.rejects(openBackend(storeWith()), {
      code: 'STORE_PASSWORD',
      message: /expected its password/,
    });
    await assert.rejects(openBackend(storeWith(), { password: 'correct horsf' }), { code: 'STORE_PASSWORD' });
  });

  test('a password given for a store that is not encrypted is an error', async () => {
    const memory = new MemoryBackend();
    await initBackend(memory);
    await assert.rejects(openBackend(memory, { password: PASSWORD }), {
      code: 'STORE_PASSWORD',
      message: /NOT encrypted/,
    });
    await openBackend(memory, { password: PASSWORD.unlessNeeded() });
  });

  test('of two inits at once one makes the store, and only its password opens it', async () => {
    const memory = new MemoryBackend();
    const passwords = ['one', 'two'];
    const made = await Promise.allSettled(passwords.map((password) => initBackend(memory, { password })));
    const winner = made.findIndex(({ status }) => status === 'fulfilled');
    assert.equal(made.filter(({ status }) => status === 'fulfilled').length, 1);
    await openBackend(memory, { password: passwords[winner] });
    await assert.rejects(openBackend(memory, { password: passwords[1 - winner] }), {
      code: 'STORE_PASSWORD',
    });
    assert.equal([...memory.files.keys()].filter((name) => name.startsWith('keys/')).length, 1);
  });

  test('what a killed init leaves neither opens as a store nor is overwritten by a plain one', async () => {
    const memory = new MemoryBackend();
    const killed = new FaultyBackend(memory, (_, operation, name) =>
      operation === 'put' && name === 'config' ? 'before' : 'none',
    );
    await assert.rejects(initBackend(killed, { password: 'one' }), { code: 'STORE_UNAVAILABLE' });
    await assert.rejects(openBackend(memory, { password: 'one' }), { code: 'STORE_NOT_FOUND' });
    await assert.rejects(initBackend(memory), {
      code: 'STORE_EXISTS',
      message: /keys of an encrypted store/,
    });
    const { configWritten } = await openOrRepairConfig(memory, { dryRun: false, password: 'one' });
    assert.equal(configWritten, true);
    await openBackend(memory, { password: 'one' });
  });

  test('a key of a store that never was does not hide the others', async () => {
    const other = new MemoryBackend();
    await initBackend(other, { password: PASSWORD });
    const stray = [...other.files.keys()].find((name) => name.startsWith('keys/')) ?? '';
    const memory = storeWith([stray, other.files.get(stray)]);
    const access = await openBackend(memory, { password: PASSWORD });
    assert.equal((await new OpenStore(access).keys()).length, 1);
  });
});

describe('a changed encrypted store', () => {
  for (const folderName of ['config', 'keys', 'snapshots', 'indexes', 'marks', 'forgotten']) {
    test(`each changed byte of each file in ${folderName} is found`, async () => {
      for (const [name, bytes] of files) {
        if (name.split('/')[0] !== folderName) continue;
        const step = bytes.length > 2000 ? 97 : 7;
        for (let at = 0; at < bytes.length; at += step)
          await assertFound(name, flipped(bytes, at), `${name} at ${at}`);
        await assertFound(name, bytes.subarray(0, -1), `${name} without its last byte`);
      }
    });
  }

  test('each changed byte of a pack is found, in its salt, lengths and frames', async () => {
    const name = [...files.keys()].find((each) => each.startsWith('packs/')) ?? '';
    const bytes = files.get(name) as Uint8Array;
    for (let at = 0; at < bytes.length; at += Math.ceil(bytes.length / 40))
      await assertFound(name, flipped(bytes, at), `${name} at ${at}`);
    for (const at of [0, 8, 39, 40, 59, 60]) await assertFound(name, flipped(bytes, at), `${name} at ${at}`);
  });

  test('a pack without its last frames, or with frames in another order, is found', async () => {
    const { sealer } = await openBackend(storeWith(), { password: PASSWORD });
    const [file, index] = [...files].find(([name]) => name.startsWith('indexes/')) as [string, Uint8Array];
    const packs = decodeIndex(sealer.open({ kind: 'index', file }, index), file, true);
    const { id, frames } = packs.find((pack) => pack.frames.length > 1) as IndexedPack;
    const name = `packs/${toHex(id)}`;
    const bytes = Buffer.from(files.get(name) as Uint8Array);
    const [starts, ends] = [
      frames.map(({ offset }) => offset - 20),
      frames.map(({ offset, length }) => offset + length),
    ];
    const pieces = starts.map((start, i) => bytes.subarray(start, ends[i]));
    const head = bytes.subarray(0, starts[0]);
    assert.deepEqual(Buffer.concat([head, ...pieces]), bytes);
    await assertFound(name, Buffer.concat([head, ...pieces.slice(0, -1)]), 'cut');
    const reversed = Buffer.concat([head, ...pieces.toReversed()]);
    await assertFound(name, reversed, 'reversed');
    // Under a name that fits, no frame of it opens, so a repair makes nothing of it.
    const memory = storeWith([name, undefined], [file, undefined]);
    memory.files.set(`packs/${toHex(idOf(reversed))}`, reversed);
    const store = new OpenStore(await openBackend(memory, { password: PASSWORD }));
    const { lost } = await store.repair({ readData: true });
    assert.ok(lost.length > 0, 'objects of exchanged frames were taken');
  });

  test('a changed file is found although it is named by its new hash', async () => {
    for (const folderName of ['snapshots', 'indexes', 'marks']) {
      const name = [...files.keys()].find((each) => each.startsWith(`${folderName}/`)) ?? '';
      const bytes = files.get(name) as Uint8Array;
      for (let at = 0; at < bytes.length; at += Math.ceil(bytes.length / 60)) {
        const changed = flipped(bytes, at);
        const renamed = `${folderName}/${toHex(idOf(changed))}`;
        await assertNamed(storeWith([renamed, changed]), renamed);
      }
    }
  });

  test('a file does not pass for one of another kind, or for another note', async () => {
    const sample = (kind: string): [string, Uint8Array] =>
      [...files].find(([name]) => name.startsWith(`${kind}/`)) as [string, Uint8Array];
    const folders = ['snapshots', 'indexes', 'marks'];
    for (const from of folders)
      for (const to of folders) {
        if (from === to) continue;
        const [name, bytes] = sample(from);
        const moved = `${to}/${name.split('/')[1]}`;
        await assertNamed(storeWith([moved, bytes]), moved);
      }
    const [, note] = sample('forgotten');
    const other = `forgotten/${snapshots[0]?.id}`;
    await assertNamed(storeWith([other, note]), other);
  });

  test('a note that the key did not make takes no snapshot away, and repair removes it', async () => {
    const [id = ''] = snapshots.map((snapshot) => snapshot.id);
    const [, note] = [...files].find(([name]) => name.startsWith('forgotten/')) as [string, Uint8Array];
    for (const junk of [note, encodeChecked({ version: 1, time: '' }), new Uint8Array(0)]) {
      const memory = storeWith([`forgotten/${id}`, junk]);
      const store = new OpenStore(await openBackend(memory, { password: PASSWORD }));
      assert.deepEqual(
        (await store.snapshots()).map((each) => each.id),
        snapshots.map((each) => each.id),
      );
      await store.prune({ graceSeconds: 0 });
      await store.repair();
      assert.equal(memory.files.has(`forgotten/${id}`), false);
      await assertStored({ access: await openBackend(memory, { password: PASSWORD }) }, snapshots, images);
      await store.forget([id]);
      assert.deepEqual(await store.snapshots().then((all) => all.length), snapshots.length - 1);
    }
  });

  test('a note that the key did not make does not become true by a backup, and a true one takes its place', async () => {
    const [id = ''] = snapshots.map((snapshot) => snapshot.id);
    const note = `forgotten/${id}`;
    const memory = storeWith([note, Buffer.from('junk')]);
    const access = await openBackend(memory, { password: PASSWORD });
    assert.equal(await lookForSnapshot(access, id), 'there');
    await new OpenStore(access).forget([id]);
    assert.equal(await lookForSnapshot(access, id), 'gone');
    assert.equal(await isForgotten(access, id), true);
    assert.deepEqual((await new OpenStore(access).check()).problems, []);
  });

  test('a snapshot that is gone counts as forgotten only if the key made the note, and repair makes no such note', async () => {
    const [gone = ''] = snapshots.map(({ id }) => id);
    const note = `forgotten/${gone}`;
    const memory = storeWith(
      [`snapshots/${gone}`, undefined],
      [note, encodeChecked({ version: 1, time: '' })],
    );
    const store = new OpenStore(await openBackend(memory, { password: PASSWORD }));
    const { problems } = await store.check();
    assert.deepEqual(problems.map(({ file }) => file).toSorted(), [note, `snapshots/${gone}`]);
    assert.deepEqual(
      (await store.repair()).lost.map(({ id }) => id),
      [gone],
    );
    assert.equal(memory.files.has(note), false);
    assert.deepEqual((await store.repair({ forget: true })).forgotten, [gone]);
    assert.deepEqual((await store.check()).problems, []);
  });

  test('a file of another store is found, also where the passwords are the same', async () => {
    const other = new MemoryBackend();
    const here = await storeHere(other, join(folder, 'other'), 1, PASSWORD);
    await backupHere(here, origin);
    for (const kind of ['snapshots', 'indexes']) {
      const [name, bytes] = [...other.files].find(([each]) => each.startsWith(`${kind}/`)) as [
        string,
        Uint8Array,
      ];
      await assertNamed(storeWith([name, bytes]), name);
    }
    const keys = [...other.files].filter(([name]) => name.startsWith('keys/'));
    const exchanged = storeWith(['config', other.files.get('config')], ...keys);
    const store = new OpenStore(await openBackend(exchanged, { password: PASSWORD }));
    assert.deepEqual(await store.snapshots(), []);
  });

  test('nothing sealed for one store, kind or name opens as another, nor at another offset', () => {
    const master = Buffer.alloc(32, 1);
    const ours = new AesGcmSealer(master, 'aa');
    const sealed = ours.seal({ kind: 'forgotten', name: '1' }, Buffer.from('note'));
    const file = 'forgotten/1';
    assert.equal(Buffer.from(ours.open({ kind: 'forgotten', name: '1', file }, sealed)).toString(), 'note');
    for (const [sealer, what] of [
      [ours, { kind: 'mark', name: '1', file }],
      [ours, { kind: 'forgotten', name: '2', file }],
      [new AesGcmSealer(master, 'bb'), { kind: 'forgotten', name: '1', file }],
      [new AesGcmSealer(Buffer.alloc(32, 2), 'aa'), { kind: 'forgotten', name: '1', file }],
    ] as const)
      assert.throws(() => sealer.open(what, sealed), { code: 'STORE_DAMAGED' });
    const pack = ours.newPack();
    const { frame } = pack.seal(100, Buffer.from('frame'));
    assert.equal(Buffer.from(pack.open(120, frame, 'packs/1')).toString(), 'frame');
    for (const other of [pack, ours.newPack()])
      assert.throws(() => other.open(other === pack ? 121 : 120, frame, 'packs/1'), {
        code: 'STORE_DAMAGED',
      });
  });

  test('a grace period that stands in the clear is not obeyed', async () => {
    const { sha256: _, ...config } = JSON.parse(Buffer.from(files.get('config') as Uint8Array).toString());
    for (const fields of [{ graceSeconds: 0 }, { id: '00'.repeat(16) }, { time: '' }]) {
      const memory = storeWith(['config', encodeChecked({ ...config, ...fields })]);
      await assert.rejects(openBackend(memory, { password: PASSWORD }), { code: 'STORE_DAMAGED' });
    }
    const { config: read } = await openBackend(storeWith(), { password: PASSWORD });
    assert.equal(read.graceSeconds, GRACE_SECONDS);
  });
});

describe('hostile key files', () => {
  test('scrypt parameters out of bounds are refused before anything is computed', async () => {
    const never = new Password('never');
    never.derive = () => assert.fail('scrypt was computed');
    const [name, bytes] = keyFile();
    const key = JSON.parse(Buffer.from(bytes).toString()) as { scrypt: object };
    for (const hostile of [
      { N: 2 ** 21 },
      { N: 2 ** 40 },
      { N: 2 ** 14 },
      { N: 2 ** 17 + 1 },
      { N: '131072' },
      { N: -(2 ** 17) },
      { N: null },
      { r: 9 },
      { r: 2 ** 20 },
      { p: 5 },
      { p: 0 },
      { p: 1.5 },
      { salt: '' },
      { salt: 'A'.repeat(2000) },
    ]) {
      const changed = Buffer.from(JSON.stringify({ ...key, scrypt: { ...key.scrypt, ...hostile } }));
      const memory = storeWith([name, undefined], [`keys/${toHex(idOf(changed))}`, changed]);
      await assert.rejects(
        openBackend(memory, { password: never }),
        { code: 'STORE_DAMAGED' },
        JSON.stringify(hostile),
      );
    }
  });

  test('of more than 20 key files the oldest are tried, and one that is too long is refused', async () => {
    const [name, bytes] = keyFile();
    const memory = storeWith();
    memory.modified.set(name, new Date(0));
    for (let i = 1; i <= 25; i++) {
      const junk = Buffer.from('junk'.repeat(i));
      await memory.put(`keys/${toHex(idOf(junk))}`, [junk]);
    }
    assert.equal(
      (await openBackend(memory, { password: PASSWORD })).unlocked?.key,
      name.slice('keys/'.length),
    );
    await assert.rejects(openBackend(memory, { password: 'wrong' }), {
      code: 'STORE_DAMAGED',
      message: /not that of the key .*26 key files/,
    });
    const never = new Password('never');
    never.derive = () => assert.fail('scrypt was computed');
    const long = Buffer.concat([bytes, Buffer.alloc(20_000, ' ')]);
    const other = storeWith([name, undefined], [`keys/${toHex(idOf(long))}`, long]);
    await assert.rejects(openBackend(other, { password: never }), { code: 'STORE_DAMAGED' });
  });

  test('a damaged key file does not keep another from opening the store', async () => {
    const memory = storeWith();
    await new OpenStore(await openBackend(memory, { password: PASSWORD })).addKey('second');
    const [name, bytes] = keyFile();
    memory.files.set(name, flipped(bytes, 100));
    const access = await openBackend(memory, { password: 'second' });
    const warnings: string[] = [];
    const keys = await new OpenStore(access).keys({ onWarning: (warning) => warnings.push(warning) });
    assert.deepEqual([keys.length, warnings.length], [1, 1]);
    await assert.rejects(openBackend(memory, { password: PASSWORD }), { message: /was changed or cut/ });
  });
});

describe('the keys of a store', () => {
  test('a store opens with each of its passwords until its key is removed, and keeps the last key', async () => {
    const memory = storeWith();
    const store = new OpenStore(await openBackend(memory, { password: PASSWORD }));
    const second = await store.addKey('second');
    const [first, other] = await store.keys();
    assert.deepEqual([first?.isCurrent, other?.isCurrent, other?.id], [true, false, second]);
    const again = new OpenStore(await openBackend(memory, { password: 'second' }));
    await assert.rejects(again.removeKey(second.slice(0, 8)), {
      code: 'USAGE',
      message: /password that was given/,
    });
    await again.removeKey((first?.id ?? '').slice(0, 8));
    await assert.rejects(openBackend(memory, { password: PASSWORD }), { code: 'STORE_PASSWORD' });
    await assert.rejects(again.removeKey(second), { code: 'USAGE' });
    await assert.rejects(again.removeKey('00'), { code: 'USAGE' });
    const access = await openBackend(memory, { password: 'second' });
    await assertStored({ access }, snapshots, images);
  });

  test('a store has at most 20 keys', async () => {
    const memory = storeWith();
    const store = new OpenStore(await openBackend(memory, { password: PASSWORD }));
    const [, bytes] = keyFile();
    for (let i = 1; i < 20; i++) {
      const copy = Buffer.concat([bytes, Buffer.alloc(i, ' ')]);
      memory.files.set(`keys/${toHex(idOf(copy))}`, copy);
    }
    await assert.rejects(store.addKey('one more'), { code: 'USAGE', message: /20 key files/ });
    await store.changePassword('another');
    assert.equal([...memory.files.keys()].filter((name) => name.startsWith('keys/')).length, 20);
    await openBackend(memory, { password: 'another' });
  });

  test('a password that is changed under a fault at any operation opens the store, or the old one does', async () => {
    for (let fails = 1, isDone = false; !isDone; fails++) {
      for (const fault of ['before', 'after'] as const) {
        const memory = storeWith();
        const backend = new FaultyBackend(memory, (number) => (number >= fails ? fault : 'none'));
        const access = { ...(await openBackend(memory, { password: PASSWORD })), backend };
        const next = new Password('next');
        isDone = await new OpenStore(access).changePassword(next).then(
          () => true,
          () => false,
        );
        const opens = await Promise.allSettled(
          [PASSWORD, next].map((password) => openBackend(memory, { password })),
        );
        assert.ok(
          opens.some(({ status }) => status === 'fulfilled'),
          `${fault} ${fails}`,
        );
        if (isDone) assert.equal(opens[1]?.status, 'fulfilled');
      }
    }
  });
});

describe('the config of an encrypted store', () => {
  test('repair writes a lost or damaged config anew, with the same id and grace period', async () => {
    const { config } = await openBackend(storeWith(), { password: PASSWORD });
    for (const bytes of [undefined, Buffer.from('{'), flipped(files.get('config') as Uint8Array, 300)]) {
      const memory = storeWith(['config', bytes]);
      const { configWritten } = await openOrRepairConfig(memory, { dryRun: false, password: PASSWORD });
      assert.equal(configWritten, true);
      const access = await openBackend(memory, { password: PASSWORD });
      assert.deepEqual({ ...access.config, time: '' }, { ...config, time: '' });
      await assertStored({ access }, snapshots, images);
    }
  });

  test('repair writes no config without encryption for an encrypted store', async () => {
    for (const [what, password, code, changes] of [
      ['without the password', undefined, 'STORE_PASSWORD', []],
      ['with a wrong password', 'wrong', 'STORE_PASSWORD', []],
      ['without its keys', PASSWORD, 'STORE_NOT_FOUND', [[keyFile()[0], undefined]]],
    ] as const) {
      const memory = storeWith(['config', undefined], ...changes);
      await assert.rejects(openOrRepairConfig(memory, { dryRun: false, password }), { code }, what);
      assert.equal(memory.files.has('config'), false, what);
    }
  });

  test('repair writes no config without encryption beside a record that only a key could open', async () => {
    const plain = new MemoryBackend();
    const here = await storeHere(plain, join(folder, 'plain'));
    await backupHere(here, origin);
    const sealed = [...files].find(([name]) => name.startsWith('snapshots/')) as [string, Uint8Array];
    const config = (files.get('config') as Uint8Array).subarray(0, -20);
    for (const [more, left] of [
      [sealed, undefined],
      [undefined, config],
    ] as const) {
      const memory = new MemoryBackend();
      for (const [name, bytes] of plain.files) if (name !== 'config') memory.files.set(name, bytes);
      if (more !== undefined) memory.files.set(...more);
      if (left !== undefined) memory.files.set('config', left);
      await assert.rejects(openOrRepairConfig(memory, { dryRun: false }), SqlsyncError);
      assert.equal(memory.files.get('config'), left);
    }
  });
});

/** The store with these files changed or, without bytes, missing. */
function storeWith(...changes: readonly (readonly [string, Uint8Array | undefined])[]): MemoryBackend {
  const memory = new MemoryBackend();
  for (const [name, bytes] of new Map<string, Uint8Array | undefined>([...files, ...changes]))
    if (bytes !== undefined) memory.files.set(name, bytes);
  return memory;
}

function keyFile(): [string, Uint8Array] {
  return [...files].find(([name]) => name.startsWith('keys/')) as [string, Uint8Array];
}

function flipped(bytes: Uint8Array, at: number): Uint8Array {
  const changed = Uint8Array.from(bytes);
  changed[at] = (changed[at] as number) ^ 0x20;
  return changed;
}

/** A file with these bytes keeps the store from being opened, or `check` names it. */
async function assertFound(name: string, bytes: Uint8Array, what: string): Promise<void> {
  const memory = storeWith([name, bytes]);
  if (name !== 'config' && !name.startsWith('keys/')) return assertNamed(memory, name, what);
  await assert.rejects(openBackend(memory, { password: PASSWORD }), { code: 'STORE_DAMAGED' }, what);
}

async function assertNamed(memory: MemoryBackend, name: string, what = name): Promise<void> {
  const store = new OpenStore(await openBackend(memory, { password: PASSWORD }));
  const { problems } = await store.check({ readData: name.startsWith('packs/') });
  assert.ok(
    problems.some(({ file }) => file === name),
    `${what}: ${JSON.stringify(problems)}`,
  );
}
