import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { BLOCK_BYTES } from '../../../protocol/limits.ts';
import { sharingOf } from '../../files/ownership.ts';
import { makePrivateFolder, userCacheFolder } from '../../files/user-cache.ts';
import { HASH_KEY_BYTES, KEYED_HASH_BYTES, KeyedHash } from '../../pages/hash.ts';
import { ID_BYTES } from '../packs/object-id.ts';
import type { Sealer } from '../sealed/sealer.ts';

const MAGIC = Buffer.from('SQLSYNB1');
const PAGE_SIZE_AT: number = MAGIC.length + HASH_KEY_BYTES;
const HEADER_BYTES: number = PAGE_SIZE_AT + 4;

/** The most bytes of one file, for 16 GB of pages, and of all files of the folder. Pages beyond are not in it. */
const MAX_FILE_BYTES: number = 2 ** 30;
const MAX_FOLDER_BYTES: number = 2 * MAX_FILE_BYTES;

/** The part of the free space that a file may take. */
const MAX_FREE_RATIO = 0.25;

/** Files that no backup used for so long are removed. */
const MAX_AGE_MS: number = 90 * 24 * 3600 * 1000;

/** Records are read and written in chunks of about this many bytes. */
const CHUNK_BYTES: number = 256 * 1024;

/** Chunks in memory: pages that are under way and 1 % scattered lie in some 16 of them. */
const MAX_CHUNKS = 24;

/** Records of neighbouring pages. */
interface Chunk {
  readonly bytes: Uint8Array;
  isChanged: boolean;
}

/**
 * Remembers, for the pages of the newest snapshot of one database, the hashes of their blocks: these show in which
 * blocks a new version differs, so that a backup can store a delta without reading the old version.
 *
 * A wrong hash would make a wrong delta. So hashes have 64 bits, under a random key that only this user can read, and
 * each record is sealed together with the id of the page that was hashed. A caller asks with an id that it read from
 * the store. So a record that is damaged, or of another page, snapshot, database or store, is as good as none, and no
 * lock is needed. The page number only says where to look.
 *
 *     file      magic 8 │ key 16 │ page size 4 │ record of page 1 │ record of page 2 │ …
 *     record    hash of each block, 8 bytes each │ seal 8: keyed hash of id and hashes
 *
 * For an encrypted store the header and each chunk of records are sealed as its files are. A chunk is sealed anew each
 * time that it is written.
 */
export class BlockCache {
  readonly #descriptor: number;
  readonly #seals: Seals;
  readonly #hasher: KeyedHash;
  readonly #hashesBytes: number;
  readonly #recordBytes: number;
  readonly #recordsPerChunk: number;
  /** By number, the least recently used first. */
  readonly #chunks = new Map<number, Chunk>();
  /** Reused: an id and the hashes, as they are sealed. */
  readonly #sealed: Uint8Array;
  readonly #hashes: Uint8Array;
  readonly #seal = new Uint8Array(KEYED_HASH_BYTES);
  #isBroken = false;

