import { existsSync, statSync } from 'node:fs';
import { openStore } from '../../backup/store.ts';
import type { Store, StoreCallOptions } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText, toSqlsyncError } from '../../errors.ts';
import { parseLocation } from '../../transport/location.ts';
import { outputOf } from '../commands/common-options.ts';
import type { OutputArguments } from '../commands/common-options.ts';
import { exitStatusOf } from '../exit.ts';
import { jobOptionsOf, runJob } from '../job/job.ts';
import type { JobArguments } from '../job/job.ts';
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

/** A command on a store that cron may run. */
export type StoreJobArguments = OutputArguments &
  Pick<JobArguments, 'lockWait' | 'ping'> & { readonly dryRun: boolean };

/** The same for a command that is not to overlap with another run of it, and that tells how it went; returns the exit status. */
export async function runStoreJob(
  command: string,
  args: StoreJobArguments,
  job: {
    /** Runs of the same name do not overlap, where that is asked for. Throws SqlsyncError USAGE. */
    name(): readonly string[];
    work(output: Output, options: StoreCallOptions & { readonly signal: AbortSignal }): Promise<void>;
  },
): Promise<number> {
  const output = outputOf(args);
  const listeners = storeListeners(output);
  try {
    return await runJob({
      name: job.name(),
      expected: [],
      options: jobOptionsOf(args, args.dryRun),
      output,
      explain: (failure) => explainName(command, failure),
      run: (signal) => job.work(output, { signal, onProgress: (progress) => listeners.onProgress(progress) }),
    });
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  } finally {
    listeners.end();
  }
}

/** Opens the store in a folder. Throws SqlsyncError STORE_*, and USAGE for a snapshot, or a place on another host. */
export async function openStoreAt(text: string): Promise<Store> {
  const folder = storeFolder(text);
  const store = text.slice(0, Math.max(0, text.lastIndexOf('#')));
  if (store !== '' && !existsSync(text) && existsSync(store)) {
    throw new SqlsyncError('USAGE', `${sanitizeText(text)} names a snapshot; expected a store`, {
      hint: `Write ${sanitizeText(store)}; which snapshots are meant is said by ids or options.`,
    });
  }
  return openStore(folder);
}

/** A store is in a folder of this host. Throws SqlsyncError USAGE for one elsewhere. */
export function storeFolder(text: string): string {
  const location = parseLocation(text);
  if (location.kind === 'local') return location.path;
  throw new SqlsyncError(
    'USAGE',
    `The store ${sanitizeText(text)} is on another host; expected a folder here`,
    {
      hint: `Run it there, and have it fetch the database: sqlsync backup HOST:/app.db STORE. A folder here is ./${sanitizeText(text)}.`,
    },
  );
}

/** Whoever has a database that is called as a command is, and means it. */
export function explainName(command: string, failure: SqlsyncError): SqlsyncError {
  const isAboutPlace = failure.code === 'STORE_NOT_FOUND' || failure.code === 'STORE_UNAVAILABLE';
  if (!isAboutPlace || statSync(command, { throwIfNoEntry: false })?.isFile() !== true) return failure;
  const hint = `${failure.hint ?? ''} The database that is called ${command} is ./${command}.`;
  return new SqlsyncError(failure.code, failure.message, { hint: hint.trim(), cause: failure });
}
