import { LiveObjects } from './live-objects.ts';
import type { KnownPack } from './object-index.ts';
import { PackWriter, putIndexFiles } from './pack-writer.ts';
import { throwIfAborted } from './store-error.ts';
import { jsonBytes, loadContents, loadSnapshots, putRecord } from './store-files.ts';
import type { Mark, StoreAccess, StoreContents } from './store-files.ts';
import type { PruneOptions, PruneSummary, StoreSnapshot } from './types.ts';

/** Part of a pack that may be garbage before it is repacked. */
const DEFAULT_MAX_UNUSED_RATIO = 0.2;

/** Age of an unfinished file after which nobody writes it any more. */
const LEFTOVER_AGE_MS = 24 * 3600 * 1000;

/** More index files than this are made one. */
const MAX_INDEX_FILES = 64;

/** So that a mark stays below what a file of JSON may have. */
const MAX_PACKS_PER_MARK = 8192;

/** What a prune has found that is to be done. */
interface Plan {
  /** Marked long enough ago: deleted now. */
  readonly due: ReadonlySet<string>;
  /** Marked now. */
  readonly toMark: ReadonlySet<string>;
  /** Packs, marked now or before, that hold something needed. */
  readonly toCopy: readonly KnownPack[];
  /** By number of object, 1 for what is copied if it is in such a pack. */
  readonly needed: Uint8Array;
  readonly repacked: number;
  /** Marked before, and not long enough ago. */
  readonly waiting: ReadonlySet<string>;
}

/**
 * Deletes, in two phases, what no snapshot needs: see docs/store-format.md, "Forget and prune". May run beside backups and restores.
 * Throws SqlsyncError STORE_*; what was not done yet the next prune does.
 */
export async function pruneStore(access: StoreAccess, options: PruneOptions): Promise<PruneSummary> {
  const { backend } = access;
  // Before the snapshots are listed: what a mark's age allows to be deleted then, no snapshot needs that is put later.
  const now = Date.now();
  // In this order, so that the indexes name all that these snapshots need; whoever puts one later is protected by the grace period.
  const snapshots = await loadSnapshots(access);
  const contents = await loadContents(access);
  const live = new LiveObjects(contents.reader, snapshots, options);
  const plan = makePlan(access, contents, live, { ...options, now });
  if (options.dryRun !== true) {
    await copyNeeded(access, contents, plan, options);
    await putMarks(access, [...plan.toMark]);
    await sweep(access, contents, plan, options);
    await removeForgotten(access, snapshots, { ...options, now });
    await backend.removeLeftovers?.(LEFTOVER_AGE_MS);
  }
  return summarize(contents, plan, options);
}

function makePlan(
  access: StoreAccess,
  contents: StoreContents,
  live: LiveObjects,
  options: PruneOptions & { readonly now: number },
): Plan {
  const { index, marks, packFiles } = contents;
  const graceMs = (options.graceSeconds ?? access.config.graceSeconds) * 1000;
  const { now } = options;
  const ages = new Map<string, number>();
  // A pack that was marked twice counts from the first time: nothing has relied on it ever since.
  for (const { time, packs } of marks) {
    for (const pack of packs) ages.set(pack, Math.max(ages.get(pack) ?? 0, now - time.getTime()));
  }
  // What was put within the grace period may belong to a backup that is under way.
  const isSettled = (pack: string): boolean => {
    const modified = packFiles.get(pack)?.modified;
    return modified === undefined || now - modified.getTime() >= graceMs;
  };
  const packs = [...index.packs.values()];
  const unmarked = packs.filter(({ id }) => !ages.has(id));
  const ratios = live.ratios(unmarked);
  const minUsed = 1 - (options.maxUnusedRatio ?? DEFAULT_MAX_UNUSED_RATIO);
  const isWasteful = (pack: KnownPack): boolean => {
    const ratio = ratios.get(pack.id) ?? 0;
    return ratio === 0 || ratio < minUsed || !live.isSound(pack);
  };
  const wasteful = unmarked.filter((pack) => isSettled(pack.id) && isWasteful(pack));
  const orphans = [...packFiles.keys()].filter(
    (id) => !index.packs.has(id) && !ages.has(id) && isSettled(id),
  );
  const toMark = new Set([...wasteful.map(({ id }) => id), ...orphans]);
  const needed = live.neededWith(unmarked.filter(({ id }) => !toMark.has(id)));
  const toCopy = packs.filter(
    ({ id, firstObject, objectCount }) =>
      (ages.has(id) || toMark.has(id)) && needed.subarray(firstObject, firstObject + objectCount).includes(1),
  );
  // What holds something needed is copied now, and deleted by a later prune: someone may be reading it.
  const inUse = new Set(toCopy.map(({ id }) => id));
  const due = new Set(
    [...ages].filter(([id, ageMs]) => ageMs >= graceMs && !inUse.has(id)).map(([id]) => id),
  );
  const waiting = new Set([...ages.keys()].filter((id) => !due.has(id)));
  const repacked = toCopy.filter(({ id }) => toMark.has(id)).length;
  return { due, toMark, toCopy, needed, repacked, waiting };
}

async function putMarks(access: StoreAccess, toMark: readonly string[]): Promise<void> {
  for (let at = 0; at < toMark.length; at += MAX_PACKS_PER_MARK) {
    const packs = toMark.slice(at, at + MAX_PACKS_PER_MARK);
    const mark = { version: 1, time: new Date().toISOString(), packs };
    await putRecord(access, 'marks', 'mark', jsonBytes(mark));
  }
}

