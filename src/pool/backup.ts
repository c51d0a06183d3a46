import { SqlsyncError, errorFromData } from '../errors.ts';
import type { ErrorData } from '../errors.ts';
import { parseLocation } from '../transport/location.ts';
import { runOwnCommand } from './own-command.ts';
import { databasePath } from './settings.ts';
import type { BackupResult } from './types.ts';

/** Makes `target` an exact copy of the database at `path`, by `sqlsync PATH TARGET` in a child process. */
export async function backupDatabase(path: string, target: string | URL): Promise<BackupResult> {
  // An absolute path is never taken for a host or a command.
  const copy = databasePath(target, 'backup()');
  if (typeof target === 'string' && parseLocation(target).kind !== 'local') {
    throw new SqlsyncError('USAGE', `backup() got ${JSON.stringify(target)}; expected a file on this host`, {
      hint: `For another host, call sync() with this as its replica; for a file of that name, write "./" before it.`,
    });
  }
  const { status, last, error } = await runOwnCommand(['--json', path, copy]);
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
