import { isHexId, toHex } from '../packs/object-id.ts';
import { compareBases } from '../objects/compare-bases.ts';
import { comparePack } from '../objects/compare-pack.ts';
import { beginEpoch } from '../files/config.ts';
import { putIndexesWithout } from '../files/put-indexes.ts';
import { PackWriter } from '../objects/pack-writer.ts';
import { repairNotes } from '../prune/forget.ts';
import { findLost, forgetLost } from './repair-lost.ts';
import { nameObjects } from './repair-names.ts';
import type { Named } from './repair-names.ts';
import { Salvage } from './repair-salvage.ts';
import type { SalvagePlan } from './repair-salvage.ts';
import { scanPack } from './repair-scan.ts';
import type { ScannedPack } from './repair-scan.ts';
import type { RepairOptions, RepairSummary } from '../types.ts';
import { walkTree } from '../snapshots/snapshot-tree.ts';
import { throwIfAborted } from '../store-error.ts';
import { assembleContents, loadContents, loadSnapshots } from '../files/store-files.ts';
import type { OnDamage, StoreAccess, StoreContents } from '../files/store-files.ts';
import { withTrialBackend } from '../backends/trial-backend.ts';

/**
 * Makes a damaged store one that backup, prune and check accept again: see docs/store-format.md, "Repair". Deletes no
 * pack, and nothing that can be read. Must not run beside a prune. Throws SqlsyncError STORE_UNAVAILABLE, INTERRUPTED;
 * the next repair continues what was not done.
 */
export function repairContents(access: StoreAccess, options: RepairOptions): Promise<RepairSummary> {
  if (options.dryRun !== true) return repair(access, options);
  return withTrialBackend(access, (trial) => repair({ ...access, backend: trial, files: trial }, options));
}

async function repair(access: StoreAccess, options: RepairOptions): Promise<RepairSummary> {
  const { backend } = access;
  const unreadable: string[] = [];
  const onDamage: OnDamage = (file, error) => {
    // A file that went meanwhile is no loss.
    if (error.code !== 'STORE_FILE_MISSING') unreadable.push(file);
  };
  const loaded = await loadContents(access, onDamage);
  const { misindexed, changed } = await packsWithOtherBases(access, loaded, options);
  const contents = withoutPacks(access, loaded, misindexed);
  const indexes = unreadable.filter((file) => file.startsWith('indexes/'));
  const marks = unreadable.filter((file) => file.startsWith('marks/'));
  const givenUp = new Set([...changed, ...(await damagedPacks(access, contents, options))]);
  const isLossKnown = indexes.length + givenUp.size + misindexed.size > 0;
  const scanned = await scanUnindexed(access, contents, isLossKnown, options);
  const named = nameObjects(access, contents, scanned, options.signal);
  const survives = (pack: string): boolean =>
    named.complete.has(pack) || (contents.index.packs.has(pack) && !givenUp.has(pack));
  const isWanted = await wantedIn(access, named, scanned);
  const mayLose = givenUp.size > 0 || named.complete.size < scanned.length;
  const givesUp = mayLose || indexes.length + misindexed.size > 0;
  if (givesUp) await beginEpoch(access);
  const objectsSaved = mayLose ? await salvage(access, named, { survives, isWanted }, options) : 0;
  // Before new ones are put: an index with the same packs in the same order has the same name.
  for (const file of indexes) await backend.delete(file);
  const known = { index: named.index, indexFiles: contents.indexFiles };
  const dropped = new Set([...givenUp, ...misindexed]);
  const replaced = await putIndexesWithout(access, known, dropped, { more: named.complete });
  // Only now, when other files name everything that they named.
  for (const file of [...replaced, ...marks]) await backend.delete(file);
  // Once more: a backup may have read the lists in between.
  if (givesUp) await beginEpoch(access);
  const { repaired, unnoted } = await repairNotes(access);
  const lost = await findLost(access, options, unnoted);
  const forgotten = options.forget === true ? await forgetLost(access, lost) : [];
  return {
    dryRun: options.dryRun === true,
    configWritten: false,
    graceSeconds: access.config.graceSeconds,
    indexesRemoved: indexes.length,
    packsIndexed: named.complete.size,
    packsGivenUp: givenUp.size,
    packsDamaged: [
      ...[...givenUp].filter((pack) => contents.packFiles.has(pack)),
      ...scanned.map(({ id }) => id).filter((id) => !named.complete.has(id)),
    ],
    objectsSaved,
    marksRemoved: marks.length,
    notesWritten: repaired.length,
    lost,
    forgotten,
  };
}

