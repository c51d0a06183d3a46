import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { message } from '../../protocol/encode.ts';
import { MAX_FILE_PART_BYTES } from '../../protocol/limits.ts';
import type { Message } from '../../protocol/messages.ts';
import { IncomingFile } from '../../src/backup/backends/agent/incoming-file.ts';
import { STORE_FOLDERS } from '../../src/backup/backends/backend.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import type { RestrictionOptions } from '../../src/sync/request/restriction.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import { folderState } from '../cli/command.ts';
import { tempDir } from '../support/compare.ts';
import { agentFiles, storeAgent } from '../support/store-agent.ts';

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

const SECRET = Buffer.from('a secret outside');

interface Prison {
  /** The folder that the key is restricted to, with `store` in it. */
  readonly folder: string;
  readonly outside: string;
  /** Every file of the store. */
  readonly files: readonly string[];
  readonly pack: string;
  /** What is in both folders now. */
  readonly state: () => unknown;
}

/** A folder with a store that has a file of each kind, and what lies around it. */
function prison(t: TestContext): Prison {
  const base = tempDir(t);
  const [folder, outside] = [join(base, 'folder'), join(base, 'outside')];
  for (const each of [outside, ...STORE_FOLDERS.map((name) => join(folder, 'store', name))])
    mkdirSync(each, { recursive: true });
  writeFileSync(join(folder, 'store', 'config'), '{"id":"0a"}');
  const files = STORE_FOLDERS.map((name) => {
    const bytes = Buffer.from(`a file in ${name}`);
    const file = `${name}/${name === 'steps' ? '00-0-' : ''}${sha256(bytes)}`;
    writeFileSync(join(folder, 'store', file), bytes);
    return file;
  });
  // A put of somebody else, which is under way.
  writeFileSync(join(folder, 'store', 'packs', '.tmp-0123'), 'half');
  writeFileSync(join(folder, 'beside'), SECRET);
  writeFileSync(join(outside, 'secret'), SECRET);
  const [pack = ''] = files;
  return { folder, outside, files, pack, state: () => [folder, outside].map(folderState) };
}

const ADD = (folder: string, create = false): RestrictionOptions => ({ folder, access: 'add', create });

const connections: Connection[] = [];
after(() => connections.forEach(({ transport }) => transport.terminate()));

/** Sends what it likes with a key of this restriction. */
class Attacker {
  readonly connection: Connection;
  readonly ended: Promise<unknown>;

  constructor(restriction: RestrictionOptions) {
    const { near, ended } = storeAgent(restriction);
    this.connection = new Connection(near, 'openingStore', { idleTimeoutMs: 0 });
    this.ended = ended;
    connections.push(this.connection);
  }

  static async in(folder: string): Promise<Attacker> {
    const attacker = new Attacker(ADD(folder));
    await attacker.open('store');
    return attacker;
  }

  async open(path: string): Promise<void> {
    this.connection.send(message('openStore', { path, idleTimeoutMs: 0, maxTimeMs: 0 }));
    await this.connection.receiveOnly('storeOpened');
    this.connection.expect('usingStore');
  }

  async ask(...said: Message[]): Promise<Message> {
    for (const each of said) this.connection.send(each);
    return this.connection.receive();
  }

  put(name: string, bytes: Uint8Array, replace = false): Promise<Message> {
    return this.ask(
      message('putFile', { id: 1, name, replace }),
      message('filePart', { id: 1, isLast: false, data: bytes.subarray(0, 3) }),
      message('filePart', { id: 1, isLast: true, data: bytes.subarray(3) }),
    );
  }

  /** Ends it, and waits until the agent has ended, too. */
  async leave(): Promise<void> {
    this.connection.send(message('close', {}));
    this.connection.end();
    assert.equal(await this.ended, undefined);
  }
}

function assertRefused(answer: Message, what: string): void {
  assert.equal(answer.type, 'fileFailed', what);
  const { systemCode, isMissing } = answer;
  assert.deepEqual({ systemCode, isMissing }, { systemCode: 'EACCES', isMissing: false }, what);
}

