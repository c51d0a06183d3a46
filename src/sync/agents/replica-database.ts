import type { MessageOf, Outcome } from '../../../protocol/messages.ts';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { contentStamp, currentFileId } from '../../pages/database-file.ts';
import { EmptyReplica } from '../../replica/existing/empty-replica.ts';
import { ExistingReplica } from '../../replica/existing/existing-replica.ts';
import { removeOwnLeftovers } from '../../beside/leftovers.ts';
import type { MarkedOrigin } from '../../beside/mark.ts';
import { markReplica, noteContent } from '../../beside/mark.ts';
import { inspectReplica, openSink } from '../../replica/open-replica.ts';
import type { ReplicaPlace } from '../../replica/open-replica.ts';
import type { PageSink, SinkTarget } from '../../pages/page-source.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { ReplicaMovedError, replicaError } from '../../replica/replica-error.ts';
import { refuseFileBeside } from '../../replica/replica-links.ts';
import type { Staging } from '../../replica/spool/staging.ts';
import { OldState } from '../../replica/existing/old-state.ts';
import { checkIntegrity } from '../../sqlite/integrity/integrity-check.ts';
import type { FollowedReplica } from '../quick/followed-replica.ts';
import type { QuickOptions } from '../quick/quick-check.ts';
import { ReplicaMemory } from '../quick/replica-memory.ts';
import type { CopiedPages, CopyBefore, Destination } from './destination.ts';
import type { ReplicaOptions } from './replica-options.ts';

/** How often a run takes another snapshot because of a change of the replica that may have been only a checkpoint. */
const MAX_OVERTAKEN = 2;

/**
 * A database file, existing or not, as the destination of a copy; `staging` serves all attempts of a run. Throws
 * SqlsyncError REPLICA_*.
 */
export async function databaseDestination(
  options: ReplicaOptions,
  staging: Staging,
  attempt: number,
): Promise<Destination> {
  // Checked again in every attempt: the allowed file may be gone, or lead elsewhere.
  options.access?.path(options.path, { keepLink: !options.followLinks });
  const place = inspectReplica(options.path, options);
  refuseFileBeside(place.path, options.originName);
  // Resumes before the snapshot begins, because it checks the hashes of all spooled pages.
  if (place.file !== undefined && !options.dryRun) await resumeStaging(staging, place.path);
  const stamp = contentStamp(place.path);
  const memory = memoryOf(place, options, attempt > 1 || staging.spool !== undefined);
  return {
    path: place.path,
    fileId: place.file?.fileId ?? '',
    isKnownCopy: place.mark !== undefined && options.originName.endsWith(`:${place.mark.originPath}`),
    isNew: place.file === undefined,
    hasOldPages: place.hasOldPages,
    warnings: place.warnings,
    key: memory?.key,
    quick: memory?.quick,
    isKnown: (sink) => memory?.quick?.isCopy(stampOf(sink)) === true,
    recall: (sink, size) => memory?.recall(stampOf(sink), size) ?? {},
    async openSink(target, snapshot) {
      const mark = markOf(snapshot, options);
      // A stamp of a step is compared with that of the last commit, and every write since has moved the time of the file.
      const stampMinAgeMs = options.followed === undefined ? undefined : 0;
      options.followed?.look(place.path);
      const sink = await openSink(place, target, { ...options, mark, staging, stampMinAgeMs });
      try {
        checkAccess(place, sink, options);
        // A store's snapshot does not become out of date while other programs write the database.
        if (!options.dryRun && options.restores !== true) checkOvertaken(place, stamp, staging);
        return sink;
      } catch (error) {
        await sink.abort();
        throw error;
      }
    },
    copyBefore: (sink, target) => copyBefore(place, sink, target, options),
    settle: (sink, copied) => settle(sink, place, options, { ...copied, staging, memory }),
    findings: (warnings) => findingsOf(place.path, options, warnings),
  };
}

/** What is known of the replica, from earlier runs or from earlier steps. */
function memoryOf(
  place: ReplicaPlace,
  options: ReplicaOptions,
  mustCompare: boolean,
): ReplicaMemory | FollowedReplica | undefined {
  const { followed } = options;
  followed?.start(mustCompare);
  if (followed !== undefined) return followed;
  const quick = quickOptions(place, options, mustCompare);
  return quick && new ReplicaMemory(quick, place.file?.stats.size ?? 0);
}

/**
 * A run that has already failed to use what is known compares all pages. So does a restore: it may be there to mend
 * what no stamp can show.
 */
function quickOptions(
  place: ReplicaPlace,
  options: ReplicaOptions,
  mustCompare: boolean,
): QuickOptions | undefined {
  if (options.dryRun || options.restores === true || place.file === undefined) return undefined;
  return { ...options, replicaPath: place.path, full: options.full || mustCompare };
}

/** The stamp of the replica's own state: none if pages that wait in a spool are laid over it. */
function stampOf({ old }: PageSink): Uint8Array | undefined {
  return old instanceof OldState ? old.stamp : undefined;
}

/** A restore may make the database smaller on purpose. */
function copyBefore(
  { path, file }: ReplicaPlace,
  sink: PageSink,
  target: SinkTarget,
  options: ReplicaOptions,
): CopyBefore | undefined {
  if (file?.header === undefined || options.restores === true) return undefined;
  if (sink instanceof EmptyReplica && sink.unchanged) return undefined;
  const pages =
    sink instanceof ExistingReplica ? sink.oldPageCount : Math.floor(file.stats.size / target.pageSize);
  return { name: `the replica ${path}`, pages };
}

