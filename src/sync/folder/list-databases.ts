import { closeSync, constants, openSync, readSync, readdirSync } from 'node:fs';
import type { Dirent } from 'node:fs';
import { join } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { decodeName } from '../../files/path-names.ts';
import type { FilterRules } from './filter-rules.ts';

/** Longer paths of what is omitted are cut. */
export const MAX_SHOWN_PATH = 1000;

/** Something in the folder that is not copied, and why. */
export interface Omitted {
  /** Relative to the folder, and made safe to show: at most `MAX_SHOWN_PATH` characters and a sign that it was cut. */
  readonly path: string;
  readonly why: string;
  /** True if databases may be behind it, so that what is missing from the list may be there. */
  readonly mayHide: boolean;
}

export interface FolderList {
  /** Relative to the folder, with slashes, in the order of their bytes. */
  readonly databases: readonly string[];
  readonly omitted: readonly Omitted[];
}

const MAGIC = Buffer.from('SQLite format 3\0', 'latin1');

/** What lies beside a database, and goes with it or belongs to this host. */
const COMPANION = /-(?:wal|shm|journal)$|^\..*\.sqlsync(?:-[\w-]+)?$/is;

/** Deeper folders are a mistake, or somebody's trap. */
const MAX_DEPTH = 100;

/** More than so many names are no folder of databases. */
const MAX_NAMES = 1_000_000;

/**
 * The SQLite databases in a folder and those below it. Symbolic links are not followed, so there is no way out and no
 * loop. This process must have none of the databases open: closing a descriptor drops its locks.
 *
 * @throws {SqlsyncError} ORIGIN_NOT_FOUND, ORIGIN_PERMISSION or ORIGIN_UNREADABLE for the folder itself.
 */
export function listDatabases(folder: string, rules: FilterRules): FolderList {
  const walk = new Walk(folder, rules);
  walk.enter('', 0);
  return { databases: walk.databases, omitted: walk.omitted };
}

class Walk {
  readonly databases: string[] = [];
  readonly omitted: Omitted[] = [];
  readonly #folder: string;
  readonly #rules: FilterRules;
  #names = 0;

  constructor(folder: string, rules: FilterRules) {
    this.#folder = folder;
    this.#rules = rules;
  }

  /** `path` is '' for the folder itself. */
  enter(path: string, depth: number): void {
    let entries;
    try {
      entries = readdirSync(join(this.#folder, path), { encoding: 'buffer', withFileTypes: true });
    } catch (error) {
      if (path === '') throw folderError(this.#folder, error);
      return this.#omit(path, `cannot be looked into (${systemErrorCode(error)})`, true);
    }
    this.#names += entries.length;
    if (this.#names > MAX_NAMES)
      throw new SqlsyncError(
        'ORIGIN_UNREADABLE',
        `${sanitizeText(this.#folder)} has over ${MAX_NAMES} files`,
        {
          hint: 'Name a folder with databases only, or exclude folders.',
        },
      );
    for (const entry of entries.sort((a, b) => Buffer.compare(a.name, b.name))) {
      const name = decodeName(entry.name);
      const child = `${path === '' ? '' : `${path}/`}${name ?? entry.name.toString()}`;
      if (name === undefined) this.#omit(child, 'has a name that is not UTF-8', true);
      else this.#consider(child, name, entry, depth);
    }
  }

  #consider(path: string, name: string, entry: Dirent<Buffer>, depth: number): void {
    if (!this.#rules.includes(path, entry.isDirectory()) || COMPANION.test(name)) return;
    if (entry.isSymbolicLink()) return this.#omit(path, 'is a symbolic link', false);
    if (entry.isDirectory()) {
      if (depth < MAX_DEPTH) return this.enter(path, depth + 1);
      return this.#omit(path, `is more than ${MAX_DEPTH} folders deep`, true);
    }
    if (!entry.isFile()) return this.#omit(path, 'is no file', false);
    const start = startOf(join(this.#folder, path));
    if (start === 'gone') return;
    if (start === 'unreadable') return this.#omit(path, 'cannot be read', true);
    if (start.equals(MAGIC)) this.databases.push(path);
    else this.#omit(path, start.length === 0 ? 'is empty' : 'is no SQLite database', start.length > 0);
  }

  #omit(path: string, why: string, mayHide: boolean): void {
    this.omitted.push({ path: sanitizeText(path, MAX_SHOWN_PATH), why, mayHide });
  }
}

/** The first bytes of a file. */
function startOf(path: string): Buffer | 'gone' | 'unreadable' {
  let descriptor: number | undefined;
  try {
    // Another program may have put a link or a pipe there since it was listed.
    descriptor = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    const start = Buffer.alloc(MAGIC.length);
    return start.subarray(0, readSync(descriptor, start, 0, start.length, 0));
  } catch (error) {
    return systemErrorCode(error) === 'ENOENT' ? 'gone' : 'unreadable';
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

function folderError(folder: string, error: unknown): SqlsyncError {
  const shown = sanitizeText(folder);
  const code = systemErrorCode(error);
  const hint = 'Name a folder; a single database needs no --recursive.';
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return new SqlsyncError('ORIGIN_NOT_FOUND', `${shown} is no folder (${code})`, { hint, cause: error });
  const isDenied = code === 'EACCES' || code === 'EPERM';
  return new SqlsyncError(
    isDenied ? 'ORIGIN_PERMISSION' : 'ORIGIN_UNREADABLE',
    `${shown} cannot be looked into (${code})`,
    { hint: 'Run sqlsync as a user who may read it.', cause: error },
  );
}

/**
 * A path as a list from another host has it: true if it leads to a place below a folder, and to the place of a database.
 */
export function isPlainPath(path: string): boolean {
  const names = path.split('/');
  const isPlain = (name: string): boolean =>
    name !== '' && name !== '.' && name !== '..' && !COMPANION.test(name);
  return path.isWellFormed() && !path.includes('\0') && names.length <= MAX_DEPTH + 1 && names.every(isPlain);
}
