import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import type { Stats } from 'node:fs';
import { dirname, join } from 'node:path';
import { makePrivateFolder, ownCacheFolder } from '../../files/user-cache.ts';
import type { ByteRange } from './backend.ts';

/** The most bytes that are kept of one store, and the part that they may take of what would be free without them. */
const MAX_BYTES: number = 2 ** 30;
const MAX_FREE_RATIO = 0.25;

/** What is left when room is made, so that not every new file lists the folder. */
const SWEPT_RATIO = 0.75;

/** The part of the room that one file may take: it must not push out all others. */
const MAX_FILE_RATIO = 0.25;

/** Files that no run used for so long are removed. */
const MAX_AGE_MS: number = 90 * 24 * 3600 * 1000;

/** A use is noted once a day, by the time of the file. */
const USE_STEP_MS: number = 24 * 3600 * 1000;

const HASH_BYTES = 32;

/**
 * Copies, on this host, of files of a store elsewhere that never change: indexes, records of snapshots, and the frames
 * of packs that hold nodes. They are kept as they lie in the store, sealed if that is.
 *
 * Each copy ends with a SHA-256 over its name and bytes. So a damaged, foreign or cut copy counts as missing; it costs a
 * request and no content. Only files whose names are hashes are kept, so no copy is ever outdated. That a copy is here
 * does not say that the store still has the file. A prune also keeps empty files here: see `refuseOtherBases`.
 */
export class KeptFiles {
  readonly #folder: string;
  readonly #maxBytes: number;
  /** Bytes in the folder; undefined before the first file is added. */
  #bytes: number | undefined;

  constructor(folder: string, maxBytes: number = MAX_BYTES) {
    this.#folder = folder;
    this.#maxBytes = maxBytes;
  }

  /**
   * The copies of a store in the user's cache folder. undefined if this user can have none of its own there.
   *
   * @param id - of the store.
   */
  static of(id: string): KeptFiles | undefined {
    const folder = ownCacheFolder('files', id);
    if (folder === undefined) return undefined;
    sweepOthers(folder);
    return new KeptFiles(folder);
  }

  /** The bytes of a file, or of a range of it; undefined if there is no sound copy. The caller owns the bytes. */
  get(name: string, range?: ByteRange): Uint8Array | undefined {
    const path = this.#pathOf(name, range);
    try {
      const content = readFileSync(path);
      const end = content.length - HASH_BYTES;
      if (end < 0 || !digestOf(name, range, [content.subarray(0, end)]).equals(content.subarray(end)))
        return undefined;
      const now = Date.now();
      if (now - statSync(path).mtimeMs > USE_STEP_MS) utimesSync(path, now / 1000, now / 1000);
      return new Uint8Array(content.buffer, content.byteOffset, end).slice();
    } catch {
      return undefined;
    }
  }

  /** True if there is a copy, sound or not. */
  has(name: string, range?: ByteRange): boolean {
    return existsSync(this.#pathOf(name, range));
  }

  /** Keeps a copy. Ignores errors of the system: then the store is read the next time. */
  add(name: string, pieces: readonly Uint8Array[], range?: ByteRange): void {
    const path = this.#pathOf(name, range);
    const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
    try {
      const bytes = pieces.reduce((sum, piece) => sum + piece.length, HASH_BYTES);
      if (!this.#hasRoom(bytes)) return;
      const content = Buffer.concat([...pieces, digestOf(name, range, pieces)]);
      writeFileSync(temporary, content, { mode: 0o600, flag: 'wx' });
      renameSync(temporary, path);
    } catch {
      removeIfThere(temporary);
    }
  }

  /** Removes a copy that turned out to be wrong. */
  remove(name: string, range?: ByteRange): void {
    removeIfThere(this.#pathOf(name, range));
  }

  #pathOf(name: string, range: ByteRange | undefined): string {
    const key = createHash('sha256').update(placeOf(name, range)).digest('hex');
    return join(this.#folder, key.slice(0, 40));
  }

  /** Removes the copies that were not used for longest, if room is needed for so many bytes. */
  #hasRoom(bytes: number): boolean {
    makePrivateFolder(this.#folder);
    this.#bytes ??= removeOldest(this.#folder, Infinity);
    const { bavail, bsize } = statfsSync(this.#folder);
    const most = Math.min(this.#maxBytes, (bavail * bsize + this.#bytes) * MAX_FREE_RATIO);
    if (bytes > most * MAX_FILE_RATIO) return false;
    if (this.#bytes + bytes > most) this.#bytes = removeOldest(this.#folder, most * SWEPT_RATIO - bytes);
    this.#bytes += bytes;
    return true;
  }
}

/** Removes files that were not used for longest, beyond so many bytes, and old ones. Returns the bytes that stay. */
function removeOldest(folder: string, most: number): number {
  const files = readdirSync(folder)
    .map((name) => join(folder, name))
    .map((path) => ({ path, stats: statSync(path, { throwIfNoEntry: false }) }))
    .sort((a, b) => (b.stats?.mtimeMs ?? 0) - (a.stats?.mtimeMs ?? 0));
  let bytes = 0;
  for (const { path, stats } of files) {
    if (stats === undefined) continue;
    if (bytes + stats.size > most || isOld(stats)) rmSync(path, { force: true });
    else bytes += stats.size;
  }
  return bytes;
}

function isOld({ mtimeMs }: Stats): boolean {
  return Date.now() - mtimeMs > MAX_AGE_MS;
}

/** Removes what is old of the stores beside this one: no run may ever open them again. */
function sweepOthers(own: string): void {
  try {
    for (const name of readdirSync(dirname(own))) {
      const folder = join(dirname(own), name);
      // The last file that came is a use, too.
      if (folder === own || !isOld(statSync(folder))) continue;
      if (removeOldest(folder, Infinity) === 0) rmdirSync(folder);
    }
  } catch {
    // Another run may be faster. The next one tries again.
  }
}

/** A file in a place that cannot be read or written is left to the user. */
export function removeIfThere(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // Nothing depends on it.
  }
}

function placeOf(name: string, range: ByteRange | undefined): string {
  return range === undefined ? name : `${name}@${range.offset}+${range.length}`;
}

function digestOf(name: string, range: ByteRange | undefined, pieces: readonly Uint8Array[]): Buffer {
  const digest = createHash('sha256').update(`${placeOf(name, range)}\n`);
  for (const piece of pieces) digest.update(piece);
  return digest.digest();
}
