import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemErrorCode } from '../../errors.ts';
import { NO_HARD_LINKS } from '../../files/hard-links.ts';
import { CACHE_FOLDER, STORE_FOLDERS, TEMPORARY_PREFIX } from './backend.ts';
import type { ByteRange, LocalBackend, StoredFile, StoreFolder } from './backend.ts';
import { StoreIdentity } from './store-identity.ts';
import { missingFile, unavailable } from '../store-error.ts';

/** A store in a folder of the file system. Only the owner may read its files: they hold whole databases. */
export class DirectoryBackend implements LocalBackend {
  readonly description: string;
  readonly #folder: string;
  /** Folders whose names are durable. */
  readonly #secured = new Set<string>();
  readonly #identity = new StoreIdentity();

  /** `folder` is absolute; the first file creates it. */
  constructor(folder: string) {
    this.#folder = folder;
    this.description = folder;
  }

  /** @param pieces - an error that they throw ends it, as one of the disk does. The config comes as an array. */
  async put(
    name: string,
    pieces: readonly Uint8Array[] | AsyncIterable<Uint8Array>,
  ): Promise<'created' | 'exists'> {
    const path = join(this.#folder, name);
    try {
      this.#refuseAnother();
      const outcome = await this.#put(path, pieces, publish);
      if (name === 'config' && outcome === 'created' && Array.isArray(pieces))
        this.#identity.learn(Buffer.concat(pieces));
      return outcome;
    } catch (error) {
      throw unavailable(this.description, `write ${name}`, error);
    }
  }

  async replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    try {
      this.#refuseAnother();
      await this.#put(join(this.#folder, 'config'), pieces, rename);
      this.#identity.replace(Buffer.concat(pieces));
    } catch (error) {
      throw unavailable(this.description, 'write config', error);
    }
  }

