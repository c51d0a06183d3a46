import { dirname } from 'node:path';
import { SqlsyncError, sanitizeText } from '../errors.ts';
import { allocatedBytes, sizeText } from './free-space.ts';
import { besideReplica } from '../beside/mark.ts';
import { resolveReplica } from './replica-links.ts';
import { tryExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';

export interface FailedRun {
  /** Of the replica or the target of a restore. */
  readonly path: string;
  readonly followLinks: boolean;
  /** A restore has a database and no replica. */
  readonly restores: boolean;
}

/** The failure of a run as its user has to see it: in the words of a restore, and with the file that it left. */
export function replicaFailure(error: unknown, run: FailedRun): unknown {
  if (!(error instanceof SqlsyncError)) return error;
  const left = leftoverHint(error, run);
  const hint = [error.hint, left].filter((text) => text !== undefined).join(' ');
  if (!run.restores && left === undefined) return error;
  const reword = (text: string): string => (run.restores ? inWordsOfRestore(text, run.path) : text);
  const { code, outcome, cause } = error;
  return new SqlsyncError(code, reword(error.message), {
    ...(hint === '' ? {} : { hint: reword(hint) }),
    outcome,
    cause: cause ?? error,
  });
}

/** Names the part file or spool beside the database, unless another run works with it. */
function leftoverHint({ code, hint }: SqlsyncError, { path, followLinks }: FailedRun): string | undefined {
  try {
    const resolved = resolveReplica(path, followLinks);
    const names = (['-part', '-spool'] as const).map((suffix) => besideReplica(resolved, suffix));
    const left = names.find((name) => allocatedBytes(name) > 0);
    if (left === undefined || hint?.includes(left) === true) return undefined;
    // An agent of this run that was told to end may still hold the lock.
    if (code !== 'INTERRUPTED' && code !== 'TIMEOUT' && isLocked(resolved)) return undefined;
    return `${sanitizeText(left)} (${sizeText(allocatedBytes(left))}) keeps what has arrived: run it again to go on from it, or remove it.`;
  } catch {
    // The failure itself is what counts.
    return undefined;
  }
}

function isLocked(path: string): boolean {
  const lock = tryExclusiveLock(besideReplica(path, '-lock'));
  lock?.release();
  return lock === undefined;
}

/** The word "replica", which is no part of a path. */
const REPLICA = /(?<![\w./-])(r)eplica(?![\w/-]|\.\w)/gi;

/** Texts of the layers below, which know replicas only, as a restore says them. */
function inWordsOfRestore(text: string, path: string): string {
  const database = (word: string): string => (word.startsWith('R') ? 'Database' : 'database');
  // A folder may have the word in its name.
  const folder = dirname(path);
  return text
    .split(folder)
    .map((part) => part.replaceAll(REPLICA, database))
    .join(folder);
}