/** Names that a store has no file of. */
const NAMES = [
  '',
  '.',
  '..',
  '/',
  'CONFIG',
  'config/',
  'config/x',
  './config',
  '../beside',
  '../../outside/secret',
  'packs',
  'packs/',
  'packs/.',
  'packs/..',
  'packs/../config',
  'packs/../../beside',
  'packs//etc/passwd',
  'packs/a/b',
  'packs/.tmp-0123',
  'packs/a\0b',
  'Packs/00',
  'cache/00',
  'store/config',
  '/etc/passwd',
  `packs/${'a'.repeat(300)}`,
  'packs/\ufeff/..',
];

describe('a key that may only add to a store', () => {
  test('nothing is deleted, nor what another program has under way', async (t) => {
    const { folder, files, state } = prison(t);
    const before = state();
    const attacker = await Attacker.in(folder);
    for (const name of ['config', ...files])
      assertRefused(await attacker.ask(message('deleteFile', { id: 1, name })), name);
    const all = message('removeLeftovers', { id: 1, olderThanMs: 0 });
    assertRefused(await attacker.ask(all), 'leftovers');
    await attacker.leave();
    assert.deepEqual(state(), before);
  });

  test('nothing is overwritten: neither by other bytes, nor by the same', async (t) => {
    const { folder, files, state } = prison(t);
    const before = state();
    const attacker = await Attacker.in(folder);
    const config = Buffer.from('{"id":"ff"}');
    assertRefused(await attacker.put('config', config, true), 'config');
    assert.deepEqual(await attacker.put('config', config), message('fileDone', { id: 1, created: false }));
    for (const name of files) {
      const own = readFileSync(join(folder, 'store', name));
      for (const bytes of [Buffer.from('other bytes'), Buffer.alloc(0), own.subarray(1)])
        assert.equal((await attacker.put(name, bytes)).type, 'fileFailed', name);
      assertRefused(await attacker.put(name, own, true), name);
      const again = await attacker.put(name, own);
      assert.ok(again.type === 'fileFailed' || (again.type === 'fileDone' && !again.created), name);
    }
    await attacker.leave();
    assert.deepEqual(state(), before);
  });

  test('nothing is added that takes other files away, or that is not what its name says', async (t) => {
    const { folder, state } = prison(t);
    const before = state();
    const attacker = await Attacker.in(folder);
    const bytes = Buffer.from('a new file');
    for (const name of ['marks', 'forgotten', 'keys'])
      assertRefused(await attacker.put(`${name}/${sha256(bytes)}`, bytes), name);
    for (const name of [
      `packs/${'0'.repeat(64)}`,
      `packs/00-${sha256(bytes)}`,
      `packs/${sha256(bytes).toUpperCase()}`,
      `packs/x${sha256(bytes)}`,
      `snapshots/${sha256(bytes).slice(1)}`,
      `steps/00${sha256(bytes)}`,
    ])
      assert.equal((await attacker.put(name, bytes)).type, 'fileFailed', name);
    await attacker.leave();
    assert.deepEqual(state(), before);
  });

  test('what is added has the hash of its bytes in its name, and can be read', async (t) => {
    const { folder } = prison(t);
    const attacker = await Attacker.in(folder);
    const bytes = Buffer.from('a new file');
    for (const name of [
      `packs/${sha256(bytes)}`,
      `indexes/${sha256(bytes)}`,
      `snapshots/${sha256(bytes)}`,
      `steps/0f-0-1-${sha256(bytes)}`,
    ]) {
      assert.deepEqual(await attacker.put(name, bytes), message('fileDone', { id: 1, created: true }), name);
      const get = message('getFile', { id: 2, name, offset: 2, length: 100 });
      const part = await attacker.ask(get);
      assert.deepEqual(part.type === 'filePart' && Buffer.from(part.data), bytes.subarray(2), name);
    }
    await attacker.leave();
  });

  test('no name leads out of the folders of the store', async (t) => {
    const { folder, state } = prison(t);
    const before = state();
    const attacker = await Attacker.in(folder);
    for (const name of NAMES) {
      for (const request of [
        message('getFile', { id: 1, name, offset: 0, length: 10 }),
        message('digestFile', { id: 1, name }),
        message('listFiles', { id: 1, folder: name === 'packs' ? 'packs/' : name }),
      ])
        assertRefused(await attacker.ask(request), `${request.type} ${JSON.stringify(name)}`);
      assertRefused(await attacker.put(name, SECRET), JSON.stringify(name));
    }
    await attacker.leave();
    assert.deepEqual(state(), before);
  });

  test('a link that leads out of the folder is not followed, whoever made it', async (t) => {
    const { folder, outside, state } = prison(t);
    const store = join(folder, 'store');
    symlinkSync(join(outside, 'secret'), join(store, 'packs', 'aa'));
    symlinkSync('../../beside', join(store, 'packs', 'bb'));
    symlinkSync(join(outside, 'nothing'), join(store, 'packs', 'cc'));
    symlinkSync(outside, join(folder, 'other'));
    const before = state();
    const attacker = await Attacker.in(folder);
    for (const name of ['packs/aa', 'packs/cc']) {
      assertRefused(await attacker.ask(message('digestFile', { id: 1, name })), name);
      assertRefused(await attacker.ask(message('getFile', { id: 1, name, offset: 0, length: 9 })), name);
      assertRefused(await attacker.put(name, SECRET), name);
    }
    await attacker.leave();
    for (const path of ['other', '../outside', outside, '..', '/', 'store/../../outside']) {
      const other = new Attacker(ADD(folder, true));
      await assert.rejects(other.open(path), { code: 'RESTRICTED' }, path);
    }
    assert.deepEqual(state(), before);
  });

  test('a folder of a store that is a link to another place is not followed', async (t) => {
    const { folder, outside, state } = prison(t);
    mkdirSync(join(folder, 'linked'));
    writeFileSync(join(folder, 'linked', 'config'), '{}');
    for (const name of STORE_FOLDERS) symlinkSync(outside, join(folder, 'linked', name));
    const before = state();
    const attacker = new Attacker(ADD(folder));
    await attacker.open('linked');
    for (const name of STORE_FOLDERS) {
      assertRefused(await attacker.ask(message('listFiles', { id: 1, folder: name })), name);
      assertRefused(await attacker.put(`${name}/${sha256(SECRET)}`, SECRET), name);
    }
    await attacker.leave();
    assert.deepEqual(state(), before);
  });

  test('no store is made where there is none, or within another one', async (t) => {
    const { folder, state } = prison(t);
    const before = state();
    for (const path of ['new', 'store/packs', '', '.'])
      await assert.rejects(new Attacker(ADD(folder)).open(path), { code: 'RESTRICTED' }, path);
    for (const path of ['store/packs', 'store/packs/deep/er', 'store/new'])
      await assert.rejects(new Attacker(ADD(folder, true)).open(path), { code: 'RESTRICTED' }, path);
    assert.deepEqual(state(), before);
    const maker = new Attacker(ADD(folder, true));
    await maker.open('new');
    const config = Buffer.from('{"id":"1"}');
    assert.deepEqual(await maker.put('config', config), message('fileDone', { id: 1, created: true }));
    assert.deepEqual(await maker.put('config', SECRET), message('fileDone', { id: 1, created: false }));
    await maker.leave();
    assert.ok(readFileSync(join(folder, 'new', 'config')).equals(config));
  });

  test('no replica is written with it, be it new or not', async (t) => {
    const { folder, state } = prison(t);
    const before = state();
    const files = agentFiles(t, 'store', { restriction: ADD(folder, true) });
    await files.list('packs');
    for (const path of ['new.db', 'beside', 'store/packs/00']) {
      const attacker = new Attacker(ADD(folder, true));
      attacker.connection.expect('offering');
      attacker.connection.send(replicate(path));
      await assert.rejects(attacker.connection.receive(), { code: 'RESTRICTED' }, path);
    }
    assert.deepEqual(state(), before);
  });

  test('a put that ends too early leaves nothing, and so does one with messages that are not due', async (t) => {
    const { folder, pack, state } = prison(t);
    const before = state();
    const data = Buffer.alloc(100_000);
    const begin = message('putFile', { id: 1, name: `packs/${sha256(data)}`, replace: false });
    for (const [says, ...more] of [
      [/before it was done/],
      [/deleteFile in state takingFile/, message('deleteFile', { id: 2, name: pack })],
      [/close in state takingFile/, message('close', {})],
      [/a part of a file that is not due/, message('filePart', { id: 2, isLast: true, data })],
      [
        /a part of a file that is not due/,
        message('filePart', { id: 1, isLast: true, data: new Uint8Array(MAX_FILE_PART_BYTES + 1) }),
      ],
    ] as const satisfies readonly (readonly [RegExp, ...Message[]])[]) {
      const attacker = await Attacker.in(folder);
      attacker.connection.send(begin);
      attacker.connection.send(message('filePart', { id: 1, isLast: false, data }));
      for (const each of more) attacker.connection.send(each);
      await attacker.connection.drained();
      if (more.length === 0) attacker.connection.transport.terminate();
      assert.match(String(await attacker.ended), says);
      assert.deepEqual(state(), before);
    }
    const attacker = await Attacker.in(folder);
    attacker.connection.send(message('filePart', { id: 1, isLast: true, data }));
    assert.match(String(await attacker.ended), /filePart in state servingStore/);
  });

  test('a file has an end', async (t) => {
    const [near, far] = memoryTransportPair();
    const [sender, receiver] = [near, far].map(
      (end) => new Connection(end, 'servingStore', { idleTimeoutMs: 0 }),
    ) as [Connection, Connection];
    t.after(() => [near, far].forEach((end) => end.terminate()));
    const data = new Uint8Array(1000);
    sender.send(message('listFiles', { id: 6, folder: 'packs' }));
    await receiver.receive();
    for (let i = 0; i < 11; i++) sender.send(message('filePart', { id: 7, isLast: false, data }));
    const incoming = new IncomingFile(receiver, 7, 10_000);
    let taken = 0;
    await assert.rejects(
      async () => {
        for await (const piece of incoming.pieces()) taken += piece.length;
      },
      { code: 'PROTOCOL' },
    );
    assert.equal(taken, 10_000);
    await assert.rejects(incoming.drop(), { code: 'PROTOCOL' });
  });
});

