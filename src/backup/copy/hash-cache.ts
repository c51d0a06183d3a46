import { createHash, randomBytes } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { HASH_ALGORITHMS, nameOf } from '../../../protocol/messages.ts';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { ownCacheFolder } from '../../files/user-cache.ts';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import { PLAIN_SEALER } from '../sealed/sealer.ts';
import type { Sealer } from '../sealed/sealer.ts';
import { ID_BYTES, idOf, isHexId, sameBytes, toHex } from '../packs/object-id.ts';

/** How far the times of files may be behind the clock: file systems count in ticks, some in seconds. */
const FILE_CLOCK_LAG_MS = 2000;

/** The hashes of all pages of one stored snapshot under a secret key. */
export interface CachedHashes {
  /** Id of the snapshot. */
  readonly snapshot: string;
  readonly algorithm: HashAlgorithm;
  readonly key: Uint8Array;
  /** Ids of the packs that the snapshot may need; if one is gone, an unchanged page may be gone too. */
  readonly packs: readonly string[];
  /** One after another, from page 1. */
  readonly hashes: Uint8Array;
}

const MAGIC = Buffer.from('SQLSYNH3');
const KEY_AT = MAGIC.length + ID_BYTES + 1;
const PACK_COUNT_AT = KEY_AT + HASH_KEY_BYTES;
const PACKS_AT = PACK_COUNT_AT + 4;

/**
 * Remembers the page hashes of the newest snapshot of each database, so that a backup need not read the store. A backup
 * believes it, so it is bound to its snapshot and checked by a SHA-256. Without it a backup only takes longer. Its file
 * is sealed as those of the store: anyone who has hashes and their key can guess what is in a page.
 */
export class HashCache {
  readonly #folder: string;
  readonly #sealer: Sealer;

  constructor(folder: string, sealer: Sealer = PLAIN_SEALER) {
    this.#folder = folder;
    this.#sealer = sealer;
  }

  /**
   * The hashes for a store that has no folder on this host, in the user's cache folder. undefined if this user can have
   * none of its own there: another user who could write them could choose what counts as unchanged.
   *
   * @param id - of the store.
   */
  static elsewhere(id: string, sealer?: Sealer): HashCache | undefined {
    const folder = ownCacheFolder('hashes', id);
    return folder === undefined ? undefined : new HashCache(folder, sealer);
  }

  /** The last saved hashes for this origin, as the user names it; undefined if there are none, or they are damaged. */
  load(origin: string): CachedHashes | undefined {
    let bytes: Buffer;
    try {
      const file = this.#file(origin);
      bytes = this.#open(readFileSync(file), basename(file));
    } catch {
      return undefined;
    }
    const content = bytes.subarray(0, -ID_BYTES);
    if (content.length < PACKS_AT || !content.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
    if (!sameBytes(idOf(content), bytes.subarray(-ID_BYTES))) return undefined;
    const algorithm = nameOf(HASH_ALGORITHMS, content[KEY_AT - 1] as number);
    if (algorithm === undefined) return undefined;
    const hashesAt = PACKS_AT + content.readUInt32LE(PACK_COUNT_AT) * ID_BYTES;
    const packs: string[] = [];
    for (let at = PACKS_AT; at < hashesAt; at += ID_BYTES)
      packs.push(toHex(content.subarray(at, at + ID_BYTES)));
    return {
      snapshot: toHex(content.subarray(MAGIC.length, MAGIC.length + ID_BYTES)),
      algorithm,
      key: new Uint8Array(content.subarray(KEY_AT, PACK_COUNT_AT)),
      packs,
      hashes: new Uint8Array(content.subarray(hashesAt)),
    };
  }

  /** Throws the system's errors; they only mean that the next backup takes longer. */
  save(origin: string, { snapshot, algorithm, key, packs, hashes }: CachedHashes): void {
    if (!isHexId(snapshot)) throw new Error('the hashes are of no snapshot');
    const packCount = Buffer.alloc(4);
    packCount.writeUInt32LE(packs.length);
    const known = Buffer.concat(packs.map((pack) => Buffer.from(pack, 'hex')));
    const of = [Buffer.from(snapshot, 'hex'), Buffer.of(HASH_ALGORITHMS[algorithm]), key];
    const header = [MAGIC, ...of, packCount, known];
    const digest = createHash('sha256');
    for (const piece of [...header, hashes]) digest.update(piece);
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 });
    const file = this.#file(origin);
    const temporary = `${file}.${randomBytes(6).toString('hex')}.tmp`;
    try {
      const plain = Buffer.concat([...header, hashes, digest.digest()]);
      writeFileSync(temporary, this.#sealer.seal({ kind: 'hashes', name: basename(file) }, plain), {
        mode: 0o600,
      });
      renameSync(temporary, file);
    } finally {
      rmSync(temporary, { force: true });
    }
  }

  /**
   * Removes the hashes of snapshots that `known` lacks, a list read at `since` (milliseconds since 1970), and what a
   * killed save left.
   */
  sweep(known: ReadonlySet<string>, since: number): void {
    for (const name of readdirSync(this.#folder)) {
      const file = join(this.#folder, name);
      try {
        // Another backup may be at work: younger files belong to it.
        if (statSync(file).mtimeMs >= since - FILE_CLOCK_LAG_MS) continue;
        if (/^[0-9a-f]{32}$/.test(name) ? !known.has(this.#snapshotOf(file)) : name.endsWith('.tmp'))
          rmSync(file);
      } catch {
        // Another process removed it, or the next sweep will.
      }
    }
  }

  #file(origin: string): string {
    return join(this.#folder, toHex(idOf(Buffer.from(origin))).slice(0, 32));
  }

  /** Throws SqlsyncError STORE_DAMAGED. */
  #open(sealed: Uint8Array, name: string): Buffer {
    const plain = this.#sealer.open({ kind: 'hashes', file: name, name }, sealed);
    return Buffer.from(plain.buffer, plain.byteOffset, plain.length);
  }

  /** Id of the snapshot that a file belongs to, if the file is whole. */
  #snapshotOf(file: string): string {
    const isPlain = this.#sealer.scheme === 'none';
    const header = isPlain ? beginningOf(file) : this.#open(readFileSync(file), basename(file));
    return toHex(header.subarray(MAGIC.length, MAGIC.length + ID_BYTES));
  }
}

/** As much of a file as names its snapshot. */
function beginningOf(file: string): Buffer {
  const header = Buffer.alloc(PACKS_AT);
  const descriptor = openSync(file, 'r');
  try {
    readSync(descriptor, header, 0, header.length, 0);
  } finally {
    closeSync(descriptor);
  }
  return header;
}
