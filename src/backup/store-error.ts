import { sanitizeText, SqlsyncError, systemErrorCode } from '../errors.ts';

/** A file of the store is not as it was written, or is of an older program that wrote it in another way. */
export class StoreDamage extends SqlsyncError {
  /** Its name in the store; the name of a folder if the file is unknown. */
  readonly file: string;

  constructor(
    code: 'STORE_DAMAGED' | 'STORE_FILE_MISSING' | 'STORE_VERSION',
    file: string,
    message: string,
    { cause, hint = hintForDamage(file) }: { readonly cause?: unknown; readonly hint?: string } = {},
  ) {
    super(code, message, { hint, cause });
    this.file = file;
  }
}

function hintForDamage(file: string): string {
  return file === 'config'
    ? '`sqlsync repair STORE` writes a new one.'
    : '`sqlsync check STORE --read-data` shows what is affected, and which snapshots can be restored. `sqlsync repair STORE` repairs what it can.';
}

/** The error for a damaged file of the store; `what` continues the sentence after its name. */
export function damaged(file: string, what: string, cause?: unknown): StoreDamage {
  return new StoreDamage('STORE_DAMAGED', file, `${file} in the store ${sanitizeText(what)}`, { cause });
}

/**
 * The error for a file of another version of the format. Only an older one is a StoreDamage, which a repair mends: a
 * program that cannot read the files of a newer one must change nothing in its store.
 */
export function otherVersion(file: string, version: number, known: number): SqlsyncError {
  const text = `${file} in the store has version ${version}; this program reads version ${known}`;
  if (version > known) return new SqlsyncError('STORE_VERSION', text, { hint: 'Install a newer sqlsync.' });
  const hint = 'An older sqlsync wrote it: `sqlsync repair STORE` writes it anew.';
  return new StoreDamage('STORE_VERSION', file, text, { hint });
}

/** The error for a missing file of the store. */
export function missingFile(description: string, file: string, cause?: unknown): StoreDamage {
  const text = `${file} is missing in the store ${description}`;
  return new StoreDamage('STORE_FILE_MISSING', file, text, { cause });
}

/** The error for a file that a bucket does not have in the past: nothing can repair that. */
export function missingInPast(description: string, file: string): SqlsyncError {
  const hint = 'The bucket may keep the versions of that time no more: give a later one with --at.';
  if (file === 'config')
    return new SqlsyncError('STORE_NOT_FOUND', `At that time there was no store in ${description}`, { hint });
  const text = `${file} was not there at that time in the store ${description}, or its version of then is gone`;
  return new StoreDamage('STORE_FILE_MISSING', file, text, { hint });
}

/**
 * The error if the place of the store refused an operation.
 *
 * @param hint - what to do, if the place knows better than the code of `cause` says.
 */
export function unavailable(
  description: string,
  what: string,
  cause: unknown,
  hint: string = hintFor(systemErrorCode(cause), /^(?:read|list)\b/.test(what)),
): SqlsyncError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new SqlsyncError('STORE_UNAVAILABLE', `Store ${description}: cannot ${what}: ${sanitizeText(why)}`, {
    hint,
    cause,
  });
}

function hintFor(code: string | undefined, isReading: boolean): string {
  if (code === 'ENOSPC' || code === 'EDQUOT')
    return 'No space is left. Forget snapshots, then run `sqlsync prune STORE`. While no other program uses the store, `--grace 0` frees the space at once.';
  if (!isReading)
    return 'Check permissions, free space and the connection, then run sqlsync again. What was written so far does no harm.';
  if (code === 'EACCES' || code === 'EPERM')
    return 'Run sqlsync as the user that owns the store, or allow this user to read it: only their owner can read its files.';
  if (code === 'EMFILE' || code === 'ENFILE')
    return 'Allow more open files (`ulimit -n`), then run sqlsync again.';
  return 'Check the disk of the store, and the connection to it, then run sqlsync again.';
}

/** Checks the abort signal between two steps of a long run. Throws SqlsyncError INTERRUPTED. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted !== true) return;
  throw new SqlsyncError('INTERRUPTED', 'Interrupted', {
    hint: 'The store is as usable as before. Run sqlsync again.',
    cause: signal.reason,
  });
}

/** True if the place of the store answered that it has no such file. */
export function isMissing(error: unknown): boolean {
  return error instanceof SqlsyncError && error.code === 'STORE_FILE_MISSING';
}
