import { closeSync, globSync, openSync, readSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';

/** How a file of SQLite begins. */
const MAGIC = Buffer.from('SQLite format 3\0', 'latin1');

/** A database that is meant, or a pattern that none matches, with the error that this is. */
export interface Origin {
  readonly origin: string;
  readonly error?: SqlsyncError;
}

/**
 * The databases that are meant: a local path with `*`, `?` or `[` that is no file itself stands for all databases that match
 * it, in the order of their names. A file of 0 bytes is an empty database, as to SQLite. What else matches and is no database is told
 * by `onNote` where it belongs to one (-wal files, marks), else by `onWarning`: it may be a database that is damaged.
 */
export function expandOrigins(given: readonly string[], listeners: PatternListeners): Origin[] {
  const origins = given.flatMap((text) => expand(text, listeners));
  return [...new Map(origins.map((each) => [each.origin, each])).values()];
}

export interface PatternListeners {
  onNote(note: string): void;
  onWarning(warning: string): void;
}

function expand(text: string, listeners: PatternListeners): Origin[] {
  const location = parseLocation(text);
  if (location.kind === 'ssh' || !PATTERN.test(location.path) || isFile(location.path))
    return [{ origin: text }];
  const matches = globSync(location.path).filter(isFile).sort();
  const databases = matches.filter((match) => !COMPANION.test(basename(match)) && isDatabase(match));
  for (const match of matches) {
    if (databases.includes(match)) continue;
    if (COMPANION.test(basename(match))) listeners.onNote(`${match} belongs to a database`);
    else listeners.onWarning(`${sanitizeText(match)} matches ${sanitizeText(text)}, but is no database`);
  }
  if (databases.length > 0)
    return databases.map((path) => ({ origin: path.startsWith('/') ? path : `./${path}` }));
  const error = new SqlsyncError('ORIGIN_NOT_FOUND', `No database matches ${sanitizeText(text)}`, {
    hint: 'Check the pattern; the shell expands it too, where it is not quoted.',
  });
  return [{ origin: text, error }];
}

/** On another host a pattern is a name like any other, so that where there is none of that name, something else was meant. */
export function explainPattern(origin: string, failure: SqlsyncError): SqlsyncError {
  const location = parseLocation(origin);
  if (failure.code !== 'ORIGIN_NOT_FOUND' || location.kind !== 'ssh' || !PATTERN.test(location.path))
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

/** What makes a path a pattern. */
const PATTERN = /[*?[]/;

/** What lies beside a database. */
const COMPANION = /-(?:wal|shm|journal)$|^\..*\.sqlsync(?:-\w+)?$/i;

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
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
