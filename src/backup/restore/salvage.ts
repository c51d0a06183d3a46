import { existsSync } from 'node:fs';
import { SqlsyncError } from '../../errors.ts';
import type { PageNumber } from '../../pages/page-types.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import { restoreNew } from './restore-new.ts';
import type { StoreContents } from '../files/store-files.ts';
import type { RestoreOptions } from '../options.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import { damaged } from '../store-error.ts';
import type { SalvageReport, StoreSnapshot } from '../types.ts';
import { mendHoles } from './mend-holes.ts';
import { SalvageSource } from './salvage-source.ts';
import type { Relative } from './schema-pages.ts';

/** The most other snapshots to search for a page of the schema. */
const MAX_RELATIVES = 64;

/**
 * Restores what is left of a snapshot to a new file on this host: see docs/backup.md, "When a store is damaged".
 * Resolves to undefined if nothing is lost: the file is then the complete snapshot. Throws what `restoreNew` throws,
 * and STORE_DAMAGED if nothing is left.
 *
 * @param path - absolute.
 * @param snapshots - all of the store, oldest first.
 */
export async function salvageTo(
  path: string,
  snapshot: StoreSnapshot,
  { contents, snapshots }: { readonly contents: StoreContents; readonly snapshots: readonly StoreSnapshot[] },
  options: RestoreOptions & { readonly onSinkWarning: (warning: string) => void },
): Promise<SalvageReport | undefined> {
  if (existsSync(path)) throw isThere(path);
  const source = new SalvageSource(contents.reader, snapshot);
  let report: SalvageReport | undefined;
  const isMade = await restoreNew(source, snapshot, path, {
    ...options,
    beforePublish: (file) => {
      refuseNothing(source, snapshot);
      if (source.lost.size === 0) return;
      report = mendHoles(file, snapshot, source.lost, relativesOf(snapshot, contents, snapshots));
    },
  });
  if (!isMade) throw isThere(path);
  return report;
}

function isThere(path: string): SqlsyncError {
  return new SqlsyncError('REPLICA_EXISTS', `${path} exists; a salvaged database only goes to a new file`, {
    hint: 'Name a path that does not exist.',
  });
}

function refuseNothing({ lost, pageCount, pageSize }: SalvageSource, { id }: StoreSnapshot): void {
  const pages = pageCount < lockBytePage(pageSize) ? pageCount : pageCount - 1;
  if (lost.size < pages) return;
  throw damaged(`snapshots/${id}`, 'has no page left that can be read; choose another snapshot');
}

/** Snapshots of the same database, the nearest in time first. */
function relativesOf(
  snapshot: StoreSnapshot,
  { reader }: StoreContents,
  snapshots: readonly StoreSnapshot[],
): Relative[] {
  const { host, path, pageSize } = snapshot;
  const place = snapshots.findIndex(({ id }) => id === snapshot.id);
  return snapshots
    .map((each, i) => ({ each, distance: i - place }))
    .filter(
      ({ each, distance }) =>
        distance !== 0 && each.host === host && each.path === path && each.pageSize === pageSize,
    )
    .toSorted((a, b) => Math.abs(a.distance) - Math.abs(b.distance))
    .slice(0, MAX_RELATIVES)
    .map(({ each, distance }) => relativeOf(each, new SnapshotSource(reader, each), distance < 0));
}

function relativeOf({ id }: StoreSnapshot, source: SnapshotSource, isOlder: boolean): Relative {
  return {
    id,
    isOlder,
    readPage(page) {
      if (page > source.pageCount) return undefined;
      try {
        return source.readPage(page as PageNumber);
      } catch (error) {
        if (error instanceof SqlsyncError) return undefined;
        throw error;
      }
    },
  };
}
