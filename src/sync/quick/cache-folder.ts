import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import {
  closeSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { makePrivateFolder, userCacheFolder } from '../../files/user-cache.ts';

const OTHERS_WRITE = 0o022;
const TEMPORARY = /\.[0-9a-f]{12}\.tmp$/;

/** No option lets anything that is remembered count for longer than a week. */
export const MAX_AGE_MS: number = 8 * 86_400_000;

export interface CacheLimits {
  readonly files: number;
  readonly bytes: number;
}

/** A folder in the user's cache folder, whose files only cost time if they are missing. */
export class CacheFolder {
  readonly #name: string;
  /** The names of its files. */
  readonly #pattern: RegExp;
  readonly #limits: CacheLimits;
  /** So many files may be written before the next sweep. */
  #untilSweep = 0;

  constructor(name: string, pattern: RegExp, limits: CacheLimits) {
    this.#name = name;
    this.#pattern = pattern;
    this.#limits = limits;
  }

  /** Throws SqlsyncError USAGE if the user has no cache folder. */
  path(name: string): string {
    return join(userCacheFolder(this.#name), name);
  }

  /** Writes a file at once; the parts follow each other. Throws the system's errors. */
  save(name: string, parts: readonly Uint8Array[]): void {
    const path = this.path(name);
    const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
    makePrivateFolder(userCacheFolder(this.#name));
    try {
      const file = openSync(temporary, 'wx', 0o600);
      try {
        for (const part of parts) writeAll(file, part);
      } finally {
        closeSync(file);
      }
      renameSync(temporary, path);
    } finally {
      rmSync(temporary, { force: true });
    }
    if (this.#untilSweep-- <= 0) this.#sweep();
  }

  /** Makes a file that is still of use the newest. Never throws. */
  touch(name: string): void {
    try {
      const now = Date.now() / 1000;
      utimesSync(this.path(name), now, now);
    } catch {
      // It was removed meanwhile.
    }
  }

  /** The names of the files that begin so, the newest first. Throws the system's errors. */
  names(start: string): string[] {
    return this.#files()
      .map(({ name }) => name)
      .filter((name) => name.startsWith(start));
  }

  /** Never throws. */
  remove(name: string): void {
    try {
      rmSync(this.path(name), { force: true });
    } catch {
      // It is not there, or no longer ours to remove.
    }
  }

  #files(): CachedFile[] {
    return readdirSync(userCacheFolder(this.#name))
      .filter((name) => this.#pattern.test(name.replace(TEMPORARY, '')))
      .map((name) => statsOf(name, this.path(name)))
      .toSorted((a, b) => b.mtimeMs - a.mtimeMs);
  }

  /** Removes what no run will use, and what killed runs left. Never throws: a later run tries again. */
  #sweep(): void {
    try {
      const oldest = Date.now() - MAX_AGE_MS;
      const files = this.#files();
      // A run that writes a thousand small files does not look at all of them each time.
      this.#untilSweep = this.#limits.bytes === Infinity ? Math.floor(files.length / 10) : 0;
      let bytes = 0;
      for (const [i, { name, mtimeMs, size }] of files.entries()) {
        bytes += size;
        // The newest one is kept, however large it is.
        const isTooMuch = i >= this.#limits.files || (bytes > this.#limits.bytes && i > 0);
        if (isTooMuch || mtimeMs < oldest) rmSync(this.path(name), { force: true });
      }
    } catch {
      // The folder may be gone.
    }
  }
}

/** False for a file that another user may have made or changed. */
export function isTrusted(stats: Stats): boolean {
  // Exactly, also for root: another user's records could say that nothing changed.
  const isOurs = process.geteuid === undefined || stats.uid === process.geteuid();
  return stats.isFile() && isOurs && (stats.mode & OTHERS_WRITE) === 0;
}

interface CachedFile {
  readonly name: string;
  readonly mtimeMs: number;
  readonly size: number;
}

function statsOf(name: string, path: string): CachedFile {
  const { mtimeMs = 0, size = 0 } = lstatSync(path, { throwIfNoEntry: false }) ?? {};
  return { name, mtimeMs, size };
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) at += writeSync(file, bytes, at);
}
