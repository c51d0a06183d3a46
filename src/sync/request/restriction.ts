import { lstatSync, statSync } from 'node:fs';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { sanitizeText, SqlsyncError, systemErrorCode } from '../../errors.ts';
import { ownDescriptors } from '../../files/descriptors.ts';
import { realPath } from '../../files/path-names.ts';
import { currentFileId } from '../../pages/database-file.ts';
import type { StoreRights } from './store-rights.ts';

export interface RestrictionOptions {
  /** The peer may only name databases inside this folder, which must exist. */
  readonly folder: string;
  /** 'read' only serves origins and stores, 'write' only writes replicas, 'add' serves both and adds to stores. */
  readonly access: 'read' | 'write' | 'add' | 'both';
  /** True to allow creating a replica, or a store, that does not exist. */
  readonly create: boolean;
}

/** An agent calls it before it opens what its peer named, and again when it is open. */
export interface AccessCheck {
  /**
   * The path to open: absolute, with every link resolved. `keepLink` leaves a link in its own place, for another check
   * to decide. Throws SqlsyncError RESTRICTED.
   */
  path(named: string, options?: { readonly keepLink: boolean }): string;
  /** The folder to look into, likewise; it may be the one that the agent is restricted to. */
  folder(named: string): string;
  /**
   * Reports that `path` was opened, and that it was the file `fileId` before. With `isHeld` false the file is not open:
   * it has no pages, or it is about to be opened. Throws SqlsyncError RESTRICTED.
   */
  opened(path: string, fileId: string, isHeld: boolean): void;
}

/**
 * Names beside a database that mean something to SQLite or sqlsync: writing one of them changes another database. Upper
 * and lower case count the same, as on some file systems.
 */
const COMPANION = /-(?:wal|shm|journal)$|^\..*\.sqlsync(?:-[\w-]+)?$/is;

/**
 * What an agent may do for its peer: read or write the databases inside one folder.
 *
 * The adversary is the peer, who can only send messages of the protocol and cannot change the folder between the check
 * and the opening. The second check, after the opening, guards against files that others move meanwhile. A hard link
 * cannot be told from the file it shares, so the folder should only hold databases.
 */
export class Restriction {
  readonly #options: RestrictionOptions;
  /** The folder as the command line names it, and its real path. */
  readonly #named: string;
  readonly #folder: string;

  /** Throws SqlsyncError USAGE if the folder does not exist or is not a folder. */
  constructor(options: RestrictionOptions) {
    this.#options = options;
    this.#named = resolve(options.folder);
    try {
      this.#folder = realPath(this.#named);
    } catch (error) {
      throw unusableFolder(this.#named, whyUnusable(error), error);
    }
    if (!statSync(this.#folder).isDirectory()) throw unusableFolder(this.#named, 'it is not a folder');
  }

  get origin(): AccessCheck {
    return {
      path: (named) => {
        if (this.#options.access === 'write') throw refused('it may be written, but not read (--write-only)');
        return this.#inside(named);
      },
      folder: (named) => {
        if (this.#options.access === 'write') throw refused('it may be written, but not read (--write-only)');
        const isWhole = [this.#folder, this.#named].includes(resolve(this.#folder, named));
        return isWhole ? this.#folder : this.#inside(named);
      },
      opened: (path, fileId, isHeld) => this.#opened(path, fileId, isHeld),
    };
  }

  get replica(): AccessCheck {
    return {
      path: (named, options) => {
        if (this.#options.access === 'read') throw refused('it may be read, but not written (--read-only)');
        if (this.#options.access === 'add')
          throw refused('stores may be added to, and nothing else be written (--append-only)');
        const path = this.#inside(named, options?.keepLink);
        if (COMPANION.test(basename(path))) {
          throw refused('a name of that kind belongs to the files beside another database');
        }
        if (!this.#options.create && !isThere(path)) {
          throw refused(
            'the database does not exist, and this agent may not create it (--allow-create would allow it)',
          );
        }
        return path;
      },
      folder: () => {
        throw refused('a list is for what may be read');
      },
      opened: (path, fileId, isHeld) => this.#opened(path, fileId, isHeld),
    };
  }

  get store(): StoreRights {
    const { access } = this.#options;
    return {
      may: access === 'both' ? 'all' : access === 'add' ? 'add' : 'read',
      folder: (named) => {
        const folder = this.origin.folder(named);
        if (!isThere(join(folder, 'config'))) this.#refuseNewStore(folder);
        return folder;
      },
      file: (path) => void this.#inside(path),
    };
  }

  /** A store within another one would add files to that which are not named by their bytes. */
  #refuseNewStore(folder: string): void {
    if (!this.#options.create || this.#options.access === 'read')
      throw refused('there is no store, and this agent may not make one (--allow-create would allow it)');
    for (let each = folder; each !== this.#folder; each = dirname(each))
      if (isThere(join(dirname(each), 'config'))) throw refused('a store cannot lie within another one');
  }

  /**
   * The real path of what the peer named, found by stepping through its names. Every path that leads outside gets the
   * same answer, so that the answer does not reveal whether it exists.
   */
  #inside(named: string, keepLink = false): string {
    let real = this.#folder;
    const names = this.#namesOf(named);
    for (const [i, name] of names.entries()) {
      real = join(real, name);
      const kept = keepLink && i === names.length - 1;
      if (kept || !isLink(real)) continue;
      real = targetOf(real);
      if (!isInside(real, this.#folder)) throw outsideFolder();
    }
    return real;
  }

  /** The steps from the folder to the path; a relative path begins in the folder. */
  #namesOf(named: string): string[] {
    const path = resolve(this.#folder, named);
    const folder = [this.#folder, this.#named].find((candidate) => isInside(path, candidate));
    if (folder === undefined || named.includes('\0')) throw outsideFolder();
    return relative(folder, path).split(sep);
  }

  #opened(path: string, fileId: string, isHeld: boolean): void {
    if (currentFileId(path) !== fileId || realPathOf(path) !== path || !isInside(path, this.#folder)) {
      throw outsideFolder();
    }
    if (isHeld && isOpenHere(fileId) === false) throw outsideFolder();
  }
}

/** True below the folder; not for the folder itself. */
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

/**
 * A path that cannot be inspected (a name that is too long, a file in the place of a folder) fails when it is opened.
 */
function isLink(path: string): boolean {
  try {
    return lstatSync(path).isSymbolicLink();
  } catch {
    return false;
  }
}

function targetOf(link: string): string {
  const target = realPathOf(link);
  if (target === undefined) throw outsideFolder();
  return target;
}

function realPathOf(path: string): string | undefined {
  try {
    return realPath(path);
  } catch {
    return undefined;
  }
}

/** True if this process has the file open; undefined if the system does not list descriptors. */
function isOpenHere(fileId: string): boolean | undefined {
  return ownDescriptors()?.some((descriptor) => currentFileId(descriptor) === fileId);
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

function outsideFolder(): SqlsyncError {
  return refused('the path does not lead to a file inside the folder of its --restrict');
}

function refused(why: string): SqlsyncError {
  return new SqlsyncError('RESTRICTED', `The agent there is restricted: ${why}`, {
    hint: 'Relative paths begin in the folder it is restricted to. Ask the administrator of that host to allow more.',
  });
}