  /** `give` publishes a finished file under its second name. */
  async #put<T>(
    path: string,
    pieces: readonly Uint8Array[] | AsyncIterable<Uint8Array>,
    give: (from: string, to: string) => Promise<T>,
  ): Promise<T> {
    const folder = dirname(path);
    await this.#secureFolder(folder);
    const temporary = join(folder, `${TEMPORARY_PREFIX}${randomBytes(12).toString('hex')}`);
    try {
      const file = await open(temporary, 'wx', 0o600);
      try {
        for await (const piece of pieces) await file.writeFile(piece);
        await file.sync();
      } finally {
        await file.close();
      }
      const outcome = await give(temporary, path);
      await syncFolder(folder);
      return outcome;
    } finally {
      await rm(temporary, { force: true });
    }
  }

  async get(name: string, range?: ByteRange): Promise<Uint8Array> {
    try {
      const bytes = await readPart(join(this.#folder, name), range);
      const isWhole = range === undefined || (range.offset === 0 && bytes.length < range.length);
      if (name === 'config' && isWhole) this.#identity.learn(bytes);
      return bytes;
    } catch (error) {
      throw this.#readError(name, error);
    }
  }

  pathOf(name: string): string {
    return join(this.#folder, name);
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    let descriptor: number | undefined;
    try {
      descriptor = openSync(join(this.#folder, name), constants.O_RDONLY);
      const offset = range?.offset ?? 0;
      const bytes = Buffer.allocUnsafeSlow(range?.length ?? fstatSync(descriptor).size);
      let filled = 0;
      while (filled < bytes.length) {
        const read = readSync(descriptor, bytes, filled, bytes.length - filled, offset + filled);
        if (read === 0) break;
        filled += read;
      }
      return bytes.subarray(0, filled);
    } catch (error) {
      throw this.#readError(name, error);
    } finally {
      if (descriptor !== undefined) closeSync(descriptor);
    }
  }

  async list(folder: StoreFolder): Promise<StoredFile[]> {
    try {
      const files: StoredFile[] = [];
      for (const entry of await readdir(join(this.#folder, folder), { withFileTypes: true })) {
        if (!entry.isFile() || entry.name.startsWith(TEMPORARY_PREFIX)) continue;
        const file = await statOrNothing(join(this.#folder, folder, entry.name));
        if (file !== undefined) files.push({ name: entry.name, bytes: file.size, modified: file.mtime });
      }
      return files;
    } catch (error) {
      if (systemErrorCode(error) === 'ENOENT' && this.#whyGone() === undefined) return [];
      throw unavailable(this.description, `list ${folder}`, error);
    }
  }

  async delete(name: string): Promise<void> {
    const path = join(this.#folder, name);
    try {
      await rm(path, { force: true });
      // A power cut must not lose a pack while the index that was deleted before it, or a snapshot, comes back.
      await syncFolder(dirname(path), ['ENOENT']);
    } catch (error) {
      throw unavailable(this.description, `delete ${name}`, error);
    }
  }

  /** Deletes the cache of page hashes: without it the next backup reads its parent from the store. */
  async makeRoom(): Promise<boolean> {
    const cache = join(this.#folder, CACHE_FOLDER);
    const names = await readdir(cache).catch(() => []);
    try {
      for (const name of names) await rm(join(cache, name), { force: true });
    } catch (error) {
      throw unavailable(this.description, `delete ${CACHE_FOLDER}`, error);
    }
    return names.length > 0;
  }

  async removeLeftovers(olderThanMs: number): Promise<void> {
    for (const folder of STORE_FOLDERS) {
      const names = await readdir(join(this.#folder, folder)).catch(() => []);
      for (const name of names.filter((each) => each.startsWith(TEMPORARY_PREFIX))) {
        const path = join(this.#folder, folder, name);
        const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Infinity }));
        if (Date.now() - mtimeMs > olderThanMs) await this.delete(join(folder, name));
      }
    }
  }

  #readError(name: string, error: unknown): Error {
    const code = systemErrorCode(error);
    const isMissing = code === 'ENOENT' || code === 'ENOTDIR';
    const gone = isMissing ? this.#whyGone() : undefined;
    if (gone !== undefined) return unavailable(this.description, `read ${name}`, gone);
    if (isMissing) return missingFile(this.description, name, error);
    return unavailable(this.description, `read ${name}`, error);
  }

  /**
   * Makes a folder of the store, with missing parents, that survives a power cut. An existing folder may not be
   * durable: the process that made it may have been killed before that.
   */
  async #secureFolder(folder: string): Promise<void> {
    if (this.#secured.has(folder)) return;
    const first = await mkdir(folder, { recursive: true, mode: 0o700 });
    const top = Math.min(this.#folder.length, first?.length ?? Infinity);
    for (let each = folder; each.length >= top && each !== dirname(each); each = dirname(each)) {
      // Parents of the store that existed before may not be readable.
      const isOurs = each.length > this.#folder.length || each.length >= (first?.length ?? Infinity);
      await syncFolder(dirname(each), isOurs ? [] : ['EACCES', 'EPERM']);
    }
    this.#secured.add(folder);
  }

  #whyGone(): unknown {
    try {
      this.#refuseAnother();
      return undefined;
    } catch (error) {
      return error;
    }
  }

  /** Throws if another store lies there, or none any more. The config is only read if its file is another one. */
  #refuseAnother(): void {
    if (!this.#identity.isKnown) return;
    const path = join(this.#folder, 'config');
    let config: Buffer | undefined;
    let stamp: string | undefined;
    try {
      const { dev, ino, size, ctimeMs } = statSync(path);
      stamp = `${dev} ${ino} ${size} ${ctimeMs}`;
      if (this.#identity.isStamped(stamp)) return;
      config = readFileSync(path);
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR'].includes(systemErrorCode(error) ?? '')) throw error;
    }
    this.#identity.compare(config, stamp);
  }
}

/** All of a file, or what it has of a range. */
async function readPart(path: string, range: ByteRange | undefined): Promise<Uint8Array> {
  if (range === undefined) return readFile(path);
  const { offset, length } = range;
  const file = await open(path, constants.O_RDONLY);
  try {
    const bytes = Buffer.allocUnsafeSlow(length);
    let filled = 0;
    while (filled < length) {
      const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled);
  } finally {
    await file.close();
  }
}

/** Makes the names in a folder durable, except after errors that do not matter. */
async function syncFolder(folder: string, ignored: readonly string[] = []): Promise<void> {
  try {
    const handle = await open(folder, constants.O_RDONLY);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (!ignored.includes(systemErrorCode(error) ?? '')) throw error;
  }
}

/** undefined for a file that was deleted after it was listed. */
async function statOrNothing(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Gives the file at `from` the name `to`, unless that is taken. */
async function publish(from: string, to: string): Promise<'created' | 'exists'> {
  try {
    await link(from, to);
    return 'created';
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'EEXIST') return 'exists';
    if (!NO_HARD_LINKS.has(code)) throw error;
  }
  // Files of one name have the same bytes, so a rename that comes second replaces equal bytes.
  if ((await statOrNothing(to)) !== undefined) return 'exists';
  await rename(from, to);
  return 'created';
}