async function resumeStaging(staging: Staging, path: string): Promise<void> {
  try {
    await staging.resume(path);
  } catch (error) {
    throw replicaError(path, error);
  }
}

/** The replica is an exact copy by now: a fault in it is a fault in the origin's snapshot. */
async function findingsOf(path: string, options: ReplicaOptions, warnings: string[]): Promise<string[]> {
  if (!options.check || options.dryRun) return [];
  const end = AbortSignal.any([options.signal, options.over].filter((signal) => signal !== undefined));
  const result = await checkIntegrity(path, options.busyTimeoutMs, { signal: end });
  if (result.made) {
    for (const what of result.unchecked) warnings.push(`Not all of ${path} could be checked: ${what}`);
    return result.findings.map((finding) => sanitizeText(finding));
  }
  if (end.aborted) {
    throw new SqlsyncError('INTERRUPTED', `Interrupted while SQLite checked ${path}`, {
      hint: 'The replica is an exact copy, and committed; only the check was not made. Run sqlsync again to check it.',
      outcome: 'committed',
    });
  }
  warnings.push(`${path} is an exact copy, but integrity_check of it could not be made: ${result.why}`);
  return [];
}

/** Longer than any existing path and host name; together less than a mark may hold. */
const MAX_ORIGIN_PATH_BYTES = 4096;
const MAX_ORIGIN_HOST_BYTES = 255;

/**
 * A restore leaves no mark: the restored database is an origin, and must stay protected as one. Throws SqlsyncError
 * PROTOCOL if the origin agent announces a restore that was not requested, or a path that cannot exist.
 */
function markOf(
  snapshot: MessageOf<'snapshot'>,
  { originName, overwrite, restores }: ReplicaOptions,
): MarkedOrigin | undefined {
  const { originHost, originPath, restoring } = snapshot;
  if (restoring && !overwrite && !restores) {
    throw new SqlsyncError(
      'PROTOCOL',
      'The origin announced a restore, which --overwrite would have to ask for',
    );
  }
  const isPossible =
    Buffer.byteLength(originHost) <= MAX_ORIGIN_HOST_BYTES &&
    Buffer.byteLength(originPath) <= MAX_ORIGIN_PATH_BYTES &&
    Buffer.byteLength(originName) <= MAX_ORIGIN_HOST_BYTES + MAX_ORIGIN_PATH_BYTES;
  if (!isPossible) throw new SqlsyncError('PROTOCOL', 'The origin announced a host or path that is too long');
  return restoring ? undefined : { originName, originHost, originPath };
}

/**
 * Another sync that committed since before the snapshot may have had a newer one: throws ReplicaMovedError. Once the
 * sink is open, the sink notices that.
 */
function checkOvertaken(place: ReplicaPlace, stamp: string, staging: Staging): void {
  if (place.file === undefined || contentStamp(place.path) === stamp) return;
  if (staging.overtaken++ < MAX_OVERTAKEN) throw new ReplicaMovedError(place.path);
}

/**
 * Throws SqlsyncError RESTRICTED if the file to write is not the allowed one, or if it does not exist and may not be
 * created.
 */
function checkAccess(place: ReplicaPlace, sink: PageSink, { access }: ReplicaOptions): void {
  if (place.file === undefined) access?.path(place.path);
  else access?.opened(place.path, place.file.fileId, sink instanceof ExistingReplica);
}

/** Commits what was copied and checked, then cleans up beside the replica. */
async function settle(
  sink: PageSink,
  place: ReplicaPlace,
  options: ReplicaOptions,
  {
    changed,
    quick,
    snapshot,
    warnings,
    staging,
    memory,
    nodes,
  }: CopiedPages & {
    readonly staging: Staging;
    readonly memory: ReplicaMemory | FollowedReplica | undefined;
  },
): Promise<Outcome> {
  if (options.dryRun) return 'dryRun';
  const commits = changed && !(sink instanceof EmptyReplica && sink.unchanged);
  // Sinks that do not have the file open yet are about to open it.
  checkAccess(place, sink, options);
  const watch = sink instanceof ExistingReplica && memory?.key !== undefined ? sink.watch : undefined;
  watch?.start();
  if (commits) await sink.commit();
  else await sink.abort();
  // A commit marks the replica itself. Another file that took the name meanwhile must not get the mark.
  if (!commits && place.file !== undefined && currentFileId(place.path) === place.file.fileId)
    markReplica(place.path, markOf(snapshot, options), { warnings });
  staging.remove();
  removeOwnLeftovers(place.path);
  noteContent(place.path);
  if (quick || memory === undefined) return commits ? 'committed' : 'unchanged';
  warnings.push(...memory.warnings);
  if (commits) options.followed?.look(place.path);
  const stamp = commits ? await watch?.stamp() : stampOf(sink);
  // Another program may have written after the commit and before the look.
  if (commits && stamp === undefined && place.file !== undefined) options.followed?.doubt();
  // What a commit left may still be written in the same tick of the clock; the next comparison will stamp it.
  if (!commits) memory.rememberPair(snapshot.stamp, stamp);
  if (nodes !== undefined) memory.rememberTree(nodes, snapshot.pageSize as PageSize, stamp, !commits);
  return commits ? 'committed' : 'unchanged';
}
