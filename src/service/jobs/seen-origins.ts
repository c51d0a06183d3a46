import { existsSync, statSync } from 'node:fs';
import { SqlsyncError, sanitizeLine, toSqlsyncError } from '../../errors.ts';
import { fixedFolder } from '../../cli/store/name-pattern.ts';
import { searchPattern } from '../../cli/store/origins.ts';
import type { EntryState } from '../state/state.ts';

/** How many looks in a row have to miss a database before it counts as gone. */
const LOOKS_UNTIL_GONE = 3;

/** A database that a pattern matches, or matched until a moment ago. */
export interface SeenOrigin {
  readonly origin: string;
  readonly error: SqlsyncError | undefined;
  /** True if the last look did not find it: a file that is replaced is away for a moment. */
  readonly isMissing: boolean;
}

interface Sight {
  readonly error: SqlsyncError | undefined;
  readonly misses: number;
  readonly missedSinceMs: number;
}

export interface Look {
  readonly origins: readonly SeenOrigin[];
  readonly entry: EntryState;
  /** False if a part of what the pattern searches could not be read: what was there may still be. */
  readonly isWhole: boolean;
}

/** The databases of patterns and watched folders, with the memory of a few looks. */
export class SeenOrigins {
  readonly #sights = new Map<string, ReadonlyMap<string, Sight>>();

  /** Looks for the databases of a pattern. `scanMs` is the time between two looks. */
  look(pattern: string, isKnown: (path: string) => boolean, scanMs: number): Look {
    const { found, failure } = search(pattern, isKnown);
    const sights = new Map<string, Sight>();
    for (const [origin, sight] of this.#sights.get(pattern) ?? []) {
      const missed = missedAgain(sight, performance.now(), failure === undefined);
      if (!hasGone(missed, scanMs)) sights.set(origin, missed);
    }
    for (const { origin, error } of found) sights.set(origin, { error, misses: 0, missedSinceMs: 0 });
    this.#sights.set(pattern, sights);
    const here = new Set(found.map(({ origin }) => origin));
    return {
      origins: [...sights].map(([origin, { error }]) => ({ origin, error, isMissing: !here.has(origin) })),
      entry: entryOf(pattern, here.size, failure),
      isWhole: failure === undefined,
    };
  }
}

function missedAgain(sight: Sight, nowMs: number, counts: boolean): Sight {
  if (!counts) return sight;
  const { error, misses, missedSinceMs } = sight;
  return { error, misses: misses + 1, missedSinceMs: misses === 0 ? nowMs : missedSinceMs };
}

/** Looks may follow each other at once, so time has to pass as well. */
function hasGone({ misses, missedSinceMs }: Sight, scanMs: number): boolean {
  return misses >= LOOKS_UNTIL_GONE && performance.now() - missedSinceMs >= scanMs * (LOOKS_UNTIL_GONE - 1);
}

function search(
  pattern: string,
  isKnown: (path: string) => boolean,
): { readonly found: readonly { origin: string; error?: SqlsyncError }[]; readonly failure?: SqlsyncError } {
  try {
    const folder = fixedFolder(pattern);
    if (!existsSync(folder) || !statSync(folder).isDirectory())
      return { found: [], failure: missing(folder) };
    const listeners = { isBackedUp: isKnown, onNote: () => {}, onWarning: () => {} };
    const { origins, unsearched } = searchPattern(pattern, listeners);
    const [first] = unsearched;
    return first === undefined ? { found: origins } : { found: origins, failure: first.error };
  } catch (error) {
    return { found: [], failure: toSqlsyncError(error) };
  }
}

function missing(folder: string): SqlsyncError {
  return new SqlsyncError('ORIGIN_NOT_FOUND', `The folder ${sanitizeLine(folder)} is not there`, {
    hint: 'Check its name, and whether it is mounted.',
  });
}

/** An entry without databases is late: a monitor would not see that nothing is copied. */
function entryOf(pattern: string, databases: number, failure: SqlsyncError | undefined): EntryState {
  const entry = sanitizeLine(pattern, 1000);
  if (failure !== undefined) return { entry, databases, level: 'failing', why: failure.message };
  if (databases > 0) return { entry, databases, level: 'fine', why: undefined };
  return { entry, databases, level: 'late', why: `No database matches ${entry}.` };
}
