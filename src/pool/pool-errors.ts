import { SqlsyncError } from '../errors.ts';

/** @param what The kind of work. */
export function abortedError(signal: AbortSignal, what = 'work'): SqlsyncError {
  return new SqlsyncError('ABORTED', `the ${what} was aborted by its signal`, {
    hint: 'The reason of the signal is the cause of this error.',
    cause: signal.reason,
  });
}

export function closedError(message: string): SqlsyncError {
  return new SqlsyncError('CLOSED', message, {
    hint: 'Close a database after everything that uses it has ended, or open it again with openDatabase().',
  });
}
