import { existsSync, closeSync, lstatSync, openSync, readSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { basename } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';
import { isPattern, matchNames } from './name-pattern.ts';
import type { Unseen } from './name-pattern.ts';

/** The first bytes of an SQLite file. */
const MAGIC = Buffer.from('SQLite format 3\0', 'latin1');

/** A database to back up, or a pattern without a match, with the error for it. */
export interface Origin {
  readonly origin: string;
  readonly error?: SqlsyncError;
}

/**
 * Expands the given origins: a local path with `*`, `?` or `[` that is no file itself stands for all databases that
 * match it, in the order of their names. A file of 0 bytes is an empty database, as for SQLite.
 *
 * A match that cannot be used is an origin with an error: a link that leads nowhere, a name that is not UTF-8, a folder
 * that cannot be read, a file that was a database at its last backup. A match that was never a database is reported: a
 * file to `onWarning`; a database's companion (-wal files, marks) and anything that cannot be a database (folders,
 * pipes) to `onNote`.
 */
export function expandOrigins(given: readonly string[], listeners: PatternListeners): Origin[] {
  const origins = given.flatMap((text) => expand(text, listeners));
  return [...new Map(origins.map((each) => [each.origin, each])).values()];
}

export interface PatternListeners {
  /** True if the file at this path, as it matched, was backed up before. */
  readonly isBackedUp: (path: string) => boolean;
  readonly onNote: (note: string) => void;
  readonly onWarning: (warning: string) => void;
}

function expand(text: string, listeners: PatternListeners): Origin[] {
  const location = parseLocation(text);
  if (location.kind === 'ssh' || !isPattern(location.path) || isFile(location.path))
    return [{ origin: text }];
  const { origins, unsearched } = searchPattern(location.path, listeners);
  for (const { path, error } of unsearched) origins.push({ origin: named(path), error });
  if (origins.length > 0) return origins;
  const error = new SqlsyncError('ORIGIN_NOT_FOUND', `No database matches ${sanitizeText(text)}`, {
    hint: 'Check the pattern. The shell expands it too if it is not quoted.',
  });
  return [{ origin: text, error }];
}

/** All that matches a path, taken as a pattern, and the places that could not be searched. */
export function searchPattern(
  pattern: string,
  listeners: PatternListeners,
): { readonly origins: Origin[]; readonly unsearched: readonly Unseen[] } {
  const { paths, unseen } = matchNames(pattern);
  const origins = paths.flatMap((path) => judge(path, pattern, listeners));
  for (const { path, error, isSearched } of unseen)
    if (!isSearched) origins.push({ origin: named(path), error });
  return { origins, unsearched: unseen.filter(({ isSearched }) => isSearched) };
}

/** The origin for a match; none if it is not a database, or has gone since it was listed. */
function judge(path: string, pattern: string, { isBackedUp, onNote, onWarning }: PatternListeners): Origin[] {
  if (COMPANION.test(basename(path))) {
    onNote(`${path} belongs to a database`);
    return [];
  }
  const found = lookAt(path);
  if (found === undefined) return [];
  if (found instanceof SqlsyncError) return [{ origin: named(path), error: found }];
  if (!found.isFile()) {
    onNote(`${path} matches ${pattern}, but is no file`);
    return [];
  }
  if (isDatabase(path)) return [{ origin: named(path) }];
  const wasBackedUp = isBackedUp(path);
  if (!wasBackedUp && !looksLikeDatabase(path)) {
    onWarning(`${sanitizeText(path)} matches ${sanitizeText(pattern)}, but is no database`);
    return [];
  }
  if (hasGone(path)) return [];
  const error = new SqlsyncError(
    'ORIGIN_NOT_A_DATABASE',
    wasBackedUp
      ? `${sanitizeText(path)} was a database at its last backup, and is not one any more`
      : `${sanitizeText(path)} is no database, though its name or a -wal beside it says so`,
    {
      hint: wasBackedUp
        ? 'Its header is damaged, or another file is in its place. Its snapshots are in the store.'
        : 'Its header is damaged, or it is another file: exclude it from the pattern.',
    },
  );
  return [{ origin: named(path), error }];
}

/** Endings of database files, whose users would want to know that one of them cannot be read. */
const DATABASE_NAME = /\.(db|db3|sdb|s3db|sqlite|sqlite2|sqlite3|sl3)$/i;

function looksLikeDatabase(path: string): boolean {
  return DATABASE_NAME.test(path) || existsSync(`${path}-wal`);
}

/** Undefined for a path that has gone since it was listed. */
function lookAt(path: string): Stats | SqlsyncError | undefined {
  try {
    return statSync(path);
  } catch (error) {
    if (hasGone(path)) return undefined;
    const shown = sanitizeText(path);
    const code = systemErrorCode(error);
    if (code === 'EACCES' || code === 'EPERM') {
      return new SqlsyncError('ORIGIN_PERMISSION', `${shown} cannot be looked at (${code})`, {
        hint: 'Run sqlsync as a user who may read what it leads to.',
      });
    }
    return new SqlsyncError('ORIGIN_NOT_FOUND', `${shown} is a link that leads nowhere (${code})`, {
      hint: 'Check that its target is mounted. Otherwise remove the link, or exclude it from the pattern.',
    });
  }
}

function hasGone(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}

/** A form that is read as a path, whatever it begins with. */
function named(path: string): string {
  return path.startsWith('/') ? path : `./${path}`;
}

/** A pattern is an ordinary name on another host. If no file there has that name, the user probably meant a pattern. */
export function explainPattern(origin: string, failure: SqlsyncError): SqlsyncError {
  const location = parseLocation(origin);
  if (failure.code !== 'ORIGIN_NOT_FOUND' || location.kind !== 'ssh' || !isPattern(location.path))
    return failure;
  const host = formatLocation({ ...location, path: '' }).replace(/:$/, '');
  return new SqlsyncError(
    failure.code,
    `${failure.message}; patterns stand for databases of this host only`,
    {
      hint: `Name each database on ${sanitizeText(host, 200)}, or run sqlsync there, with a store on that host.`,
      cause: failure,
    },
  );
}

/** Names of files that lie beside a database. */
const COMPANION = /-(?:wal|shm|journal)$|^\..*\.sqlsync(?:-\w+)?$/i;

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/**
 * Decides by its first bytes; an empty file is one too. This process has no database open whose locks closing a
 * descriptor would drop.
 */
function isDatabase(path: string): boolean {
  // A file that cannot be read is reported when it is backed up.
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch {
    return !hasGone(path);
  }
  try {
    const start = Buffer.alloc(MAGIC.length);
    const bytes = readSync(descriptor, start, 0, start.length, 0);
    return bytes === 0 || start.equals(MAGIC);
  } catch {
    return true;
  } finally {
    closeSync(descriptor);
  }
}