/** Packs that have deltas on other bases than their indexes say: either the index is wrong, or the pack was changed. */
async function packsWithOtherBases(
  { backend }: StoreAccess,
  { index, reader }: StoreContents,
  { signal }: RepairOptions,
): Promise<{ misindexed: Set<string>; changed: Set<string> }> {
  const [misindexed, changed] = [new Set<string>(), new Set<string>()];
  for (const pack of index.packs.values()) {
    throwIfAborted(signal);
    if (compareBases(reader, pack) !== 'other') continue;
    const { isChanged } = await comparePack(backend, pack.id);
    (isChanged ? changed : misindexed).add(pack.id);
  }
  return { misindexed, changed };
}

/** The same contents, as if no index named these packs. */
function withoutPacks(
  access: StoreAccess,
  contents: StoreContents,
  without: ReadonlySet<string>,
): StoreContents {
  if (without.size === 0) return contents;
  const { index, indexFiles, reader: _, ...lists } = contents;
  const others = [...index.packs.values()].filter(({ id }) => !without.has(id));
  const described = new Map(others.map((pack) => [pack.id, [index.describe(pack)]]));
  return { ...assembleContents(access, { ...lists, indexes: described }), indexFiles };
}

/** Packs that an index names and that are missing, have the wrong length or, if data is read, the wrong bytes. */
async function damagedPacks(
  { backend }: StoreAccess,
  { index }: StoreContents,
  { readData, signal, onProgress }: RepairOptions,
): Promise<Set<string>> {
  const packs = [...index.packs.values()];
  const found = new Set(packs.filter(({ present }) => !present).map(({ id }) => id));
  if (readData !== true) return found;
  for (const [done, { id, present }] of packs.entries()) {
    throwIfAborted(signal);
    onProgress?.({ phase: 'read', done, total: packs.length });
    if (present && (await comparePack(backend, id)).isChanged) found.add(id);
  }
  onProgress?.({ phase: 'read', done: packs.length, total: packs.length });
  return found;
}

/**
 * Scans packs that no index names. Leaves marked packs to prune, which had removed them from the indexes, unless an
 * index or a pack is lost, or a snapshot lacks something.
 */
async function scanUnindexed(
  access: StoreAccess,
  contents: StoreContents,
  isLossKnown: boolean,
  options: RepairOptions,
): Promise<ScannedPack[]> {
  const { index, packFiles, marked } = contents;
  const unindexed = [...packFiles.values()].filter(({ name }) => isHexId(name) && !index.packs.has(name));
  const takesMarked =
    isLossKnown ||
    (unindexed.some(({ name }) => marked.has(name)) &&
      (await findLost(access, options)).some(({ snapshot }) => snapshot !== undefined));
  const chosen = unindexed.filter(({ name }) => takesMarked || !marked.has(name));
  const scanned: ScannedPack[] = [];
  for (const [done, { name, bytes }] of chosen.entries()) {
    throwIfAborted(options.signal);
    options.onProgress?.({ phase: 'read', done, total: chosen.length });
    scanned.push(await scanPack(access.backend, access.sealer, { id: name, bytes }));
  }
  return scanned;
}

/**
 * Decides what is worth saving of a pack. If an index names the pack: everything. What a damaged pack alone says of
 * itself may be wrong, so then only objects that snapshots ask for by their ids.
 */
async function wantedIn(
  access: StoreAccess,
  { reader, complete }: Named,
  scanned: readonly ScannedPack[],
): Promise<SalvagePlan['isWanted']> {
  const doubtful = new Set(scanned.map(({ id }) => id).filter((id) => !complete.has(id)));
  if (doubtful.size === 0) return () => true;
  const needed = new Set<string>();
  const seen = new Uint8Array(reader.index.objectCount);
  const isDoubtful = (copy: number): boolean => doubtful.has(reader.index.packOf(copy)?.id ?? '');
  /** Returns false if it was met before; then all nodes below it were met too. */
  const add = (id: Uint8Array): boolean => {
    const object = reader.index.numberOf(id);
    if (object === -1 || seen[object] === 1) return false;
    seen[object] = 1;
    if (reader.index.copies(id).some(isDoubtful)) needed.add(toHex(id));
    return true;
  };
  for (const snapshot of await loadSnapshots(access, () => {})) {
    walkTree(reader, snapshot, { enterNode: add, page: add, unreadable: () => {} });
  }
  return (id, pack) => !doubtful.has(pack) || needed.has(toHex(id));
}

async function salvage(
  access: StoreAccess,
  { index, reader }: Named,
  plan: SalvagePlan,
  options: RepairOptions,
): Promise<number> {
  const writer = new PackWriter(access, index);
  try {
    const work = new Salvage(reader, plan, writer);
    await work.run(options);
    await writer.finish();
    return work.saved;
  } catch (error) {
    await writer.abort();
    throw error;
  }
}
