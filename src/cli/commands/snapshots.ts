import type { StoreSnapshot } from '../../backup/types.ts';
import { EXIT_OK } from '../exit.ts';
import { counted, formatBytes, formatCount, formatLocalTime } from '../format.ts';
import { filterSnapshots } from '../store/snapshot-choice.ts';
import type { FilterArguments } from '../store/snapshot-choice.ts';
import { openStoreAt, runStoreCommand } from '../store/store-command.ts';
import { formatTable } from '../table.ts';
import type { Column } from '../table.ts';
import type { OutputArguments } from './common-options.ts';

export interface SnapshotsArguments extends OutputArguments, FilterArguments {
  readonly store: string;
}

/** Digits of an id that are shown. */
export const SHORT_ID_LENGTH = 8;

export const SNAPSHOT_COLUMNS: readonly Column<StoreSnapshot>[] = [
  { title: 'ID', cell: ({ id }) => id.slice(0, SHORT_ID_LENGTH) },
  { title: 'Time', cell: ({ time }) => formatLocalTime(time) },
  { title: 'Host', cell: ({ host }) => host },
  { title: 'Tags', cell: ({ tags }) => tags.join(',') },
  { title: 'Size', isRight: true, cell: ({ pageSize, pageCount }) => formatBytes(pageSize * pageCount) },
  { title: 'Changed', isRight: true, cell: ({ statistics }) => formatCount(statistics.pagesChanged) },
  { title: 'Added', isRight: true, cell: ({ statistics }) => formatBytes(statistics.bytesAdded) },
  { title: 'Path', cell: ({ path }) => path },
];

/** `sqlsync snapshots STORE`; returns the exit status. */
export function runSnapshotsCommand(args: SnapshotsArguments): Promise<number> {
  return runStoreCommand('snapshots', args, async (output) => {
    const store = await openStoreAt(args.store);
    const all = await store.snapshots({ onWarning: (warning) => output.warning(warning) });
    const snapshots = filterSnapshots(all, args);
    output.json({ type: 'summary', snapshots });
    const count = counted(snapshots.length, 'snapshot');
    output.result(
      snapshots.length === 0 ? 'No snapshots' : `${formatTable(snapshots, SNAPSHOT_COLUMNS)}\n${count}`,
    );
    return EXIT_OK;
  });
}
