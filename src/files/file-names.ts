import { lstatSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** A folder with more names than this is not searched for other names of a file. */
const MAX_NAMES = 10_000;

/**
 * SQLite keeps commits, or the undo of a killed transaction, in these files beside the name by which the database was
 * opened.
 */
const JOURNALS = ['-wal', '-journal'] as const;

/** The journal of a database, beside another name of its file. */
export interface JournalElsewhere {
  readonly name: string;
  readonly journal: string;
}

/**
 * Looks in the folder of `path` for another hard link to its file that has a journal with content; undefined if there
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
    const journal = JOURNALS.map((suffix) => other + suffix).find((each) => sizeOf(each) > 0);
    if (journal !== undefined) return { name: other, journal };
  }
  return undefined;
}

/** True if the file at `path` has hard links. */
export function hasSeveralNames(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.nlink ?? 0) > 1;
}

/** True if a journal with content lies beside `path` itself. */
export function hasOwnJournal(path: string): boolean {
  return JOURNALS.some((suffix) => sizeOf(path + suffix) > 0);
}

function namesIn(folder: string): string[] {
  try {
    const names = readdirSync(folder);
    return names.length > MAX_NAMES ? [] : names;
  } catch {
    return [];
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}
