import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { toSqlsyncError } from '../../errors.ts';
import type { SqlsyncError } from '../../errors.ts';
import { makeFolders, placeOfTrial } from '../../files/make-folders.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import { isOfAll } from './lanes.ts';
import type { Task } from './lanes.ts';
import type { Retry } from './retry.ts';
import { farOf, plan, pull, push, runSync, summarize } from './sync.ts';
import type { Run, SyncOptions, SyncSummary } from './sync.ts';

/** A database and its copy: paths or [user@]host:path. All remote ones of a list are on one host. */
export interface Pair {
  readonly origin: string;
  readonly replica: string;
}

export type ManyOptions = Omit<SyncOptions, 'origin' | 'replica' | 'reflink' | 'onProgress'>;

export interface ManyListeners {
  onDone(pair: Pair, summary: SyncSummary): void;
  /** This database was not copied; the others are. */
  onFailed(pair: Pair, failure: SqlsyncError): void;
  onRetry(retry: Retry): void;
}

/** The copy of one database as a task. Throws SqlsyncError USAGE. */
export function copyTask(pair: Pair, options: ManyOptions, listeners: ManyListeners): Task {
  const run = plan({ ...options, ...placed(pair, options) });
  const isPull = farOf(run.origin, run.replica) === run.origin;
  return {
    state: isPull ? 'opening' : 'offering',
    fileHere: () => fileIdOf(isPull ? run.replica : run.origin),
    async run(connection) {
      const startedAt = performance.now();
      const { bytesSent, bytesReceived } = connection;
      const attempt = {
        number: 1,
        ask: undefined,
        maxTimeMs: undefined,
        makesFolders: true,
        hasProgressed: false,
      };
      if (isPull) makeFolderOf(run);
      const result = await (isPull ? pull : push)(connection, run, attempt);
      run.traffic.bytesSent = connection.bytesSent - bytesSent;
      run.traffic.bytesReceived = connection.bytesReceived - bytesReceived;
      const summary = summarize(run, result, 1, performance.now() - startedAt);
      listeners.onDone(pair, { ...summary, replica: pair.replica });
    },
    fail: (failure) => listeners.onFailed(pair, failure),
  };
}

/** Copies databases of this host to others of this host. Throws SqlsyncError only for failures of all. */
export async function syncHere(
  pairs: readonly Pair[],
  options: ManyOptions,
  listeners: ManyListeners,
): Promise<void> {
  for (const pair of pairs) {
    try {
      const one = { ...options, ...placed(pair, options) };
      makeFolderOf(plan(one));
      listeners.onDone(pair, { ...(await runSync(one)), replica: pair.replica });
    } catch (error) {
      const failure = toSqlsyncError(error);
      if (isOfAll(failure)) throw failure;
      listeners.onFailed(pair, failure);
    }
  }
}

/** Two names may lead to the same file. Undefined if no file is there. */
function fileIdOf({ path }: Location): string | undefined {
  try {
    const { dev, ino } = statSync(path);
    return `${dev}:${ino}`;
  } catch {
    return undefined; // the copy says what is wrong
  }
}

/** The pair, or for a dry run one with a replica in a folder that is there. */
function placed(pair: Pair, { dryRun = false }: ManyOptions): Pair {
  const replica = parseLocation(pair.replica);
  if (!dryRun || replica.kind !== 'local') return pair;
  return { ...pair, replica: placeOfTrial(resolve(replica.path)) };
}

function makeFolderOf({ replica, request }: Run): void {
  if (!request.dryRun && replica.kind === 'local') makeFolders(resolve(replica.path));
}
