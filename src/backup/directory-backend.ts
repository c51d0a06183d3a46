import { randomBytes } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { STORE_FOLDERS, TEMPORARY_PREFIX } from './backend.ts';
import type { Backend, ByteRange, StoredFile, StoreFolder } from './backend.ts';
import { missingFile, unavailable } from './store-error.ts';

/** System errors of `link` that mean "this file system has no hard links". */
const NO_HARD_LINKS: ReadonlySet<string | undefined> = new Set([
  'EPERM',
  'ENOTSUP',
  'EOPNOTSUPP',
  'ENOSYS',
  'EMLINK',
]);

/** A store in a folder of the file system. Files are readable by their owner only: they hold whole databases. */
export class DirectoryBackend implements Backend {
  readonly description: string;
  readonly #folder: string;

  /** `folder` is absolute; it is made with the first file. */
  constructor(folder: string) {
    this.#folder = folder;
    this.description = folder;
  }

  async put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const path = join(this.#folder, name);
    try {
      return await this.#put(path, pieces);
    } catch (error) {
      throw unavailable(this.description, `write ${name}`, error);
    }
  }

  async #put(path: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const folder = dirname(path);
    await makeFolder(folder);
    const temporary = join(folder, `${TEMPORARY_PREFIX}${randomBytes(12).toString('hex')}`);
    try {
      const file = await open(temporary, 'wx', 0o600);
      try {
        for (const piece of pieces) await file.writeFile(piece);
        await file.sync();
      } finally {
        await file.close();
      }
      const outcome = await publish(temporary, path);
      await syncFolder(folder);
      return outcome;
    } finally {
      await rm(temporary, { force: true });
    }
  }

  async get(name: string, range?: ByteRange): Promise<Uint8Array> {
    if (range !== undefined) return this.getNow(name, range);
    try {
      return await readFile(join(this.#folder, name));
    } catch (error) {
      throw this.#readError(name, error);
    }
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
      if (systemErrorCode(error) === 'ENOENT') return [];
      throw unavailable(this.description, `list ${folder}`, error);
    }
  }

  async delete(name: string): Promise<void> {
    try {
      await rm(join(this.#folder, name), { force: true });
    } catch (error) {
      throw unavailable(this.description, `delete ${name}`, error);
    }
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
    if (code === 'ENOENT' || code === 'ENOTDIR') return missingFile(this.description, name, error);
    return unavailable(this.description, `read ${name}`, error);
  }
}

/** Makes a folder that survives a power failure, with those above it that are missing. */
async function makeFolder(folder: string): Promise<void> {
  const first = await mkdir(folder, { recursive: true, mode: 0o700 });
  if (first === undefined) return;
  for (let made = folder; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made));
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** undefined for a file that was deleted since it was listed. */
async function statOrNothing(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Gives the file at `from` the name `to` unless that is taken. */
async function publish(from: string, to: string): Promise<'created' | 'exists'> {
  try {
    await link(from, to);
    return 'created';
  } catch (error) {
    const code = systemErrorCode(error);
    if (code === 'EEXIST') return 'exists';
    if (!NO_HARD_LINKS.has(code)) throw error;
  }
  // Files of one name have the same bytes, so that a rename that comes second replaces them by themselves.
  if ((await statOrNothing(to)) !== undefined) return 'exists';
  await rename(from, to);
  return 'created';
}
