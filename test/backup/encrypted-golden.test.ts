import assert from 'node:assert/strict';
import { createDecipheriv, createHash, hkdfSync, scryptSync } from 'node:crypto';
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { zstdDecompressSync } from 'node:zlib';
import { GOLDEN_FOLDER } from '../../fixtures/encrypted.ts';
import type { GoldenStore } from '../../fixtures/encrypted.ts';
import { openStore } from '../../src/backup/store.ts';
import { tempDir } from '../support/compare.ts';

const STORE = join(GOLDEN_FOLDER, 'store');
const { password, snapshot, database } = JSON.parse(
  readFileSync(join(GOLDEN_FOLDER, 'golden.json'), 'utf8'),
) as GoldenStore;

describe('a golden encrypted store', () => {
  test('a decoder written by docs/store-format.md reads the database', () => {
    assert.equal(sha256(decode(password)), database);
  });

  test('a decoder written by docs/store-format.md reads it with the other password', () => {
    assert.equal(sha256(decode('another')), database);
  });

  test('this version opens the store and finds no damage', async (t) => {
    const copy = join(tempDir(t), 'store');
    cpSync(STORE, copy, { recursive: true });
    const store = await openStore(copy, { password });
    assert.deepEqual(
      (await store.snapshots()).map(({ id, host }) => [id, host]),
      [[snapshot, 'golden']],
    );
    const { problems, intact, dataRead } = await store.check({ readData: true });
    assert.deepEqual([problems, intact.length, dataRead], [[], 1, 'all']);
  });
});

type Json = Record<string, string | undefined>;

/** The database of the one snapshot. Uses nothing of sqlsync, and knows no deltas: the store has none. */
function decode(secret: string): Buffer {
  const { id: store, sealed } = json(read('config'));
  const master = names('keys')
    .map((name) => unwrap(json(read(`keys/${name}`)), secret))
    .find(Boolean) as Buffer;
  const piece = (kind: string, salt: Buffer, at: number, bytes: Buffer): Buffer => {
    const context = `sqlsync 2 ${kind} ${String(store)}`;
    const nonce = Buffer.alloc(12);
    nonce.writeBigUInt64LE(BigInt(at), 4);
    return gcm(Buffer.from(hkdfSync('sha256', master, salt, context, 32)), nonce, `${context} `, bytes);
  };
  const open = (kind: string, file: Buffer): Buffer =>
    piece(kind, file.subarray(8, 40), 40, file.subarray(40));
  assert.equal(json(open('config', Buffer.from(sealed ?? '', 'base64')))['graceSeconds'], 4711);
  const objects = new Map<string, Buffer>();
  for (const pack of names('packs').map((name) => read(`packs/${name}`))) {
    const salt = pack.subarray(8, 40);
    for (let at = 40; at < pack.length;) {
      const length = piece('pack', salt, at, pack.subarray(at, at + 20)).readUInt32LE(0);
      const frame = piece('pack', salt, at + 20, pack.subarray(at + 20, at + 20 + length));
      for (const object of objectsIn(frame)) objects.set(sha256(object), object);
      at += 20 + length;
    }
    assert.ok(body(open('index', read(`indexes/${names('indexes')[0]}`)), 8, 13).includes(salt));
  }
  const pages = (id: string): Buffer[] => {
    const node = objects.get(id) as Buffer;
    const ids = Array.from({ length: node[1] ?? 0 }, (_, i) => node.toString('hex', 2 + i * 32, 34 + i * 32));
    return ids.flatMap((each) => (node[0] === 0 ? [objects.get(each) as Buffer] : pages(each)));
  };
  return Buffer.concat(pages(json(open('snapshot', read(`snapshots/${snapshot}`)))['root'] ?? ''));
}

/** The whole pages or nodes of a plain frame. */
function objectsIn(frame: Buffer): Buffer[] {
  const bytes = body(frame, 1, 8);
  const count = bytes.readUInt32LE(0);
  const pageSize = 2 ** (frame[2] ?? 0);
  const first = 8 + count;
  if (frame[0] === 1)
    return Array.from({ length: count }, (_, i) =>
      bytes.subarray(first + i * pageSize, first + (i + 1) * pageSize),
    );
  const nodes: Buffer[] = [];
  for (let at = 4; at < bytes.length; at += 3 + (bytes[at + 2] ?? 0) * 32)
    nodes.push(bytes.subarray(at + 1, at + 3 + (bytes[at + 2] ?? 0) * 32));
  return nodes;
}

/** What follows the header of a frame or an index; bit 0 of its byte at `formAt` says whether it is compressed. */
function body(plain: Buffer, formAt: number, at: number): Buffer {
  const rest = plain.subarray(at);
  return ((plain[formAt] ?? 0) & 1) === 1 ? zstdDecompressSync(rest) : rest;
}

function unwrap({ store, scrypt, commitment, wrapped }: Json, secret: string): Buffer | undefined {
  const { N, r, p, salt } = scrypt as unknown as { N: number; r: number; p: number; salt: string };
  const derived = scryptSync(secret, Buffer.from(salt, 'base64'), 64, { N, r, p, maxmem: 2 ** 28 });
  if (derived.toString('base64', 32) !== commitment) return undefined;
  return gcm(
    derived.subarray(0, 32),
    Buffer.alloc(12),
    `sqlsync 2 master ${String(store)}`,
    Buffer.from(wrapped ?? '', 'base64'),
  );
}

function gcm(key: Buffer, nonce: Buffer, additional: string, bytes: Buffer): Buffer {
  const cipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  cipher.setAAD(Buffer.from(additional));
  cipher.setAuthTag(bytes.subarray(-16));
  return Buffer.concat([cipher.update(bytes.subarray(0, -16)), cipher.final()]);
}

function json(bytes: Buffer): Json {
  return JSON.parse(bytes.toString()) as Json;
}

function names(folder: string): string[] {
  return readdirSync(join(STORE, folder));
}

function read(name: string): Buffer {
  return readFileSync(join(STORE, name));
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