/** Copies what is needed, in the form that it has, out of packs that are or will be marked. */
async function copyNeeded(
  { backend, sealer }: StoreAccess,
  { index, reader }: StoreContents,
  { toCopy, needed }: Plan,
  options: PruneOptions,
): Promise<void> {
  const writer = new PackWriter(backend, sealer, index);
  try {
    for (const [done, pack] of toCopy.entries()) {
      options.onProgress?.({ phase: 'write', done, total: toCopy.length });
      for (let frame = pack.firstFrame; frame < pack.firstFrame + pack.frameCount; frame++) {
        throwIfAborted(options.signal);
        copyFrame(writer, { index, reader }, frame, needed);
        await writer.ready();
      }
    }
    await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}

function copyFrame(
  writer: PackWriter,
  { index, reader }: Pick<StoreContents, 'index' | 'reader'>,
  number: number,
  needed: Uint8Array,
): void {
  const { firstObject, objectCount } = index.frames[number] as { firstObject: number; objectCount: number };
  if (needed.subarray(firstObject, firstObject + objectCount).indexOf(1) === -1) return;
  const frame = reader.readFrame(number);
  for (let i = 0; i < objectCount; i++) {
    const object = firstObject + i;
    if (needed[object] !== 1) continue;
    const id = index.idOf(object).slice();
    const depth = index.depthOf(object);
    if (frame.kind === 'pages') writer.addPage(id, frame.object(i), depth, frame.pageSize);
    else writer.addNode(id, frame.object(i), depth);
  }
}

/** Deletes packs that were marked long enough ago: first indexes stop naming them, then they go, then their marks. */
async function sweep(
  access: StoreAccess,
  contents: StoreContents,
  plan: Plan,
  options: PruneOptions,
): Promise<void> {
  const { backend, sealer } = access;
  const { index, indexFiles, marks } = contents;
  const due = await stillMarked(access, marks, plan.due);
  const merges = indexFiles.size > MAX_INDEX_FILES;
  const outdated = [...indexFiles].filter(([, packs]) => merges || packs.some((pack) => due.has(pack)));
  const kept = new Set(outdated.flatMap(([, packs]) => packs).filter((pack) => !due.has(pack)));
  if (kept.size > 0) {
    const described = [...kept].map((pack) => index.describe(index.packs.get(pack) as KnownPack));
    const names = new Set((await putIndexFiles(backend, sealer, described)).map(({ name }) => name));
    // The same packs in the same order are the same file.
    await deleteAll(
      backend,
      outdated.map(([file]) => file).filter((file) => !names.has(file)),
      'indexes',
    );
  } else {
    await deleteAll(
      backend,
      outdated.map(([file]) => file),
      'indexes',
    );
  }
  let done = 0;
  for (const pack of due) {
    throwIfAborted(options.signal);
    options.onProgress?.({ phase: 'delete', done: done++, total: due.size });
    // Another prune may have deleted it, or a repair the mark.
    if ((await stillMarked(access, marks, new Set([pack]))).size === 0) continue;
    await backend.delete(`packs/${pack}`);
  }
  const finished = marks.filter(({ packs }: Mark) => packs.every((pack) => due.has(pack)));
  await deleteAll(
    backend,
    finished.map(({ id }) => id),
    'marks',
  );
}

/**
 * Those of `packs` of which the mark, by which they are due, is still there: a repair drops one that it cannot read, and from then on
 * backups may rely on the packs again.
 */
async function stillMarked(
  { backend }: StoreAccess,
  marks: readonly Mark[],
  packs: ReadonlySet<string>,
): Promise<Set<string>> {
  const there = new Set((await backend.list('marks')).map(({ name }) => name));
  const marked = marks.filter(({ id }) => there.has(id)).flatMap((mark) => mark.packs);
  return new Set(marked.filter((pack) => packs.has(pack)));
}

async function deleteAll(
  backend: StoreAccess['backend'],
  names: readonly string[],
  folder: string,
): Promise<void> {
  for (const name of names) await backend.delete(`${folder}/${name}`);
}

/**
 * A record of a snapshot that was taken away is of use as long as another names it as its parent, which one may yet that is being
 * stored.
 */
async function removeForgotten(
  { backend, config }: StoreAccess,
  snapshots: readonly StoreSnapshot[],
  options: PruneOptions & { readonly now: number },
): Promise<void> {
  const before = options.now - (options.graceSeconds ?? config.graceSeconds) * 1000;
  const needed = new Set(snapshots.flatMap(({ id, parent }) => (parent === undefined ? [id] : [id, parent])));
  for (const { name, modified } of await backend.list('forgotten')) {
    if (!needed.has(name) && modified.getTime() <= before) await backend.delete(`forgotten/${name}`);
  }
}

function summarize(contents: StoreContents, plan: Plan, options: PruneOptions): PruneSummary {
  const bytesOf = (packs: ReadonlySet<string>): number =>
    [...packs].reduce((sum, pack) => sum + (contents.packFiles.get(pack)?.bytes ?? 0), 0);
  return {
    dryRun: options.dryRun === true,
    packsMarked: plan.toMark.size,
    bytesMarked: bytesOf(plan.toMark),
    packsRepacked: plan.repacked,
    packsDeleted: plan.due.size,
    bytesDeleted: bytesOf(plan.due),
    packsWaiting: plan.waiting.size,
    bytesWaiting: bytesOf(plan.waiting),
  };
}
