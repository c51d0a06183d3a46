import { closeSync, openSync, readSync, realpathSync, statSync } from 'node:fs';
import type { Stats } from 'node:fs';
import { basename } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';
import { isPattern, matchNames } from './name-pattern.ts';

/** How a file of SQLite begins. */
const MAGIC = Buffer.from('SQLite format 3\0', 'latin1');

/** A database that is meant, or a pattern that none matches, with the error that this is. */
export interface Origin {
  readonly origin: string;
  readonly error?: SqlsyncError;
}

/**
 * The databases that are meant: a local path with `*`, `?` or `[` that is no file itself stands for all databases that match
 * it, in the order of their names. A file of 0 bytes is an empty database, as to SQLite.
 *
 * What matches and cannot be taken is an origin with an error: a link that leads nowhere, a name that is no UTF-8, a folder that
 * cannot be read, a file that was a database when it was backed up last. What was never one is told by `onWarning` if it is a file,
 * and by `onNote` if it belongs to a database (-wal files, marks) or can be none (folders, pipes).
 */
export function expandOrigins(given: readonly string[], listeners: PatternListeners): Origin[] {
  const origins = given.flatMap((text) => expand(text, listeners));
  return [...new Map(origins.map((each) => [each.origin, each])).values()];
}

export interface PatternListeners {
  /** Whether the file at this real path was backed up before. */
  readonly isBackedUp: (path: string) => boolean;
  readonly onNote: (note: string) => void;
  readonly onWarning: (warning: string) => void;
}

function expand(text: string, listeners: PatternListeners): Origin[] {
  const location = parseLocation(text);
  if (location.kind === 'ssh' || !isPattern(location.path) || isFile(location.path))
    return [{ origin: text }];
  const { paths, unseen } = matchNames(location.path);
  const origins = paths.flatMap((path) => judge(path, text, listeners));
  for (const { path, error } of unseen) origins.push({ origin: named(path), error });
  if (origins.length > 0) return origins;
  const error = new SqlsyncError('ORIGIN_NOT_FOUND', `No database matches ${sanitizeText(text)}`, {
    hint: 'Check the pattern; the shell expands it too, where it is not quoted.',
  });
  return [{ origin: text, error }];
}

/** The origin that a match is; none where it is no database. */
function judge(path: string, pattern: string, { isBackedUp, onNote, onWarning }: PatternListeners): Origin[] {
  if (COMPANION.test(basename(path))) {
    onNote(`${path} belongs to a database`);
    return [];
  }
  const found = lookAt(path);
  if (found instanceof SqlsyncError) return [{ origin: named(path), error: found }];
  if (!found.isFile()) {
    onNote(`${path} matches ${pattern}, but is no file`);
    return [];
  }
  if (isDatabase(path)) return [{ origin: named(path) }];
  if (!isBackedUp(realpathSync(path))) {
    onWarning(`${sanitizeText(path)} matches ${sanitizeText(pattern)}, but is no database`);
    return [];
  }
  const error = new SqlsyncError(
    'ORIGIN_NOT_A_DATABASE',
    `${sanitizeText(path)} was a database when it was backed up last, and is none any more`,
    { hint: 'Its header is damaged, or another file is in its place. Its snapshots are in the store.' },
  );
  return [{ origin: named(path), error }];
}

function lookAt(path: string): Stats | SqlsyncError {
  try {
    return statSync(path);
  } catch (error) {
    const shown = sanitizeText(path);
    const code = systemErrorCode(error);
    if (code === 'EACCES' || code === 'EPERM') {
      return new SqlsyncError('ORIGIN_PERMISSION', `${shown} cannot be looked at (${code})`, {
        hint: 'Run it as a user who may read what it leads to.',
      });
    }
    return new SqlsyncError('ORIGIN_NOT_FOUND', `${shown} is a link that leads nowhere (${code})`, {
      hint: 'Is what it leads to mounted? Else remove the link, or leave it out of the pattern.',
    });
  }
}

/** So that it is read as a path, whatever it begins with. */
function named(path: string): string {
  return path.startsWith('/') ? path : `./${path}`;
}

/** On another host a pattern is a name like any other, so that where there is none of that name, something else was meant. */
export function explainPattern(origin: string, failure: SqlsyncError): SqlsyncError {
  const location = parseLocation(origin);
  if (failure.code !== 'ORIGIN_NOT_FOUND' || location.kind !== 'ssh' || !isPattern(location.path))
    return failure;
  const host = formatLocation({ ...location, path: '' }).replace(/:$/, '');
  return new SqlsyncError(
    failure.code,
    `${failure.message}; patterns stand for databases of this host only`,
    {
      hint: `Name each database on ${sanitizeText(host, 200)}, or run sqlsync there, with a store of its own.`,
      cause: failure,
    },
  );
}

/** What lies beside a database. */
const COMPANION = /-(?:wal|shm|journal)$|^\..*\.sqlsync(?:-\w+)?$/i;

function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** By its first bytes, or as it has none; this process has no database open, whose locks closing a descriptor would drop. */
function isDatabase(path: string): boolean {
  // What cannot be read is reported when it is backed up.
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch {
    return true;
  }
  try {
    const start = Buffer.alloc(MAGIC.length);
    const bytes = readSync(descriptor, start, 0, start.length, 0);
    return bytes === 0 || start.equals(MAGIC);
  } finally {
    closeSync(descriptor);
  }
}
