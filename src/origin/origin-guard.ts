import { SqlsyncError } from '../errors.ts';
import { currentFileId } from '../pages/database-file.ts';
import type { DatabaseFile } from '../pages/database-file.ts';
import { originError, originReplaced } from './origin-error.ts';
import { fileVersion, ownVersion } from './origin-file.ts';

/** Runs the reads of an origin, and notices the changes that no lock prevents. */
export class OriginGuard {
  readonly #path: string;
  readonly #fileId: string;
  /** The file's version, if it is read without locks. */
  readonly #unlocked: string | undefined;
  /** The file's own version, if a program may write it by another name, where our lock does not hold. */
  #unguarded: string | undefined;

  constructor({ path, fileId }: DatabaseFile, { isUnlocked }: { readonly isUnlocked: boolean }) {
    this.#path = path;
    this.#fileId = fileId;
    this.#unlocked = isUnlocked ? fileVersion(path) : undefined;
  }

  /** From now on no program may write the file by another name. Call it when the snapshot has begun. */
  watchOtherNames(): void {
    this.#unguarded = ownVersion(this.#path);
  }

  /** Returns the result of `read`. Throws ORIGIN_*, and ORIGIN_CHANGED if a change made the result worthless. */
  reading<T>(read: () => T): T {
    let result: T;
    try {
      result = read();
    } catch (error) {
      const failure = originError(this.#path, error);
      // A program that replaces a database often removes its -wal first; a read then finds pages missing, or damage.
      const looksDamaged = failure.code === 'ORIGIN_UNREADABLE' || failure.code === 'ORIGIN_NOT_A_DATABASE';
      throw looksDamaged && this.isReplaced() ? originReplaced(this.#path) : failure;
    }
    this.#checkUnchanged();
    return result;
  }

  /** True if the path now names another file than the one that is read, or none. Throws ORIGIN_*. */
  isReplaced(): boolean {
    try {
      return currentFileId(this.#path) !== this.#fileId;
    } catch (error) {
      throw originError(this.#path, error);
    }
  }

  /**
   * Data read without locks is worthless once a program has changed the file. The check follows each read, so that the
   * error names the cause; later the change would look like damage on the way.
   */
  #checkUnchanged(): void {
    if (this.#unguarded !== undefined && this.#unguarded !== ownVersion(this.#path)) {
      throw new SqlsyncError(
        'ORIGIN_CHANGED',
        `A program changed ${this.#path} while sqlsync read it, through another name of the file, where locks do not hold`,
        { hint: 'Nothing was changed. Use the same path as that program.' },
      );
    }
    if (this.#unlocked === undefined || this.#unlocked === fileVersion(this.#path)) return;
    throw new SqlsyncError(
      'ORIGIN_CHANGED',
      `A program changed ${this.#path} while sqlsync read it, without locks because this user may not write its folder`,
      {
        hint: 'Nothing was changed. Run sqlsync again when no program writes. To read with locks: let the application keep a connection open, allow this user to write the folder, or run sqlsync as the application’s user.',
      },
    );
  }
}
