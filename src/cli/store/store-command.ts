import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { isElsewhere, isOnAnotherHost, isStoreAddress } from '../../backup/backends/elsewhere.ts';
import { isS3Address, parseS3Address } from '../../backup/backends/s3/address.ts';
import { isSftpAddress, parseSftpAddress } from '../../backup/backends/sftp/address.ts';
import type { OpenOptions } from '../../backup/files/access.ts';
import { refusePast } from '../../backup/open-store.ts';
import { openStore } from '../../backup/store.ts';
import { lastMomentOf } from '../../backup/snapshots/time-limit.ts';
import type { Store, StoreCallOptions } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText, toSqlsyncError } from '../../errors.ts';
import { parseLocation } from '../../transport/location.ts';
import { keepYoungGenerationSmall } from '../../backup/young-generation.ts';
import { hintAtDatabase } from '../options/command.ts';
import { outputOf } from '../options/common-options.ts';
import type { JobArguments, OutputArguments } from '../options/options.ts';
import { addRequestsTo, sayRequests } from './requests.ts';
import { exitStatusOf } from '../terminal/exit.ts';
import type { Copies, CopyLabels } from '../job/copies.ts';
import { canonicalLocation, jobOptionsOf, runJob } from '../job/job.ts';
import type { Output } from '../terminal/output.ts';
import { storeListeners } from '../terminal/progress.ts';
import { withInterruption } from '../terminal/signals.ts';

/** The heading of the store commands in help, and the help texts of their operands. */
export const STORES = 'Backups with history';
export const STORE_OPERAND =
  'Folder of the store, [USER@]HOST:PATH, s3:https://HOST/BUCKET/PREFIX, s3:BUCKET/PREFIX, or sftp:[USER@]HOST:PATH';
export const SNAPSHOT_OPERAND =
  'STORE, STORE#ID, STORE#latest, or STORE#2026-11-21T08:00 for the newest until then';

/** For commands that can report what they would do. */
export const DRY_RUN = { alias: 'n', describe: 'Only say what would be done' } as const;

/** For commands that read files which never change: this host keeps copies of those of stores elsewhere. */
export const CACHE_OPTION = {
  'no-cache': { describe: 'Use and keep no copies of files of the store in the cache folder' },
} as const;

/** For commands that only read. */
export const AT_OPTION = {
  at: {
    value: 'TIME',
    describe: 'Read the store as it was at TIME; only in an S3 bucket that keeps versions',
  },
} as const;

/**
 * The address of a store, or of a snapshot in it, at a time, as `--at` gives it. Throws SqlsyncError USAGE for a text
 * that is no time, and for a place that keeps no versions.
 */
export function atTime(text: string, at: string | undefined): string {
  if (at === undefined) return text;
  const moment = lastMomentOf(at);
  if (moment === undefined) {
    throw new SqlsyncError('USAGE', `--at: expected a time but got "${sanitizeText(at, 100)}"`, {
      hint: 'Write 2026-11-21, 2026-11-21T08:00, or 2026-11-21T08:00:00Z.',
    });
  }
  if (!mayKeepVersions(text)) {
    throw new SqlsyncError('USAGE', `The store ${sanitizeText(text, 400)} keeps no versions of its files`, {
      hint: 'Only an S3 bucket with versioning can be read as it was. For a folder, a snapshot of its file system may do.',
    });
  }
  const [store = '', ...which] = text.split('#');
  const option = `${store.includes('?') ? '&' : '?'}at=${new Date(moment).toISOString()}`;
  return [`${store}${option}`, ...which].join('#');
}

/** True for the address of a store in a place that may keep old versions of its files. */
export function mayKeepVersions(text: string): boolean {
  return isS3Address(text);
}

/** Runs a command on a store, and prints the error that it throws; returns the exit status. */
export async function runStoreCommand(
  command: string,
  args: OutputArguments,
  work: (output: Output, options: StoreCallOptions & { readonly signal: AbortSignal }) => Promise<number>,
): Promise<number> {
  keepYoungGenerationSmall();
  const output = outputOf(args);
  addRequestsTo(output);
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
    sayRequests(output);
  }
}

/** A command on a store that cron may run. */
export type StoreJobArguments = OutputArguments & Partial<JobArguments> & { readonly dryRun: boolean };

/**
 * As `runStoreCommand`, for a command that must not overlap with another run of itself, and that reports how it went.
 */
