import { dirname } from 'node:path';
import { SqlsyncError, sanitizeText } from '../errors.ts';
import { allocatedBytes, sizeText } from './free-space.ts';
import { besideReplica } from '../beside/mark.ts';
import { resolveReplica } from './replica-links.ts';
import { tryExclusiveLock } from '../sqlite/locks/exclusive-lock.ts';

export interface FailedRun {
  /** Path of the replica, or of the target of a restore. */
  readonly path: string;
  readonly followLinks: boolean;
  /** True for a restore, whose target is a database and not a replica. */
  readonly restores: boolean;
}

/** The failure of a run as its user should see it: in the words of a restore, and naming the file that the run left. */
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

/** Names the part file or spool beside the database, unless another run uses it. */
function leftoverHint({ code, hint }: SqlsyncError, { path, followLinks }: FailedRun): string | undefined {
  // The file of that name may be the origin.
  if (code === 'SAME_FILE') return undefined;
  try {
    const resolved = resolveReplica(path, followLinks);
    const names = (['-part', '-spool'] as const).map((suffix) => besideReplica(resolved, suffix));
    const left = names.find((name) => allocatedBytes(name) > 0);
    if (left === undefined || hint?.includes(left) === true) return undefined;
    // An agent of this run that was asked to end may still hold the lock.
    if (code !== 'INTERRUPTED' && code !== 'TIMEOUT' && isLocked(resolved)) return undefined;
    return `${sanitizeText(left)} (${sizeText(allocatedBytes(left))}) keeps what has arrived: run sqlsync again to continue from it, or remove it.`;
  } catch {
    // The failure itself is what the user needs.
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

/** Rewords texts of the layers below, which only know replicas, for a restore. */
function inWordsOfRestore(text: string, path: string): string {
  const database = (word: string): string => (word.startsWith('R') ? 'Database' : 'database');
  // A folder's name may contain the word.
  const folder = dirname(path);
  return text
    .split(folder)
    .map((part) => part.replaceAll(REPLICA, database))
    .join(folder);
}