  /**
   * The cache for a database in a store, made if it is missing. undefined if this user cannot have one of its own:
   * another user who could write the file could choose what is stored.
   *
   * @param names - what identifies store and database.
   * @param sealer - of the store.
   */
  static open(
    names: readonly string[],
    { pageSize, pageCount }: { readonly pageSize: number; readonly pageCount: number },
    sealer: Sealer,
    folder?: string,
  ): BlockCache | undefined {
    const name = createHash('sha256').update(JSON.stringify(names)).digest('hex').slice(0, 32);
    let descriptor: number | undefined;
    try {
      const place = folder ?? userCacheFolder('blocks');
      makePrivateFolder(place);
      const { byOwner, byMode } = sharingOf(place);
      if (byOwner || byMode || !hasRoom(place, recordBytesOf(pageSize) * pageCount)) return undefined;
      removeOldest(place, name);
      const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
      descriptor = openSync(join(place, name), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
      const { nlink, uid, mode } = fstatSync(descriptor);
      const isOwn =
        uid === (process.geteuid?.() ?? uid) && (process.platform === 'win32' || (mode & 0o077) === 0);
      const seals = { sealer, name };
      if (isOwn && nlink === 1)
        return new BlockCache(descriptor, seals, keyIn(descriptor, seals, pageSize), pageSize);
    } catch {
      // The backup then reads old versions.
    }
    if (descriptor !== undefined) closeSync(descriptor);
    return undefined;
  }

  private constructor(descriptor: number, seals: Seals, key: Uint8Array, pageSize: number) {
    this.#descriptor = descriptor;
    this.#seals = seals;
    this.#hashesBytes = (pageSize / BLOCK_BYTES) * KEYED_HASH_BYTES;
    this.#recordBytes = recordBytesOf(pageSize);
    this.#recordsPerChunk = Math.max(1, Math.floor(CHUNK_BYTES / this.#recordBytes));
    this.#hashes = new Uint8Array(this.#hashesBytes);
    this.#sealed = new Uint8Array(ID_BYTES + this.#hashesBytes);
    this.#hasher = new KeyedHash(key, Math.max(BLOCK_BYTES, this.#sealed.length));
  }

  /** The hashes of the blocks of a page, valid until the next call. */
  hash(page: Uint8Array): Uint8Array {
    this.#hasher.hashEach(page, BLOCK_BYTES, this.#hashes, 0);
    return this.#hashes;
  }

  /** The hashes of the blocks of the page of this id; undefined if they are unknown. */
  find(page: number, id: Uint8Array): Uint8Array | undefined {
    const record = this.#record(page, false);
    if (record === undefined) return undefined;
    const hashes = record.subarray(0, this.#hashesBytes);
    const seal = this.#sealOf(id, hashes);
    // From Node's pool: the garbage collector would be busy with so many small arrays.
    return Buffer.compare(seal, record.subarray(this.#hashesBytes)) === 0 ? Buffer.from(hashes) : undefined;
  }

  /** Remembers the hashes of a page, which `hash` made of the very bytes that have this id. */
  learn(page: number, id: Uint8Array, hashes: Uint8Array): void {
    const record = this.#record(page, true);
    record?.set(hashes);
    record?.set(this.#sealOf(id, hashes), this.#hashesBytes);
  }

  /** Writes what was learned last, if `keeps`. */
  close(keeps: boolean): void {
    if (keeps) for (const [number, chunk] of this.#chunks) this.#write(number, chunk);
    this.#chunks.clear();
    closeSync(this.#descriptor);
  }

  /** Forgets everything, also what earlier runs learned. */
  clear(): void {
    this.#chunks.clear();
    this.#isBroken = true;
    this.#tryTo(() => ftruncateSync(this.#descriptor, 0));
  }

  #sealOf(id: Uint8Array, hashes: Uint8Array): Uint8Array {
    this.#sealed.set(id);
    this.#sealed.set(hashes, ID_BYTES);
    this.#hasher.hash(this.#sealed, this.#seal, 0);
    return this.#seal;
  }

  /** A view of the record of a page; undefined if it has no place. */
  #record(page: number, isChanged: boolean): Uint8Array | undefined {
    const place = page - 1;
    if (this.#isBroken || HEADER_BYTES + page * this.#recordBytes > MAX_FILE_BYTES) return undefined;
    const number = Math.floor(place / this.#recordsPerChunk);
    const chunk = this.#chunk(number);
    chunk.isChanged ||= isChanged;
    const at = (place - number * this.#recordsPerChunk) * this.#recordBytes;
    return chunk.bytes.subarray(at, at + this.#recordBytes);
  }

  #chunk(number: number): Chunk {
    const known = this.#chunks.get(number);
    if (known !== undefined) {
      // A map keeps insertion order.
      this.#chunks.delete(number);
      this.#chunks.set(number, known);
      return known;
    }
    const [oldest] = this.#chunks;
    let bytes: Uint8Array | undefined;
    if (oldest !== undefined && this.#chunks.size >= MAX_CHUNKS) {
      this.#write(...oldest);
      this.#chunks.delete(oldest[0]);
      ({ bytes } = oldest[1]);
    }
    bytes ??= new Uint8Array(this.#recordsPerChunk * this.#recordBytes);
    const chunk = { bytes, isChanged: false };
    let filled = 0;
    this.#tryTo(() => (filled = this.#read(number, bytes)));
    bytes.fill(0, filled);
    this.#chunks.set(number, chunk);
    return chunk;
  }

  /** Returns how many bytes of a chunk there are. */
  #read(number: number, bytes: Uint8Array): number {
    const { sealer } = this.#seals;
    if (sealer.scheme === 'none')
      return readSync(this.#descriptor, bytes, 0, bytes.length, this.#placeOf(number));
    const sealed = new Uint8Array(bytes.length + sealer.moreBytes);
    const length = readSync(this.#descriptor, sealed, 0, sealed.length, this.#placeOf(number));
    const plain = openPart(this.#seals, number, sealed.subarray(0, length));
    bytes.set(plain);
    return plain.length;
  }

  #write(number: number, { bytes, isChanged }: Chunk): void {
    if (!isChanged) return;
    const sealed = sealPart(this.#seals, number, bytes);
    this.#tryTo(() => writeSync(this.#descriptor, sealed, 0, sealed.length, this.#placeOf(number)));
  }

  #placeOf(chunk: number): number {
    const { moreBytes } = this.#seals.sealer;
    return HEADER_BYTES + moreBytes + chunk * (this.#recordsPerChunk * this.#recordBytes + moreBytes);
  }

  /** After an error of the system, for example of a full disk, the cache is as good as none. */
  #tryTo(action: () => void): void {
    try {
      action();
    } catch {
      this.#isBroken = true;
    }
  }
}

/** How the parts of a file are sealed; its name is bound to each. */
interface Seals {
  readonly sealer: Sealer;
  readonly name: string;
}

function sealPart({ sealer, name }: Seals, part: number | 'head', plain: Uint8Array): Uint8Array {
  return sealer.seal({ kind: 'blocks', name: `${name} ${part}` }, plain);
}

/** No bytes for a part that is damaged, or was never written. */
function openPart({ sealer, name }: Seals, part: number | 'head', sealed: Uint8Array): Uint8Array {
  try {
    return sealer.open({ kind: 'blocks', file: name, name: `${name} ${part}` }, sealed);
  } catch {
    return new Uint8Array(0);
  }
}

/** The key of a file; of one that is new, damaged, or for another page size, a new one. */
function keyIn(descriptor: number, seals: Seals, pageSize: number): Uint8Array {
  const sealed = Buffer.alloc(HEADER_BYTES + seals.sealer.moreBytes);
  const length = readSync(descriptor, sealed, 0, sealed.length, 0);
  const plain = openPart(seals, 'head', sealed.subarray(0, length));
  const header = Buffer.alloc(HEADER_BYTES);
  header.set(plain.subarray(0, HEADER_BYTES));
  const isValid =
    plain.length === HEADER_BYTES &&
    header.subarray(0, MAGIC.length).equals(MAGIC) &&
    header.readUInt32LE(PAGE_SIZE_AT) === pageSize;
  if (!isValid) {
    ftruncateSync(descriptor, 0);
    MAGIC.copy(header);
    randomBytes(HASH_KEY_BYTES).copy(header, MAGIC.length);
    header.writeUInt32LE(pageSize, PAGE_SIZE_AT);
    const head = sealPart(seals, 'head', header);
    writeSync(descriptor, head, 0, head.length, 0);
  }
  return header.subarray(MAGIC.length, PAGE_SIZE_AT);
}

function recordBytesOf(pageSize: number): number {
  return (pageSize / BLOCK_BYTES + 1) * KEYED_HASH_BYTES;
}

function hasRoom(folder: string, bytes: number): boolean {
  const { bavail, bsize } = statfsSync(folder);
  return Math.min(bytes, MAX_FILE_BYTES) <= bavail * bsize * MAX_FREE_RATIO;
}

/** Removes the files of a folder that were not used for long, and the oldest until the others have room. */
function removeOldest(folder: string, ours: string): void {
  const files = readdirSync(folder)
    .filter((name) => name !== ours)
    .map((name) => join(folder, name))
    .map((path) => ({ path, stats: statSync(path) }))
    .sort((a, b) => b.stats.mtimeMs - a.stats.mtimeMs);
  let bytes = MAX_FILE_BYTES;
  for (const { path, stats } of files) {
    bytes += stats.size;
    if (bytes > MAX_FOLDER_BYTES || Date.now() - stats.mtimeMs > MAX_AGE_MS) rmSync(path, { force: true });
  }
}
