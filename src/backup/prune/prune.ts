import { SqlsyncError } from '../../errors.ts';
import { LiveObjects } from './live-objects.ts';
import { ObjectReader } from '../objects/object-reader.ts';
import type { KnownPack } from '../objects/trust.ts';
import { isOutOfSpace, withRoom } from '../backends/out-of-space.ts';
import { copyNeeded } from './prune-copy.ts';
import { ageOf, makePlan } from './prune-plan.ts';
import type { PrunePlan } from './prune-plan.ts';
import { removeForgotten, sweep } from './prune-sweep.ts';
import { refuseOtherBases } from './refuse-other-bases.ts';
import { beginEpoch } from '../files/config.ts';
import { jsonBytes, putRecord } from '../files/store-files.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import { orphanedSteps, removeSteps } from '../steps/remove-steps.ts';
import type { StepFile } from '../steps/step-name.ts';
import { listSteps } from '../steps/stored-steps.ts';
import { withLists } from '../files/store-lists.ts';
import type { StoreLists } from '../files/store-lists.ts';
import type { PruneOptions, PruneSummary } from '../types.ts';

/** Age after which an unfinished file is surely abandoned. */
const LEFTOVER_AGE_MS = 24 * 3600 * 1000;

const PLACE_CLOCK_SLACK_MS = 2000;

/** Keeps a mark below the size limit of a JSON file. */
const MAX_PACKS_PER_MARK = 8192;

/**
 * Deletes, in two phases, what no snapshot needs: see docs/store-format.md, "Forget and prune". May run beside backups
 * and restores. Throws SqlsyncError STORE_*; the next prune continues what was not done.
 */
export async function pruneStore(access: StoreAccess, options: PruneOptions): Promise<PruneSummary> {
  // A dry run writes nothing, so it goes by the clock of this host.
  if (options.dryRun !== true) await access.backend.settleClock?.();
  // Taken before the snapshots are listed: once a mark is old enough, no later snapshot can need what it marks.
  const now = timeOf(access) - slackOf(access, options);
  // Before the snapshots: see `orphanedSteps`.
  const steps = await listSteps(access);
  // Another prune may delete what this one is about to read.
  return withLists(access, {}, (lists) => pruneBy(access, lists, steps, { ...options, now }));
}

/** Ages are counted by the clock that gives the store's files their times, in ms since 1970. */
function timeOf({ backend }: StoreAccess): number {
  return backend.now?.() ?? Date.now();
}

/**
 * A place elsewhere gives whole seconds, and its answers take a moment to come: a file may look older or younger than it
 * is. Without a grace period every file is old enough.
 */
function slackOf({ backend, config }: StoreAccess, { graceSeconds }: PruneOptions): number {
  if (backend.now?.() === undefined) return 0;
  return (graceSeconds ?? config.graceSeconds) === 0 ? -PLACE_CLOCK_SLACK_MS : PLACE_CLOCK_SLACK_MS;
}

async function pruneBy(
  access: StoreAccess,
  { snapshots, contents }: StoreLists,
  steps: readonly StepFile[],
  { now, ...options }: PruneOptions & { readonly now: number },
): Promise<PruneSummary> {
  const { backend } = access;
  access.memory?.refuseOlder();
  const judge = new ObjectReader(contents.index, { ...access, kept: undefined });
  const live = new LiveObjects(contents.reader, judge, snapshots, options);
  const plan = makePlan(access, contents, live, { ...options, now });
  refuseOtherBases(access, judge, plan, options);
  const graceMs = (options.graceSeconds ?? access.config.graceSeconds) * 1000;
  // A record that is missing by accident may come back.
  const orphans = orphanedSteps(steps, snapshots).filter((file) => ageOf(file.modified, now) >= graceMs);
  const stepsDeleted = orphans.length;
  if (options.dryRun === true) return summarize(contents, plan, { dryRun: true, stepsDeleted });
  await removeSteps(access, orphans);
  // Of two copies the damaged one goes, and the other one may be deeper.
  if (contents.reader.found.size + judge.found.size > 0) await beginEpoch(access);
  // First frees room, then takes it.
  await removeForgotten(access, snapshots, { ...options, now });
  await backend.removeLeftovers?.(LEFTOVER_AGE_MS);
  const { deleted, isDone } = await sweep(access, contents, plan, options);
  const marked = await copyAndMark(access, contents, plan, options, deleted.size > 0);
  const isShort = !isDone || marked.size < plan.toMark.size;
  return summarize(contents, { ...plan, toMark: marked }, { deleted, isShort, stepsDeleted });
}