test('a key that may only read puts and deletes nothing, and one that may only write sees no store', async (t) => {
  const { folder, pack, files, state } = prison(t);
  const before = state();
  const reader = new Attacker({ folder, access: 'read', create: false });
  await reader.open('store');
  const bytes = Buffer.from('a new file');
  for (const name of ['config', `packs/${sha256(bytes)}`, ...files])
    assertRefused(await reader.put(name, bytes), name);
  assertRefused(await reader.put('config', bytes, true), 'config');
  assertRefused(await reader.ask(message('deleteFile', { id: 1, name: pack })), pack);
  assertRefused(await reader.ask(message('removeLeftovers', { id: 1, olderThanMs: 0 })), 'leftovers');
  const digest = await reader.ask(message('digestFile', { id: 1, name: pack }));
  assert.equal(digest.type, 'fileDigest');
  await reader.leave();
  const writer = new Attacker({ folder, access: 'write', create: true });
  await assert.rejects(writer.open('store'), { code: 'RESTRICTED' });
  assert.deepEqual(state(), before);
});

test('without a restriction a store is used as a folder here', async (t) => {
  const { folder, files, pack } = prison(t);
  const backend = agentFiles(t, join(folder, 'store'));
  await backend.delete(pack);
  await backend.replaceConfig([Buffer.from('{"id":"0a","more":1}')]);
  await backend.put('forgotten/00', [Buffer.from('not named by its hash')]);
  assert.equal(existsSync(join(folder, 'store', pack)), false);
  assert.deepEqual(readdirSync(join(folder, 'store', 'forgotten')).length, 2);
  assert.equal(files.length, STORE_FOLDERS.length);
});

function replicate(path: string): Message {
  return message('replicate', {
    path,
    originName: 'near.db',
    hash: 3,
    compression: 1,
    dryRun: false,
    overwrite: true,
    replace: true,
    followLinks: false,
    check: false,
    full: false,
    fullEveryMs: 0,
    restore: false,
    reader: 0,
    busyTimeoutMs: 1000,
    idleTimeoutMs: 0,
    maxTimeMs: 0,
    stage: false,
    maxSnapshotMs: 0,
    maxWalGrowthBytes: 0,
    maxShrinkPercent: 255,
    lookEveryMs: 0,
    makeFolders: false,
  });
}
