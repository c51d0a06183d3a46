import { existsSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import type { MessageOf } from '../../../protocol/messages.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { PageSink } from '../../pages/page-source.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import { ReplicaMovedError } from '../../replica/replica-error.ts';
import { replicaFailure } from '../../replica/replica-failure.ts';
import { Staging } from '../../replica/spool/staging.ts';
import type { Destination } from '../agents/destination.ts';
import { announcementOf, openSnapshot } from '../agents/origin-snapshot.ts';
import type { OriginSnapshot } from '../agents/origin-snapshot.ts';
import { openRequest, settleCopy, targetOf } from '../agents/replica-agent.ts';
import type { ReplicaResult } from '../agents/replica-agent.ts';
import { databaseDestination } from '../agents/replica-database.ts';
import type { ReplicaOptions } from '../agents/replica-options.ts';
import { hasLimits } from '../request/snapshot-limit.ts';
import { CopyReport } from './copy-report.ts';

/**
 * Makes a new replica of an origin on this host in this process: with nothing to compare, a second agent would only
 * cost time. Resolves to undefined if two agents have to make the copy: something is at the replica's place, or the
 * request needs them. Throws SqlsyncError; the replica then does not exist.
 *
 * The caller's process must have opened neither database.
 */
export async function copyLocally(options: ReplicaOptions): Promise<ReplicaResult | undefined> {
  if (options.dryRun || hasLimits(options) || existsSync(options.path)) return undefined;
  const staging = new Staging('never');
  try {
    const destination = await databaseDestination(options, staging, 1);
    if (!destination.isNew || destination.hasOldPages) return undefined;
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
    sink = await destination.openSink(targetOf(announcement, snapshot.pageSize, options), announcement);
    if (sink.copyFrom === undefined || sink.old !== undefined) return undefined;
    const figures = await copyAll(snapshot, sink, options);
    // The origin's WAL can be reset while the replica becomes durable.
    snapshot.close();
    const done = await settleCopy(destination, sink, {
      changed: true,
      quick: false,
      counts: countsOf(snapshot),
      snapshot: announcement,
      resumed: false,
      alarms: [],
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
  { hash, signal, onProgress }: ReplicaOptions,
): Promise<Pick<ReplicaResult, 'snapshotHeldMs' | 'walGrowthBytes'>> {
  const report = new CopyReport(snapshot, onProgress);
  await sink.copyFrom?.(snapshot, {
    hash,
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

/** As two agents count a new replica: every page but the lock-byte page travels. */
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