/**
 * Copies needed objects out of packs that are or will be marked, then marks. If there is no room for all copies, it
 * takes the packs with fewer needed objects, and leaves the others. Those may lose bases with the marked packs, which
 * is why a backup only relies on sound copies. Returns the packs that it marked. Throws if there is no room and this prune
 * freed none.
 */
async function copyAndMark(
  access: StoreAccess,
  contents: StoreContents,
  plan: PrunePlan,
  options: PruneOptions,
  hasDeleted: boolean,
): Promise<Set<string>> {
  const { backend } = access;
  let shortage: SqlsyncError | undefined;
  const isDone = async (action: () => Promise<unknown>): Promise<boolean> => {
    try {
      await withRoom(backend, action);
      return true;
    } catch (error) {
      if (!isOutOfSpace(error)) throw error;
      shortage = error;
      return false;
    }
  };
  let toCopy = plan.toCopy;
  while (
    toCopy.length > 0 &&
    !(await isDone(() => copyNeeded(access, contents, { ...plan, toCopy }, options)))
  )
    toCopy = leastNeeded(toCopy, plan.needed);
  const isCopied = new Set(toCopy);
  const staying = new Set(plan.toCopy.filter((pack) => !isCopied.has(pack)).map(({ id }) => id));
  const toMark = [...plan.toMark].filter((pack) => !staying.has(pack));
  const marked = new Set<string>();
  for (let at = 0; at < toMark.length; at += MAX_PACKS_PER_MARK) {
    const packs = toMark.slice(at, at + MAX_PACKS_PER_MARK);
    const mark = jsonBytes({ version: 1, time: new Date(timeOf(access)).toISOString(), packs });
    if (!(await isDone(() => putRecord(access, 'marks', 'mark', mark)))) break;
    for (const pack of packs) marked.add(pack);
  }
  if (shortage !== undefined && marked.size === 0 && !hasDeleted)
    throw options.graceSeconds === 0 ? noRoomToCopy(shortage) : shortage;
  return marked;
}

/** The usual advice, to prune with a grace period of 0, does not help a prune that does that. */
function noRoomToCopy({ code, message, cause }: SqlsyncError): SqlsyncError {
  return new SqlsyncError(code, message, {
    hint: 'Prune has to copy what is still needed of a pack before it can delete the pack, and there is no space for that. Forget more snapshots, or free space on this disk, then prune again.',
    cause,
  });
}

/** The half of these packs with the fewest needed bytes. */
function leastNeeded(packs: readonly KnownPack[], needed: Uint8Array): KnownPack[] {
  const bytesOf = ({ bytes, firstObject, objectCount }: KnownPack): number =>
    (bytes / objectCount) *
    needed.subarray(firstObject, firstObject + objectCount).reduce((sum, is) => sum + is, 0);
  const sized = packs.map((pack) => ({ pack, bytes: bytesOf(pack) })).sort((a, b) => a.bytes - b.bytes);
  return sized.slice(0, packs.length >> 1).map(({ pack }) => pack);
}

function summarize(
  contents: StoreContents,
  { due, atOnce, toMark, toCopy, waiting }: PrunePlan,
  done: {
    readonly dryRun?: boolean;
    readonly deleted?: ReadonlySet<string>;
    readonly isShort?: boolean;
    readonly stepsDeleted: number;
  },
): PruneSummary {
  const bytesOf = (packs: ReadonlySet<string>): number =>
    [...packs].reduce((sum, pack) => sum + (contents.packFiles.get(pack)?.bytes ?? 0), 0);
  const deleted = done.deleted ?? new Set([...due, ...atOnce]);
  return {
    dryRun: done.dryRun === true,
    packsMarked: toMark.size,
    bytesMarked: bytesOf(toMark),
    packsRepacked: toCopy.filter(({ id }) => toMark.has(id)).length,
    packsDeleted: deleted.size,
    bytesDeleted: bytesOf(deleted),
    stepsDeleted: done.stepsDeleted,
    packsWaiting: waiting.size,
    bytesWaiting: bytesOf(waiting),
    outOfSpace: done.isShort === true,
  };
}
