import { statSync } from 'node:fs';
import { sanitizeText, SqlsyncError } from '../errors.ts';
import { realPath } from '../files/path-names.ts';
import type { DatabaseFile } from '../pages/database-file.ts';
import {
  currentFileId,
  fileBytes,
  folderIsWritable,
  inspectDatabase,
  tooLongForSqlite,
  wouldLeaveForeignFiles,
} from '../pages/database-file.ts';
import { unknownFormat } from '../pages/header.ts';
import { findForeignLeftover } from '../beside/leftovers.ts';
import { originError, originNotADatabase, originNotFound } from './origin-error.ts';

/** The file at an origin's path. Throws ORIGIN_* if it cannot be an origin. */
export function inspectOrigin(path: string): { file: DatabaseFile; absolutePath: string } {
  let file: DatabaseFile | undefined;
  let absolutePath: string;
  try {
    absolutePath = realPath(path);
    const tooLong = tooLongForSqlite(absolutePath);
    if (tooLong !== undefined) {
      throw new SqlsyncError('ORIGIN_UNREADABLE', `Origin ${sanitizeText(path, 200)} ${tooLong}`, {
        hint: 'Move it to a shorter path.',
      });
    }
    file = inspectUncut(path, absolutePath);
  } catch (error) {
    throw originError(path, error);
  }
  if (file === undefined) throw originNotFound(path);
  if (!file.stats.isFile()) {
    const kind = file.stats.isDirectory() ? 'a folder' : 'no regular file';
    throw new SqlsyncError('ORIGIN_NOT_A_DATABASE', `Origin ${path} is ${kind}, not a database file`, {
      hint: 'Name the database file itself. From a backup store, `sqlsync restore STORE TARGET` writes one.',
    });
  }
  if (file.stats.size > 0 && file.header === undefined) throw originNotADatabase(path);
  const unknown = unknownFormat(file.header);
  if (unknown !== undefined) {
    throw new SqlsyncError('ORIGIN_NOT_A_DATABASE', `Origin ${path} ${unknown}`, {
      hint: 'Switch it to WAL with the program that wrote it (PRAGMA journal_mode = delete, then wal).',
    });
  }
  return { file, absolutePath };
}

/**
 * Looks at the file at `absolutePath`. Throws ORIGIN_UNREADABLE for a file of 0 bytes with changes beside it: another
 * program cut it off, and sqlsync must not copy it as empty. The journal of a first transaction is no such sign, nor
 * are changes beside a file that a program has begun to fill meanwhile.
 */
function inspectUncut(path: string, absolutePath: string): DatabaseFile | undefined {
  const file = inspectDatabase(absolutePath);
  if (file?.stats.isFile() !== true || file.stats.size > 0) return file;
  const leftover = findForeignLeftover(absolutePath);
  if (leftover === undefined) return file;
  const now = inspectDatabase(absolutePath);
  if (now === undefined || now.stats.size > 0) return now;
  throw new SqlsyncError(
    'ORIGIN_UNREADABLE',
    `Origin ${path} has 0 bytes, but ${leftover.path} has ${leftover.bytes}: another program cut the database off`,
    {
      hint: 'Nothing was changed. Keep both files, and restore the database from a backup or its replica; if it is meant to be empty, remove the other file.',
    },
  );
}

/**
 * True if the file must be read without locks, because its -shm file does not exist and cannot be created. Throws
 * ORIGIN_PERMISSION if opening it would fail, or would leave -wal and -shm files that the application could not write.
 */
export function mustOpenImmutable(file: DatabaseFile): boolean {
  if (file.header?.wal !== true) return false;
  const walThere = currentFileId(`${file.path}-wal`) !== undefined;
  const shmThere = currentFileId(`${file.path}-shm`) !== undefined;
  if (walThere && shmThere) return false;
  if (!folderIsWritable(file.path)) {
    if (shmThere || fileBytes(`${file.path}-wal`) === 0) return !shmThere;
    throw new SqlsyncError(
      'ORIGIN_PERMISSION',
      `Origin ${file.path} has changes in its -wal file, but no -shm file, and none can be created in its folder`,
      { hint: 'Open it once with the application or as its owner, or allow this user to write the folder.' },
    );
  }
  if (!wouldLeaveForeignFiles(file)) return false;
  throw new SqlsyncError(
    'ORIGIN_PERMISSION',
    `Origin ${file.path} is idle in WAL mode and belongs to another user (uid ${file.stats.uid}); opening it would create -wal and -shm files that its owner could not write`,
    { hint: 'Run sqlsync as the owner of the database, or while the application has it open.' },
  );
}

/** A stamp that changes with every write to the file or its -wal, even if the writer has gone again. */
export function fileVersion(path: string): string {
  const { size, mtimeNs, ctimeNs } = statSync(path, { bigint: true });
  return `${size} ${mtimeNs} ${ctimeNs} ${fileBytes(`${path}-wal`)}`;
}

/** A stamp that changes with every write to the file itself, which in WAL mode is a checkpoint. */
export function ownVersion(path: string): string {
  const { size, mtimeNs } = statSync(path, { bigint: true });
  return `${size} ${mtimeNs}`;
}
