import { closeSync, globSync, openSync, readSync, statSync } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { parseLocation } from '../../transport/location.ts';

/** How a file of SQLite begins. */
const MAGIC = Buffer.from('SQLite format 3\0', 'latin1');

/** A database that is meant, or a pattern that none matches, with the error that this is. */
export interface Origin {
  readonly origin: string;
  readonly error?: SqlsyncError;
}

/**
 * The databases that are meant: a local path with `*`, `?` or `[` that is no file itself stands for all databases that match
 * it, in the order of their names. What matches and is no database (-wal files, marks) is told by `onNote`.
 */
export function expandOrigins(given: readonly string[], onNote: (note: string) => void): Origin[] {
  const origins = given.flatMap((text) => expand(text, onNote));
  return [...new Map(origins.map((each) => [each.origin, each])).values()];
}

function expand(text: string, onNote: (note: string) => void): Origin[] {
  const location = parseLocation(text);
  if (location.kind === 'ssh' || !/[*?[]/.test(location.path) || isFile(location.path))
    return [{ origin: text }];
  const matches = globSync(location.path).filter(isFile).sort();
  const databases = matches.filter(isDatabase);
  for (const match of matches) if (!databases.includes(match)) onNote(`${match} is no database`);
  if (databases.length > 0)
    return databases.map((path) => ({ origin: path.startsWith('/') ? path : `./${path}` }));
  const error = new SqlsyncError('ORIGIN_NOT_FOUND', `No database matches ${sanitizeText(text)}`, {
    hint: 'Check the pattern; the shell expands it too, where it is not quoted.',
  });
  return [{ origin: text, error }];
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

/** By its first bytes; this process has no database open, whose locks closing a descriptor would drop. */
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
    return readSync(descriptor, start, 0, start.length, 0) === start.length && start.equals(MAGIC);
  } finally {
    closeSync(descriptor);
  }
}
