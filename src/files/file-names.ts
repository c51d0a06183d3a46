import { closeSync, lstatSync, openSync, readdirSync, readSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** A folder with more names than this is not searched for other names of a file. */
const MAX_NAMES = 10_000;

/**
 * SQLite keeps commits, or the undo of a killed transaction, in these files beside the name by which the database was
 * opened.
 */
const JOURNALS = ['-wal', '-journal'] as const;

/** How a file begins that holds something: without these bytes SQLite takes nothing from it. */
const MAGIC = {
  '-wal': ['377f0682', '377f0683'],
  '-journal': ['d9d505f920a163d7'],
} as const;

/** A -wal of this length has no frame yet. */
const WAL_HEADER_BYTES = 32;

/** The journal of a database, beside another name of its file. */
export interface JournalElsewhere {
  readonly name: string;
  readonly journal: string;
}

/**
 * Looks in the folder of `path` for another hard link to its file that has a journal with changes; undefined if there
 * is none, or the folder cannot be read.
 */
export function journalByAnotherName(path: string): JournalElsewhere | undefined {
  const file = statSync(path, { throwIfNoEntry: false });
  if (file === undefined || file.nlink < 2) return undefined;
  const folder = dirname(path);
  for (const name of namesIn(folder)) {
    const other = join(folder, name);
    if (name === basename(path)) continue;
    const stats = lstatSync(other, { throwIfNoEntry: false });
    if (stats?.ino !== file.ino || stats.dev !== file.dev) continue;
    const suffix = JOURNALS.find((each) => holdsChanges(other, each));
    if (suffix !== undefined) return { name: other, journal: other + suffix };
  }
  return undefined;
}

/** True if the file at `path` has hard links. */
export function hasSeveralNames(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.nlink ?? 0) > 1;
}

/** True if a journal with changes lies beside `path` itself. */
export function hasOwnJournal(path: string): boolean {
  return JOURNALS.some((suffix) => holdsChanges(path, suffix));
}

function namesIn(folder: string): string[] {
  try {
    const names = readdirSync(folder);
    return names.length > MAX_NAMES ? [] : names;
  } catch {
    return [];
  }
}

/**
 * With journal_mode PERSIST a -journal stays, with zeros in the place of its header. If the file cannot be read, its
 * length has to do. SQLite holds no locks on these files, so closing a descriptor drops none.
 */
function holdsChanges(name: string, suffix: (typeof JOURNALS)[number]): boolean {
  const size = statSync(name + suffix, { throwIfNoEntry: false })?.size ?? 0;
  if (size === 0 || (suffix === '-wal' && size <= WAL_HEADER_BYTES)) return false;
  const head = Buffer.alloc(8);
  try {
    const file = openSync(name + suffix, 'r');
    try {
      readSync(file, head, 0, head.length, 0);
    } finally {
      closeSync(file);
    }
  } catch {
    return true;
  }
  const start = head.toString('hex');
  return MAGIC[suffix].some((magic) => start.startsWith(magic));
}
