import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { MAX_FRAME_BYTES } from './frame.ts';
import { BASE_ID_BYTES, ID_BYTES } from './object-id.ts';
import { damaged, otherVersion } from '../store-error.ts';

/** The place of a frame in its pack, and the number of its objects. */
export interface FramePlace {
  /** Offset of the sealed frame in the pack, behind its length. */
  readonly offset: number;
  readonly length: number;
  /** Bytes of its body when it is decompressed. */
  readonly rawBytes: number;
  readonly kind: number;
  readonly objectCount: number;
}

/**
 * The description of one pack in an index. Ids and depths belong to all its objects, in the order of frames and within
 * them, and bases to those with a depth.
 */
export interface IndexedPack {
  readonly id: Uint8Array;
  /** The salt of the keys of its frames; undefined in a store that is not encrypted. */
  readonly salt?: Uint8Array | undefined;
  /** Length of the file. */
  readonly bytes: number;
  readonly frames: readonly FramePlace[];
  readonly ids: Uint8Array;
  readonly depths: Uint8Array;
  /** The first `BASE_ID_BYTES` of the id of each delta's base, one after another. */
  readonly bases: Uint8Array;
}

const VERSION = 2;
const MAGIC = Buffer.from(`SQLSYNX${VERSION}`);
const HEADER_BYTES = MAGIC.length + 5;
const PACK_BYTES = 40;
const SALT_BYTES = 32;

/** Bits of the byte that says how the body is written. */
const IS_PACKED = 1;
const HAS_SALTS = 2;

const FRAME_BYTES = 17;

/** Body of the largest index file, decompressed: about 4 million objects. */
export const MAX_INDEX_BYTES: number = 128 * 1024 * 1024;

/** Packs with this many bytes of index go into one file; a single pack may have more. */
const FULL_INDEX_BYTES = 64 * 1024 * 1024;

/** A pack with this many objects is put, however short it is: an index of it alone has at most some 50 MiB. */
export const FULL_PACK_OBJECTS: number = 1024 * 1024;

/** Groups packs, in order, into as few index files as possible. */
export function splitForIndexes(
  packs: readonly IndexedPack[],
  fullBytes: number = FULL_INDEX_BYTES,
): IndexedPack[][] {
  const files: IndexedPack[][] = [];
  let bytes = Infinity;
  for (const pack of packs) {
    const more = bodyBytes(pack);
    if (bytes + more > fullBytes) {
      files.push([]);
      bytes = 0;
    }
    files.at(-1)?.push(pack);
    bytes += more;
  }
  return files;
}

function bodyBytes({ salt, frames, depths, bases }: IndexedPack): number {
  const objectBytes = depths.length * (ID_BYTES + 1) + bases.length;
  return PACK_BYTES + (salt?.length ?? 0) + frames.length * FRAME_BYTES + objectBytes;
}

/** The plain bytes of an index of these packs, as many as `splitForIndexes` groups. All have a salt, or none. */
export function encodeIndex(packs: readonly IndexedPack[]): Uint8Array {
  const frames = packs.flatMap((pack) => pack.frames);
  const hasSalts = packs[0]?.salt !== undefined;
  if (packs.some(({ salt }) => (salt !== undefined) !== hasSalts))
    throw new Error('an index of packs with and without a salt');
  const total = packs.reduce((sum, pack) => sum + bodyBytes(pack), 4);
  if (total > MAX_INDEX_BYTES) throw new Error(`an index of ${total} bytes`);
  const body = new Uint8Array(total);
  const view = new DataView(body.buffer);
  view.setUint32(0, packs.length, true);
  let at = 4;
  for (const { id, salt, bytes, frames: own } of packs) {
    body.set(id, at);
    view.setUint32(at + 32, bytes, true);
    view.setUint32(at + 36, own.length, true);
    at += PACK_BYTES;
    if (salt === undefined) continue;
    body.set(salt, at);
    at += SALT_BYTES;
  }
  for (const { offset, length, rawBytes, objectCount, kind } of frames) {
    view.setUint32(at, offset, true);
    view.setUint32(at + 4, length, true);
    view.setUint32(at + 8, rawBytes, true);
    view.setUint32(at + 12, objectCount, true);
    view.setUint8(at + 16, kind);
    at += FRAME_BYTES;
  }
  for (const part of ['ids', 'depths', 'bases'] as const) {
    for (const { [part]: bytes } of packs) {
      body.set(bytes, at);
      at += bytes.length;
    }
  }
  return wrap(body, hasSalts);
}

function wrap(body: Uint8Array, hasSalts: boolean): Uint8Array {
  const packed = zstdCompressSync(body);
  const pays = packed.length < body.length;
  const data = pays ? packed : body;
  const header = Buffer.alloc(HEADER_BYTES);
  MAGIC.copy(header);
  header.writeUInt8((pays ? IS_PACKED : 0) | (hasSalts ? HAS_SALTS : 0), MAGIC.length);
  header.writeUInt32LE(body.length, MAGIC.length + 1);
  return Buffer.concat([header, data]);
}

