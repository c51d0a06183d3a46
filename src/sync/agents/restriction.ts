import { lstatSync, readdirSync, statSync } from 'node:fs';
import { basename, join, relative, resolve, sep } from 'node:path';
import { sanitizeText, SqlsyncError, systemErrorCode } from '../../errors.ts';
import { realPath } from '../../files/path-names.ts';
import { currentFileId } from '../../pages/database-file.ts';

export interface RestrictionOptions {
  /** The peer may only name databases inside this folder, which has to exist. */
  readonly folder: string;
  /** 'read' serves origins only, 'write' writes replicas only. */
  readonly access: 'read' | 'write' | 'both';
  /** A replica that does not exist may be made. */
  readonly create: boolean;
}

/** What an agent asks before it opens what its peer named, and once more when it is open. */
export interface AccessCheck {
  /**
   * The path to open: absolute, with every link resolved, but for a link in its own place where `keepLink` says that
   * somebody else decides about that. Throws SqlsyncError RESTRICTED.
   */
  path(named: string, options?: { readonly keepLink: boolean }): string;
  /**
   * `path` was opened, and was the file `fileId` before that; with `isHeld` false it was only looked at, as a file
   * without pages is, or is about to be opened. Throws SqlsyncError RESTRICTED.
   */
  opened(path: string, fileId: string, isHeld: boolean): void;
}

/**
 * Names beside a database that SQLite or sqlsync give a meaning: writing one of them changes another database. In any
 * case, since some file systems make no difference.
 */
const COMPANION = /-(?:wal|shm|journal)$|^\..*\.sqlsync(?:-\w+)?$/is;

/**
 * What an agent may do for its peer: read or write the databases inside one folder.
 *
 * The adversary is the peer, which has nothing but the messages of the protocol; it cannot change the folder between
 * the check and the opening. That the file is compared once more after it was opened guards against what others move
 * meanwhile. A hard link cannot be told from the file it shares, so the folder should hold nothing but databases.
 */
export class Restriction {
  readonly #options: RestrictionOptions;
  /** The folder as it was named, and its real path. */
  readonly #named: string;
  readonly #folder: string;

  /** Throws SqlsyncError USAGE if the folder is none. */
  constructor(options: RestrictionOptions) {
    this.#options = options;
    this.#named = resolve(options.folder);
    try {
      this.#folder = realPath(this.#named);
    } catch (error) {
      throw unusableFolder(this.#named, whyUnusable(error), error);
    }
    if (!statSync(this.#folder).isDirectory()) throw unusableFolder(this.#named, 'it is no folder');
  }

  get origin(): AccessCheck {
    return {
      path: (named) => {
        if (this.#options.access === 'write') throw refused('it may be written, but not read (--write-only)');
        return this.#inside(named);
      },
      opened: (path, fileId, isHeld) => this.#opened(path, fileId, isHeld),
    };
  }

  get replica(): AccessCheck {
    return {
      path: (named, options) => {
        if (this.#options.access === 'read') throw refused('it may be read, but not written (--read-only)');
        const path = this.#inside(named, options?.keepLink);
        if (COMPANION.test(basename(path))) {
          throw refused('a name of that kind belongs to the files beside another database');
        }
        if (!this.#options.create && !isThere(path)) {
          throw refused('there is no such database, and none may be made (--allow-create would allow it)');
        }
        return path;
      },
      opened: (path, fileId, isHeld) => this.#opened(path, fileId, isHeld),
    };
  }

  /**
   * The real path of what the peer named, by stepping through its names. What lies outside gets one and the same
   * answer, so that it does not tell whether it exists.
   */
  #inside(named: string, keepLink = false): string {
    let real = this.#folder;
    const names = this.#namesOf(named);
    for (const [i, name] of names.entries()) {
      real = join(real, name);
      const kept = keepLink && i === names.length - 1;
      if (kept || !isLink(real)) continue;
      real = targetOf(real);
      if (!isInside(real, this.#folder)) throw outside();
    }
    return real;
  }

  /** The steps from the folder to it; a relative path begins there. */
  #namesOf(named: string): string[] {
    const path = resolve(this.#folder, named);
    const folder = [this.#folder, this.#named].find((candidate) => isInside(path, candidate));
    if (folder === undefined || named.includes('\0')) throw outside();
    return relative(folder, path).split(sep);
  }

  #opened(path: string, fileId: string, isHeld: boolean): void {
    if (currentFileId(path) !== fileId || realPathOf(path) !== path || !isInside(path, this.#folder)) {
      throw outside();
    }
    if (isHeld && isOpenHere(fileId) === false) throw outside();
  }
}

/** Below the folder; not the folder itself. */
function isInside(path: string, folder: string): boolean {
  return path.startsWith(folder.endsWith(sep) ? folder : folder + sep) && path !== folder;
}

function isThere(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    return false;
  }
}

/** What cannot be looked at (a name that is too long, a file where a folder is due) fails as it is opened. */
function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

function targetOf(link: string): string {
  const target = realPathOf(link);
  if (target === undefined) throw outside();
  return target;
}

function realPathOf(path: string): string | undefined {
  try {
    return realPath(path);
  } catch {
    return undefined;
  }
}

/** Whether this process has the file open; undefined if the system does not list descriptors. */
function isOpenHere(fileId: string): boolean | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    return readdirSync('/proc/self/fd').some((fd) => currentFileId(`/proc/self/fd/${fd}`) === fileId);
  } catch {
    return undefined;
  }
}

function whyUnusable(error: unknown): string {
  const code = systemErrorCode(error);
  if (code === 'ENOENT') return 'it does not exist';
  if (code === 'EACCES') return 'this user may not search the folders that lead to it';
  return error instanceof Error ? error.message : String(error);
}

function unusableFolder(folder: string, reason: string, cause?: unknown): SqlsyncError {
  const message = `--restrict: ${sanitizeText(folder, 200)} cannot be used: ${reason}`;
  return new SqlsyncError('USAGE', message, { hint: 'Name a folder that exists.', cause });
}

function outside(): SqlsyncError {
  return refused('the path does not lead to a file inside the folder of its --restrict');
}

function refused(why: string): SqlsyncError {
  return new SqlsyncError('RESTRICTED', `The agent there is restricted: ${why}`, {
    hint: 'Relative paths begin in the folder it is restricted to. Whoever runs that host decides about more.',
  });
}
