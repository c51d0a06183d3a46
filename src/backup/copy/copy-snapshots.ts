import { SqlsyncError } from '../../errors.ts';
import { encodeSnapshot } from '../files/snapshot-record.ts';
import { nextGeneration } from '../files/snapshot-order.ts';
import { loadContents, loadSnapshots, putRecord } from '../files/store-files.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import { withLists } from '../files/store-lists.ts';
import { PackWriter } from '../objects/pack-writer.ts';
import { snapshotById } from '../snapshots/find-snapshot.ts';
import { throwIfAborted } from '../store-error.ts';
import type { CopyOptions, CopySummary, StoreSnapshot } from '../types.ts';
import { ObjectCopy } from './copy-objects.ts';
import { StillThere } from './still-there.ts';

/**
 * Copies snapshots from one store to another: what the other one lacks of their pages, then a record of each. A copy has
 * an id of its own, and names the first snapshot of its line as `original`; one that is there already is left alone.
 * Throws SqlsyncError STORE_*, SNAPSHOT_NOT_FOUND, USAGE, INTERRUPTED; what was put then serves the next run.
 */
export async function copySnapshots(
  from: StoreAccess,
  to: StoreAccess,
  options: CopyOptions = {},
): Promise<CopySummary> {
  if (from.config.id === to.config.id) {
    throw new SqlsyncError(
      'USAGE',
      `${from.backend.description} and ${to.backend.description} are one store`,
      {
        hint: 'Both have the same id. Name another store to copy to; `sqlsync init STORE` creates one. A store that another program copied keeps its id.',
      },
    );
  }
  const { dryRun = false, ids, onWarning } = options;
  if (from.unlocked !== undefined && to.unlocked === undefined && options.plain !== true)
    throw wouldBePlain(from, to);
  const needs: StoreSnapshot[] = [];
  const onBad = (_: string, error: SqlsyncError): void => onWarning?.(error.message);
  return withLists(from, { needs, onBadSnapshot: onBad, onBadContents: onBad }, async (source) => {
    const there = await loadSnapshots(to, onBad);
    const chosen =
      ids === undefined ? source.snapshots : source.snapshots.filter(chosenBy(ids, source.snapshots));
    const originals = new Set(there.map(originalOf));
    const wanted = chosen.filter((snapshot) => !originals.has(originalOf(snapshot)));
    needs.splice(0, needs.length, ...wanted);
    const base = { dryRun, skipped: chosen.filter((each) => !wanted.includes(each)) };
    if (dryRun || wanted.length === 0)
      return {
        ...base,
        copied: wanted.map((snapshot) => ({ from: snapshot, to: undefined })),
        bytesAdded: 0,
      };
    const job = { from: source.contents, to, wanted, there, inSource: source.snapshots };
    return { ...base, ...(await copyAll(job, options)) };
  });
}

function wouldBePlain({ backend }: StoreAccess, other: StoreAccess): SqlsyncError {
  const stores = `The store ${backend.description} is encrypted, and ${other.backend.description} is NOT`;
  return new SqlsyncError('USAGE', `${stores}; everybody who has the files there could read the copies`, {
    hint: 'Copy to a store that `sqlsync init --encrypt` made. If this is meant: sqlsync copy STORE OTHER --plain.',
  });
}

interface Job {
  readonly from: StoreContents;
  readonly to: StoreAccess;
  readonly wanted: readonly StoreSnapshot[];
  /** The snapshots of the other store. */
  readonly there: readonly StoreSnapshot[];
  /** All of the source, in order. */
  readonly inSource: readonly StoreSnapshot[];
}

async function copyAll(
  { from, to, wanted, there, inSource }: Job,
  options: CopyOptions,
): Promise<Pick<CopySummary, 'copied' | 'bytesAdded'>> {
  const load = (): Promise<StoreContents> =>
    loadContents(to, (file, error) => tolerate(file, error, options));
  const contents = await load();
  const stillThere = new StillThere(to, contents, load);
  const writer = new PackWriter(to, contents.index);
  try {
    const copy = new ObjectCopy(from.reader, contents.reader, writer);
    for (const [done, snapshot] of wanted.entries()) {
      throwIfAborted(options.signal);
      options.onProgress?.({ phase: 'read', done, total: wanted.length });
      copy.need(snapshot);
    }
    await copy.run(options);
    const { bytes: bytesAdded } = await writer.finish((packs) => stillThere.beforeIndex(wanted, packs));
    const copied = await putRecords(to, { wanted, there, inSource }, stillThere);
    return { copied, bytesAdded };
  } catch (error) {
    await writer.abortAfter(error);
    throw error;
  }
}

async function putRecords(
  to: StoreAccess,
  { wanted, there, inSource }: Pick<Job, 'wanted' | 'there' | 'inSource'>,
  stillThere: StillThere,
): Promise<CopySummary['copied']> {
  const counterparts = new Map(there.map((snapshot) => [originalOf(snapshot), snapshot]));
  const copied: { from: StoreSnapshot; to: string }[] = [];
  let next = nextGeneration(there);
  for (const snapshot of wanted) {
    const { id: _, ...rest } = snapshot;
    const parent = inSource.find(({ id }) => id === snapshot.parent);
    const record = {
      ...rest,
      original: originalOf(snapshot),
      parent: parent && counterparts.get(originalOf(parent))?.id,
      generation: before(snapshot, { inSource, there, counterparts }) ?? next++,
    };
    const id = await putRecord(to, 'snapshots', 'snapshot', encodeSnapshot(record));
    await stillThere.afterRecord(id, snapshot, record.parent);
    if (record.generation === next - 1) to.memory?.saw({ id, generation: record.generation });
    counterparts.set(record.original, { id, ...record });
    copied.push({ from: snapshot, to: id });
  }
  return copied;
}

/**
 * The generation of a copy that comes before snapshots that are there already: copies of later ones of the source, and
 * later ones of the same database that the other store has from elsewhere. It is the lowest of theirs, so that times
 * decide. undefined if there are none.
 */
function before(
  snapshot: StoreSnapshot,
  {
    inSource,
    there,
    counterparts,
  }: Pick<Job, 'inSource' | 'there'> & { readonly counterparts: ReadonlyMap<string, StoreSnapshot> },
): number | undefined {
  const { host, path, time } = snapshot;
  const copies = inSource
    .slice(inSource.indexOf(snapshot) + 1)
    .map((each) => counterparts.get(originalOf(each))?.generation);
  const others = there
    .filter((each) => each.host === host && each.path === path && each.time > time)
    .map(({ generation }) => generation);
  const later = [...copies, ...others].filter((generation) => generation !== undefined);
  return later.length === 0 ? undefined : Math.min(...later);
}

/** The id of the snapshot that this one is a copy of, or its own. */
function originalOf({ id, original }: StoreSnapshot): string {
  return original ?? id;
}

function chosenBy(
  ids: readonly string[],
  snapshots: readonly StoreSnapshot[],
): (snapshot: StoreSnapshot) => boolean {
  const chosen = new Set(ids.map((id) => snapshotById(snapshots, id)));
  return (snapshot) => chosen.has(snapshot);
}

/** What only a damaged index names is copied again. */
function tolerate(file: string, error: SqlsyncError, { onWarning }: CopyOptions): void {
  if (!file.startsWith('indexes/')) throw error;
  onWarning?.(`${error.message}; what only it names is copied again`);
}