export async function runStoreJob(
  command: string,
  args: StoreJobArguments,
  job: {
    /** True if stdout gets a database. */
    readonly isStdoutTaken?: boolean;
    /** Runs of the same name do not overlap, if that is requested. Throws SqlsyncError USAGE. */
    name(): readonly string[];
    /** The expected copies for the metrics. */
    readonly expected?: readonly CopyLabels[];
    /** Reports to `copies` results that are an exit status and no error. */
    work(
      output: Output,
      options: StoreCallOptions & { readonly signal: AbortSignal },
      copies: Copies,
    ): Promise<void>;
  },
): Promise<number> {
  keepYoungGenerationSmall();
  const output = outputOf(args, job.isStdoutTaken);
  addRequestsTo(output);
  const listeners = storeListeners(output);
  try {
    return await runJob({
      name: job.name(),
      expected: job.expected ?? [],
      options: jobOptionsOf(args, args.dryRun),
      output,
      explain: (failure) => explainName(command, failure),
      run: (signal, copies) =>
        job.work(output, { signal, onProgress: (progress) => listeners.onProgress(progress) }, copies),
    });
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  } finally {
    listeners.end();
    sayRequests(output);
  }
}

/** Opens the store at a place. Throws SqlsyncError STORE_*, and USAGE for a snapshot. */
export async function openStoreAt(text: string, access: OpenOptions): Promise<Store> {
  const folder = storePlace(text);
  if (isElsewhere(folder)) return openStore(folder, access);
  const store = text.slice(0, Math.max(0, text.lastIndexOf('#')));
  if (store !== '' && !existsSync(text) && existsSync(store)) {
    throw new SqlsyncError('USAGE', `${sanitizeText(text)} names a snapshot; expected a store`, {
      hint: `Write ${sanitizeText(store)}; choose snapshots with ids or options.`,
    });
  }
  if (statSync(folder, { throwIfNoEntry: false })?.isFile() === true) {
    throw new SqlsyncError('STORE_NOT_FOUND', `${sanitizeText(folder)} is a file, and a store is a folder`, {
      hint: 'The store is named before any database. `sqlsync init STORE` creates one, `sqlsync backup ORIGIN STORE` fills it.',
    });
  }
  return openStore(folder, access);
}

/** As `openStoreAt`, for a command that writes. Throws SqlsyncError USAGE also for a store as it was at a time. */
export async function openStoreToWrite(text: string, access: OpenOptions): Promise<Store> {
  // Before the password is asked for. A dry run only reads.
  if (access.dryRun !== true) refusePast(text);
  return openStoreAt(text, access);
}

/** Throws SqlsyncError USAGE for a text that names no place. */
export function storePlace(text: string): string {
  if (isS3Address(text)) return parseS3Address(text).text;
  if (isSftpAddress(text)) {
    parseSftpAddress(text);
    return text;
  }
  const location = parseLocation(text);
  return location.kind === 'local' ? location.path : text;
}

/** The place of a store, for the name of a job. */
export function canonicalStore(text: string): string {
  return isElsewhere(text) ? text : canonicalLocation(text);
}

/**
 * True for a folder that contains what only a store contains, and for `s3:…` and `sftp:…`, which can be nothing else.
 * False for `host:path`, which may also be a database.
 */
export function isStore(path: string): boolean {
  if (isElsewhere(path)) return isStoreAddress(path);
  return ['config', 'packs'].some((name) => existsSync(join(path, name)));
}

/**
 * Refuses swapped arguments: a database in the place of the store, and the store in the place of a database. Throws
 * SqlsyncError USAGE.
 *
 * @param usage - how to write the command.
 */
export function refuseSwapped(store: string, others: readonly string[], usage: string): void {
  const swapped = others.find((other) => isStore(other));
  if (swapped === undefined || isStore(store) || isOnAnotherHost(store)) return;
  throw new SqlsyncError(
    'USAGE',
    `The arguments look swapped: ${sanitizeText(swapped, 400)} is a store, and ${sanitizeText(store, 400)} is not`,
    { hint: `Write ${usage}.` },
  );
}

/** The failure, with a hint about a database that has the name of the command. */
export function explainName(command: string, failure: SqlsyncError): SqlsyncError {
  const isAboutPlace = failure.code === 'STORE_NOT_FOUND' || failure.code === 'STORE_UNAVAILABLE';
  return isAboutPlace ? hintAtDatabase(command, failure) : failure;
}
