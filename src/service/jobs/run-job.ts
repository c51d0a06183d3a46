import { spawn } from 'node:child_process';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { SqlsyncError, sanitizeLine } from '../../errors.ts';
import { makePrivateFolder } from '../../files/user-cache.ts';
import { checkIntegrity } from '../../sqlite/integrity/integrity-check.ts';
import { copyWords, restoreWords } from './command-words.ts';
import type { Job } from './job.ts';
import { childEnvironment, ended, runCommand } from './run-command.ts';
import type { Summary } from './run-command.ts';

/** What a copy moved. */
export interface CopyResult {
  readonly bytes: number;
  readonly pagesChanged: number;
  readonly durationMs: number;
  readonly sizeBytes: number;
  readonly snapshot: string | undefined;
}

/** A failure that no error code names. */
export class JobFailure extends Error {
  readonly code: 'DAMAGED' | 'HOOK_FAILED';

  constructor(code: 'DAMAGED' | 'HOOK_FAILED', message: string) {
    super(message);
    this.code = code;
  }
}

/** A copy that was made. */
export interface CopyMade {
  readonly result: CopyResult;
  /** What was found on the way; the copy is there all the same. */
  readonly finding: JobFailure | undefined;
}

/** Makes one copy, after the hook before it. Throws SqlsyncError and JobFailure if there is none. */
export async function copyOnce(job: Job, signal: AbortSignal): Promise<CopyMade> {
  if (job.error !== undefined) throw job.error;
  await runHook(job, 'before', {}, signal);
  const { summary, status } = await runCommand(copyWords(job), signal);
  const finding = status === 0 ? undefined : incomplete(summary, status);
  const result = job.target.kind === 'store' ? backupResult(summary) : syncResult(summary);
  if (result !== undefined) return { result, finding };
  throw finding ?? new JobFailure('DAMAGED', 'The backup made no snapshot');
}

/** A command that came to its end, and found something. */
function incomplete({ findings }: Summary, status: number): JobFailure {
  const [finding] = Array.isArray(findings) ? (findings as string[]) : [];
  return finding === undefined
    ? new JobFailure('DAMAGED', `The copy ended with status ${status}: a part of it was not done`)
    : new JobFailure(
        'DAMAGED',
        `An exact copy was made of a damaged database: ${sanitizeLine(finding, 200)}`,
      );
}

interface Figures {
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
}

interface SyncFigures extends Figures {
  readonly pageSize: number;
  readonly pageCount: number;
  readonly pagesChanged: number;
}

export function syncResult(summary: object): CopyResult {
  const { bytesSent, bytesReceived, durationMs, pageSize, pageCount, pagesChanged } = summary as SyncFigures;
  const bytes = bytesSent + bytesReceived;
  return { bytes, pagesChanged, durationMs, sizeBytes: pageSize * pageCount, snapshot: undefined };
}

interface BackupFigures extends Figures {
  readonly unchanged: boolean;
  readonly snapshot: {
    readonly id: string;
    readonly pageSize: number;
    readonly pageCount: number;
    readonly statistics: { readonly pagesChanged: number; readonly bytesAdded: number };
  };
}

/** Undefined if there is no snapshot. */
function backupResult({ backups }: Summary): CopyResult | undefined {
  const [backup] = backups as BackupFigures[];
  if (backup === undefined) return undefined;
  const { snapshot, durationMs, unchanged } = backup;
  const { id, pageSize, pageCount, statistics } = snapshot;
  return {
    bytes: unchanged ? 0 : statistics.bytesAdded,
    pagesChanged: unchanged ? 0 : statistics.pagesChanged,
    durationMs,
    sizeBytes: pageSize * pageCount,
    snapshot: id,
  };
}

/**
 * Proves that the newest copy can be restored: makes a new database of it, below `folder`, and lets SQLite check that.
 * Throws SqlsyncError and JobFailure.
 */
export async function proveOnce(
  job: Job,
  snapshot: string | undefined,
  folder: string,
  signal: AbortSignal,
): Promise<void> {
  makePrivateFolder(folder);
  const path = join(folder, `${job.id}-${process.pid}.db`);
  const clear = (): void => {
    for (const each of [
      path,
      `${path}-wal`,
      `${path}-shm`,
      `${path}-journal`,
      join(folder, `.${job.id}-${process.pid}.db.sqlsync`),
    ])
      rmSync(each, { recursive: true, force: true });
  };
  clear();
  try {
    await runCommand(restoreWords(job, snapshot, path), signal);
    const result = await checkIntegrity(path, 10_000, { signal, immutable: true });
    if (!result.made) {
      if (signal.aborted) throw new SqlsyncError('INTERRUPTED', 'The check was interrupted');
      throw new JobFailure('DAMAGED', `The restored database could not be checked: ${result.why}`);
    }
    const [finding] = result.findings;
    if (finding !== undefined) throw new JobFailure('DAMAGED', sanitizeLine(finding, 200));
  } finally {
    clear();
  }
}

/** How long a hook may take, in milliseconds, if the file does not say. */
const HOOK_LIMIT_MS = 3_600_000;

/**
 * Runs the command, and ends all of its process group when the service is gone: stdin is a pipe from it, which closes
 * then. The command itself gets an empty stdin.
 */
const SUPERVISOR =
  'exec 3<&0 </dev/null; { read -r _ <&3; kill -TERM -$$; } & exec 3<&-; /bin/sh -c "$1"; s=$?; kill $!; exit $s';

/** Runs a shell command of the file. What it says goes to stderr of the service; only its status is recorded. */
export async function runHook(
  { origin, target }: Job,
  name: 'before' | 'after' | 'failure',
  more: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<void> {
  const command = target.hooks[name];
  if (command === undefined) return;
  const env = childEnvironment({ SQLSYNC_ORIGIN: origin, SQLSYNC_TARGET: target.place, ...more });
  const limit = AbortSignal.timeout(target.hooks.timeout ?? HOOK_LIMIT_MS);
  const child = spawn('/bin/sh', ['-c', SUPERVISOR, 'sh', command], {
    stdio: ['pipe', 'ignore', 'inherit'],
    env,
    // A group of its own, which ends as a whole.
    detached: true,
  });
  const { status, by } = await ended(child, AbortSignal.any([signal, limit]));
  if (status === 0) return;
  const how = limit.aborted
    ? 'took too long, and was ended'
    : status === null
      ? `was ended by ${by}`
      : `ended with status ${status}`;
  throw new JobFailure('HOOK_FAILED', `The hook ${name} ${how}`);
}