/**
 * Decodes an index; ids, depths and bases are views of one buffer. Throws SqlsyncError STORE_DAMAGED for `file`, and
 * STORE_VERSION: see `otherVersion`.
 *
 * @param isEncrypted - whether the store is. Its packs then have salts; those of another one have none.
 */
export function decodeIndex(plain: Uint8Array, file: string, isEncrypted: boolean): IndexedPack[] {
  const version = versionOf(plain);
  if (version !== undefined && version !== VERSION) throw otherVersion(file, version, VERSION);
  try {
    const body = unwrap(plain);
    const hasSalts = ((plain[MAGIC.length] as number) & HAS_SALTS) !== 0;
    if (hasSalts !== isEncrypted) throw new Error(`${hasSalts ? 'salts' : 'no salts'}; expected the reverse`);
    return parse(body, hasSalts);
  } catch (error) {
    throw damaged(file, 'cannot be read', error);
  }
}

/** undefined if it is no index. */
function versionOf(plain: Uint8Array): number | undefined {
  const magic = Buffer.from(plain.buffer, plain.byteOffset, plain.length).toString('latin1', 0, MAGIC.length);
  const digit = /^SQLSYNX(\d)$/.exec(magic)?.[1];
  return digit === undefined ? undefined : Number(digit);
}

/** The body. Unlike a Buffer's, its `slice` makes copies. */
function unwrap(plain: Uint8Array): Uint8Array {
  const header = Buffer.from(plain.buffer, plain.byteOffset, plain.length);
  if (plain.length < HEADER_BYTES || !header.subarray(0, MAGIC.length).equals(MAGIC))
    throw new Error('not an index');
  const rawBytes = header.readUInt32LE(MAGIC.length + 1);
  if (rawBytes > MAX_INDEX_BYTES) throw new Error('more bytes than an index may have');
  const data = plain.subarray(HEADER_BYTES);
  const form = header.readUInt8(MAGIC.length);
  if (form > (IS_PACKED | HAS_SALTS)) throw new Error('an encoding that this version does not know');
  const body =
    (form & IS_PACKED) === 0
      ? data
      : zstdDecompressSync(data, {
          maxOutputLength: rawBytes + 64,
          // One piece, because ids do not compress; takes no memory that only a header claims.
          chunkSize: Math.min(rawBytes, 16 * data.length) + 64,
        });
  if (body.length !== rawBytes) throw new Error('another length than declared');
  // A `slice` of a Buffer is a view, and ids and salts outlive the body, whose memory the caller frees.
  return new Uint8Array(body.buffer, body.byteOffset, body.length);
}

function parse(body: Uint8Array, hasSalts: boolean): IndexedPack[] {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const packCount = view.getUint32(0, true);
  const packBytes = PACK_BYTES + (hasSalts ? SALT_BYTES : 0);
  let frameAt = 4 + packCount * packBytes;
  if (frameAt > body.length) throw new Error('more packs than bytes');
  const heads = [];
  let objects = 0;
  for (let i = 0; i < packCount; i++) {
    const at = 4 + i * packBytes;
    const frames: FramePlace[] = [];
    for (let n = view.getUint32(at + 36, true); n > 0; n--, frameAt += FRAME_BYTES) {
      frames.push(frameOf(view, frameAt));
    }
    const bytes = view.getUint32(at + 32, true);
    if (frames.some((frame) => frame.offset + frame.length > bytes || frame.rawBytes > MAX_FRAME_BYTES))
      throw new Error('a frame that is too long');
    const count = frames.reduce((sum, { objectCount }) => sum + objectCount, 0);
    objects += count;
    const salt = hasSalts ? body.slice(at + PACK_BYTES, at + packBytes) : undefined;
    heads.push({ id: body.slice(at, at + ID_BYTES), salt, bytes, frames, count });
  }
  let idAt = frameAt;
  let depthAt = frameAt + objects * ID_BYTES;
  let baseAt = depthAt + objects;
  if (baseAt > body.length) throw new Error('more objects than bytes');
  const packs = heads.map(({ id, salt, bytes, frames, count }) => {
    const ids = body.subarray(idAt, idAt + count * ID_BYTES);
    const depths = body.subarray(depthAt, depthAt + count);
    const baseBytes = deltasIn(depths) * BASE_ID_BYTES;
    const bases = body.subarray(baseAt, baseAt + baseBytes);
    idAt += ids.length;
    depthAt += count;
    baseAt += baseBytes;
    return { id, salt, bytes, frames, ids, depths, bases };
  });
  if (baseAt !== body.length) throw new Error('another length than its parts');
  return packs;
}

function deltasIn(depths: Uint8Array): number {
  return depths.reduce((count, depth) => count + (depth === 0 ? 0 : 1), 0);
}

function frameOf(view: DataView, at: number): FramePlace {
  return {
    offset: view.getUint32(at, true),
    length: view.getUint32(at + 4, true),
    rawBytes: view.getUint32(at + 8, true),
    objectCount: view.getUint32(at + 12, true),
    kind: view.getUint8(at + 16),
  };
}
