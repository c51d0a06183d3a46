import { deleteAll } from '../backends/backend.ts';
import { isHexId } from '../packs/object-id.ts';
import { isThereRoom } from '../backends/out-of-space.ts';
import { withoutForgotten } from '../files/forgotten-notes.ts';
import { putIndexesWithout } from '../files/put-indexes.ts';
import type { PrunePlan } from './prune-plan.ts';
import { missingFile, throwIfAborted } from '../store-error.ts';
import { namesIn } from '../files/store-files.ts';
import type { Mark, StoreAccess, StoreContents } from '../files/store-files.ts';
import type { PruneOptions, StoreSnapshot } from '../types.ts';

/** Packs that are deleted between two looks at the marks. */
const BATCH_PACKS = 32;

/** With more index files than this, merges them. */
const MAX_INDEX_FILES = 64;

/**
 * Deletes packs that were marked long enough ago, or need no mark: first indexes stop naming them, then the packs go,
 * then their marks. If there is no room for a new index, the packs go first: an index that names missing packs does no
 * harm, and the marks stay until it is replaced. Returns the deleted packs, and false for `isDone` if the disk was
 * still full at the end.
 */
export async function sweep(
  access: StoreAccess,
  contents: StoreContents,
  plan: PrunePlan,
  options: PruneOptions,
): Promise<{ deleted: Set<string>; isDone: boolean }> {
  const { backend } = access;
  const { marks } = contents;
  await refuseOutdated(access, contents);
  const due = new Set([...(await stillMarked(access, marks, plan.due)), ...plan.atOnce]);
  const isIndexed = await isThereRoom(backend, () => replaceIndexes(access, contents, due));
  const doomed = [...due];
  for (let at = 0; at < doomed.length; at += BATCH_PACKS) {
    throwIfAborted(options.signal);
    options.onProgress?.({ phase: 'delete', done: at, total: due.size });
    const some = doomed.slice(at, at + BATCH_PACKS);
    // Another prune may have deleted a pack, or a repair the mark.
    const marked = await stillMarked(access, marks, new Set(some.filter((pack) => !plan.atOnce.has(pack))));
    const toDelete = some.filter((pack) => plan.atOnce.has(pack) || marked.has(pack));
    await deleteAll(
      backend,
      toDelete.map((pack) => `packs/${pack}`),
    );
  }
  const isDone = isIndexed || (await isThereRoom(backend, () => replaceIndexes(access, contents, due)));
  const finished = marks.filter(({ packs }) => packs.every((pack) => due.has(pack)));
  if (isDone)
    await deleteAll(
      backend,
      finished.map(({ id }) => `marks/${id}`),
    );
  return { deleted: due, isDone };
}

/**
 * Another prune that deleted packs since the lists were loaded, while this one was held up, has also replaced indexes.
 * New indexes from our lists would name packs that are gone. Then throws STORE_FILE_MISSING before anything was done.
 */
async function refuseOutdated(access: StoreAccess, { index }: StoreContents): Promise<void> {
  const there = await namesIn(access, 'packs');
  const gone = [...index.packs.values()].find(({ id, present }) => present && !there.has(id));
  if (gone !== undefined) throw missingFile(access.backend.description, `packs/${gone.id}`);
}

async function replaceIndexes(
  access: StoreAccess,
  { index, indexFiles }: StoreContents,
  due: ReadonlySet<string>,
): Promise<void> {
  const takesAll = indexFiles.size > MAX_INDEX_FILES;
  const replaced = await putIndexesWithout(access, { index, indexFiles }, due, { takesAll });
  await deleteAll(access.backend, replaced);
}

/**
 * The packs among `packs` whose due mark is still there: a repair removes a mark that it cannot read, and from then on
 * backups may rely on the packs again.
 */
async function stillMarked(
  access: StoreAccess,
  marks: readonly Mark[],
  packs: ReadonlySet<string>,
): Promise<Set<string>> {
  if (packs.size === 0) return new Set();
  const there = await namesIn(access, 'marks');
  const marked = marks.filter(({ id }) => there.has(id)).flatMap((mark) => mark.packs);
  return new Set(marked.filter((pack) => packs.has(pack)));
}

/**
 * Deletes the records of forgotten snapshots that are still there, and removes old notes. A note is needed while its
 * record is there, or while another snapshot names the forgotten one as its parent; one that is being stored may still
 * do so.
 */
export async function removeForgotten(
  access: StoreAccess,
  snapshots: readonly StoreSnapshot[],
  options: PruneOptions & { readonly now: number },
): Promise<void> {
  const { backend, config } = access;
  const before = options.now - (options.graceSeconds ?? config.graceSeconds) * 1000;
  const records = await backend.list('snapshots');
  const there = new Set(records.map(({ name }) => name));
  const needed = new Set([...there, ...snapshots.map(({ parent }) => parent)]);
  const notes = (await backend.list('forgotten')).filter(({ name }) => isHexId(name));
  const staying = await withoutForgotten(access, records, new Set(notes.map(({ name }) => name)));
  const left = records.filter((record) => !staying.includes(record)).map(({ name }) => `snapshots/${name}`);
  const old = notes.filter(({ name, modified }) => !needed.has(name) && modified.getTime() <= before);
  await deleteAll(backend, [...left, ...old.map(({ name }) => `forgotten/${name}`)]);
}
