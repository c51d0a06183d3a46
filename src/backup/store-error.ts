import { sanitizeText, SqlsyncError, systemErrorCode } from '../errors.ts';

/** A file of the store is not as it was written. */
export class StoreDamage extends SqlsyncError {
  /** Its name in the store; a folder's where it is not known which file. */
  readonly file: string;

  constructor(code: 'STORE_DAMAGED' | 'STORE_FILE_MISSING', file: string, message: string, cause?: unknown) {
    super(code, message, {
      hint:
        file === 'config'
          ? '`sqlsync repair STORE` writes it anew.'
          : '`sqlsync check STORE --read-data` tells what is affected, and which snapshots can be restored; `sqlsync repair STORE` mends what can be.',
      cause,
    });
    this.file = file;
  }
}

/** A file of the store is not what it should be; `what` goes on from its name. */
export function damaged(file: string, what: string, cause?: unknown): StoreDamage {
  return new StoreDamage('STORE_DAMAGED', file, `${file} in the store ${sanitizeText(what)}`, cause);
}

/** A file that should be in the store is not. */
export function missingFile(description: string, file: string, cause?: unknown): StoreDamage {
  const text = `${file} is missing in the store ${description}`;
  return new StoreDamage('STORE_FILE_MISSING', file, text, cause);
}

/** The system refused an operation on the store. */
export function unavailable(description: string, what: string, cause: unknown): SqlsyncError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new SqlsyncError('STORE_UNAVAILABLE', `Store ${description}: cannot ${what}: ${sanitizeText(why)}`, {
    hint: hintFor(systemErrorCode(cause), /^(?:read|list)\b/.test(what)),
    cause,
  });
}

function hintFor(code: string | undefined, isReading: boolean): string {
  if (code === 'ENOSPC')
    return 'No space is left. Forget snapshots, then `sqlsync prune STORE`; with `--grace 0`, while nothing else uses the store, it waits for nothing.';
  if (!isReading)
    return 'Check permissions, free space and the connection. What was written so far does no harm; run it again.';
  if (code === 'EACCES' || code === 'EPERM')
    return 'Run it as the user that owns the store, or let this one read it: its files can be read by their owner only.';
  if (code === 'EMFILE' || code === 'ENFILE') return 'Allow more open files (`ulimit -n`), and run it again.';
  return 'Check the disk that the store is on, and the connection to it, and run it again.';
}

/** Checks the abort signal between two steps of a long run. Throws SqlsyncError INTERRUPTED. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted !== true) return;
  throw new SqlsyncError('INTERRUPTED', 'Interrupted', {
    hint: 'The store is as usable as before; run it again.',
    cause: signal.reason,
  });
}
