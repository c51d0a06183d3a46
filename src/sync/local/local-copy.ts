import { existsSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import type { MessageOf } from '../../../protocol/messages.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { inspectDatabase } from '../../pages/database-file.ts';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { PageSink } from '../../pages/page-source.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import { ReplicaMovedError } from '../../replica/replica-error.ts';
import { replicaFailure } from '../../replica/replica-failure.ts';
import { Staging } from '../../replica/spool/staging.ts';
import type { Destination } from '../agents/destination.ts';
import { announcementOf, openSnapshot } from '../agents/origin-snapshot.ts';
import type { OriginSnapshot } from '../agents/origin-snapshot.ts';
import { alarmsOf, openRequest, settleCopy, targetOf } from '../agents/replica-agent.ts';
import type { ReplicaResult } from '../agents/replica-agent.ts';
import { databaseDestination } from '../agents/replica-database.ts';
import type { ReplicaOptions } from '../agents/replica-options.ts';
import { hasLimits } from '../request/snapshot-limit.ts';
import { CopyReport } from './copy-report.ts';

/**
 * Makes a new replica of an origin on this host in this process, or replaces one of another page size: with nothing to
 * compare, a second agent would only cost time. Resolves to undefined if two agents have to make the copy: there are
 * pages to compare with, or the request needs them. Throws SqlsyncError; the replica is then unchanged.
 *
 * The caller's process must have opened neither database.
 */
export async function copyLocally(options: ReplicaOptions): Promise<ReplicaResult | undefined> {
  if (options.dryRun || hasLimits(options) || !seemsWhole(options)) return undefined;
  const staging = new Staging('never');
  try {
    const destination = await databaseDestination(options, staging, 1);
    // A clone brings all pages, so it needs none that an interrupted run left.
    if (destination.isNew && destination.hasOldPages && options.reflink !== true) return undefined;
    return await copyTo(destination, options);
  } catch (error) {
    // Another run has made or begun the replica meanwhile, or a page came out wrong: two agents compare.
    if (error instanceof ReplicaMovedError) return undefined;
    if (error instanceof SqlsyncError && error.code === 'ROOT_MISMATCH') return undefined;
    throw toSqlsyncError(replicaFailure(error, { ...options, restores: false }));
  } finally {
    staging.close();
  }
}

/** True if all of the replica has to be made, as far as the two files tell. */
function seemsWhole({ path, replace, originFile }: ReplicaOptions): boolean {
  if (!existsSync(path)) return true;
  if (!replace || originFile === undefined) return false;
  try {
    const [from, to] = [originFile, path].map((file) => inspectDatabase(file)?.header?.pageSize);
    return from !== undefined && to !== undefined && from !== to;
  } catch {
    return false; // the agents say what is wrong
  }
}

async function copyTo(destination: Destination, options: ReplicaOptions): Promise<ReplicaResult | undefined> {
  const request = openRequest(destination, randomBytes(HASH_KEY_BYTES), options, {
    idleTimeoutMs: 0,
    maxTimeMs: 0,
  });
  const opened = await openSnapshot(request, options.reader, { signal: options.signal });
  const { snapshot } = opened;
  let sink: PageSink | undefined;
  try {
    const announcement = announcementOf(opened, 0);
    options.onSnapshot?.(announcement);
    const target = targetOf(announcement, snapshot.pageSize, options);
    sink = await destination.openSink(target, announcement);
    if (sink.copyFrom === undefined || (sink.old !== undefined && options.reflink !== true)) return undefined;
    const alarms = alarmsOf(destination, sink, target, options);
    const figures = await copyAll(snapshot, sink, options);
    // The origin's WAL can be reset while the replica becomes durable.
    snapshot.close();
    const done = await settleCopy(destination, sink, {
      changed: true,
      quick: false,
      counts: countsOf(snapshot),
      snapshot: announcement,
      resumed: false,
      alarms,
    });
    return { done, rounds: 1, ...figures };
  } finally {
    await sink?.abort();
    snapshot.close();
  }
}

async function copyAll(
  snapshot: OriginSnapshot,
  sink: PageSink,
  { hash, reflink, signal, onProgress }: ReplicaOptions,
): Promise<Pick<ReplicaResult, 'snapshotHeldMs' | 'walGrowthBytes'>> {
  const report = new CopyReport(snapshot, onProgress);
  await sink.copyFrom?.(snapshot, {
    hash,
    reflink,
    onRun(first, bytes) {
      throwIfAborted(signal);
      report.run(first, bytes);
    },
  });
  throwIfAborted(signal);
  snapshot.checkUnreplaced();
  report.end();
  return { snapshotHeldMs: Math.round(snapshot.heldMs), walGrowthBytes: snapshot.walGrowthBytes };
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted !== true) return;
  throw new SqlsyncError('INTERRUPTED', 'Interrupted', {
    hint: 'Run sqlsync again: it continues from what has arrived.',
  });
}

/** As two agents count a copy of the whole: every page but the lock-byte page travels. */
function countsOf({
  pageCount,
  pageSize,
}: OriginSnapshot): Pick<
  MessageOf<'done'>,
  'pagesCompared' | 'pagesChanged' | 'pagesTransferred' | 'pagesDelta'
> {
  const pages = pageCount < lockBytePage(pageSize) ? pageCount : pageCount - 1;
  return { pagesCompared: 0, pagesChanged: pages, pagesTransferred: pages, pagesDelta: 0 };
}
