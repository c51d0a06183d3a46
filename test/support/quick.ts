import './environment.ts';
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  cpSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readSync,
  realpathSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { timesEveryWrite } from '../../src/files/mounts.ts';

/**
 * The age of the last change that is enough here: longer than any tick of a clock of Linux, so that tests
 * need not wait 3 s.
 */
export const MIN_AGE_MS = 50;

/** Call this before the sources are loaded. It gives each process a cache folder of its own. */
export function prepareQuickTests(t: { after(fn: () => void): void }): void {
  process.env['SQLSYNC_STAMP_MIN_AGE_MS'] = String(MIN_AGE_MS);
  const cache = mkdtempSync(join(tmpdir(), 'sqlsync-cache-'));
  process.env['XDG_CACHE_HOME'] = cache;
  t.after(() => rmSync(cache, { recursive: true, force: true }));
}

/** The reason why quick checks do not work here; undefined if they do. */
export function noQuickCheck(): string | undefined {
  const folder = realpathSync(tmpdir());
  return timesEveryWrite(folder) ? undefined : `the file system of ${folder} does not time every write`;
}

/** Resolves when the last change of these files is old enough. */
export async function aged(...paths: readonly string[]): Promise<void> {
  for (const path of paths) while (Date.now() - statSync(path).ctimeMs <= MIN_AGE_MS + 1) await delay(5);
}

/** Writes the last byte of a file without telling SQLite, and gives the file the mtime that it had. */
export function flip(path: string): void {
  const kept = new Kept(path);
  const file = openSync(path, 'r+');
  const at = statSync(path).size - 1;
  const byte = Buffer.alloc(1);
  readSync(file, byte, 0, 1, at);
  writeSync(file, Uint8Array.of((byte[0] ?? 0) ^ 1), 0, 1, at);
  closeSync(file);
  kept.touchBack();
}

/** Makes a database with pages of 4 KiB this many bytes long, by pages of zeros that take no room on the disk. */
export function extend(path: string, bytes: number): void {
  const file = openSync(path, 'r+');
  ftruncateSync(file, bytes);
  const pages = Buffer.alloc(4);
  pages.writeUInt32BE(bytes / 4096);
  writeSync(file, pages, 0, 4, 28);
  closeSync(file);
}

let kept = 0;

/** Keeps content and times of a file, and returns a function that puts them back. */
export class Kept {
  readonly #path: string;
  readonly #copy: string;

  constructor(path: string) {
    this.#path = path;
    this.#copy = `${path}.kept-${kept++}`;
    cpSync(path, this.#copy, { preserveTimestamps: true });
    this.#copyTimes(path, this.#copy);
  }

  /** Writes the content into the existing file, which keeps its inode, and sets its times back. */
  putBack(): void {
    spawnSync('dd', [`if=${this.#copy}`, `of=${this.#path}`, 'bs=1M', 'status=none']);
    this.touchBack();
  }

  /** The time of change (mtime) that the file had. */
  touchBack(): void {
    this.#copyTimes(this.#copy, this.#path);
  }

  /** To the nanosecond, which Node.js cannot. */
  #copyTimes(from: string, to: string): void {
    const { status } = spawnSync('touch', ['-r', from, to]);
    if (status !== 0) utimesSync(to, statSync(from).atime, statSync(from).mtime);
  }
}
