import { resolve } from 'node:path';
import { SqlsyncError, errorFromData } from '../errors.ts';
import type { ErrorData } from '../errors.ts';
import { valueInWords } from './call-options.ts';
import { runOwnCommand } from './own-command.ts';
import type { BackupResult } from './types.ts';

/** Makes `target` an exact copy of the database at `path`, by `sqlsync PATH TARGET` in a child process. */
export async function backupDatabase(path: string, target: string): Promise<BackupResult> {
  if (typeof target !== 'string' || target === '') {
    throw new SqlsyncError('USAGE', `backup() got ${valueInWords(target)}; expected the path of a file`);
  }
  // An absolute path is never taken for a host or a command.
  const { status, last, error } = await runOwnCommand(['--json', path, resolve(target)]);
  if (status === 0 && last !== undefined) {
    const { outcome, pageSize, pageCount, pagesChanged } = last as BackupResult;
    return { outcome, pageSize, pageCount, pagesChanged };
  }
  const said = last as (Partial<ErrorData> & { readonly type?: string }) | undefined;
  if (said?.type === 'error') {
    const { code, message = '', hint, outcome } = said;
    throw errorFromData({
      name: 'SqlsyncError',
      code,
      message,
      hint,
      outcome,
      stack: undefined,
      cause: undefined,
    });
  }
  throw new SqlsyncError('WORKER_LOST', `The child process of backup() ended with ${String(status)}`, {
    hint: 'The copy is the old or the new one, whole. Run it again.',
    cause: error,
  });
}
