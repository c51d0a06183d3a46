import { statSync } from 'node:fs';
import type { StoreCallOptions } from '../../backup/types.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { outputOf } from '../commands/common-options.ts';
import type { OutputArguments } from '../commands/common-options.ts';
import { exitStatusOf } from '../exit.ts';
import type { Output } from '../output.ts';
import { storeListeners } from '../progress.ts';
import { withInterruption } from '../signals.ts';

/** Runs a command on a store, and reports what it throws; returns the exit status. */
export async function runStoreCommand(
  command: string,
  args: OutputArguments,
  work: (output: Output, options: StoreCallOptions & { readonly signal: AbortSignal }) => Promise<number>,
): Promise<number> {
  const output = outputOf(args);
  const listeners = storeListeners(output);
  try {
    return await withInterruption((signal) =>
      work(output, { signal, onProgress: (progress) => listeners.onProgress(progress) }),
    );
  } catch (error) {
    const failure = explainName(command, toSqlsyncError(error));
    output.error(failure);
    return exitStatusOf(failure.code);
  } finally {
    listeners.end();
  }
}

/** Whoever has a database that is called as a command is, and means it. */
export function explainName(command: string, failure: SqlsyncError): SqlsyncError {
  const isAboutPlace = failure.code === 'STORE_NOT_FOUND' || failure.code === 'STORE_UNAVAILABLE';
  if (!isAboutPlace || statSync(command, { throwIfNoEntry: false })?.isFile() !== true) return failure;
  const hint = `${failure.hint ?? ''} The database that is called ${command} is ./${command}.`;
  return new SqlsyncError(failure.code, failure.message, { hint: hint.trim(), cause: failure });
}
