import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import { confirmedByPlace } from '../../backup/prune/place-times.ts';
import { dateSnapshots } from '../../backup/snapshots/snapshot-clock.ts';
import type { StoreSnapshot } from '../../backup/types.ts';
import { EXIT_OK } from '../terminal/exit.ts';
import { counted, formatBytes, formatCount } from '../terminal/format.ts';
import { DATABASE_OPTIONS, TAG_OPTIONS, filterSnapshots } from '../store/snapshot-choice.ts';
import {
  AT_OPTION,
  CACHE_OPTION,
  STORES,
  STORE_OPERAND,
  atTime,
  openStoreAt,
  runStoreCommand,
} from '../store/store-command.ts';
import { formatTable } from '../terminal/table.ts';
import type { Column } from '../terminal/table.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync snapshots STORE`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'snapshots',
  usage: '<store>',
  describe: 'List the snapshots of a store',
  example: 'sqlsync snapshots /srv/store --path app.db',
  summary:
    '`snapshots`, in the order in which they were made, and `misdated` (`id`, `doubt`: `future` or `order`)',
  operands: { store: STORE_OPERAND },
  options: {
    ...DATABASE_OPTIONS,
    ...TAG_OPTIONS,
    ...AT_OPTION,
    ...CACHE_OPTION,
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('snapshots', args, async (output, { signal }) => {
      const access = storeAccessOf(args, args.store, output, signal);
      const store = await openStoreAt(atTime(args.store, args.at), access);
      const all = await store.snapshots({ onWarning: (warning) => output.warning(warning) });
      const snapshots = filterSnapshots(all, args);
      const datings = dateSnapshots(all);
      const misdated = snapshots.flatMap(({ id }) => {
        const doubt = datings.get(id)?.doubt;
        return doubt === undefined ? [] : [{ id, doubt }];
      });
      output.json({ type: 'summary', snapshots, misdated });
      output.result(describe(snapshots, new Map(misdated.map(({ id, doubt }) => [id, doubt])), all));
      return EXIT_OK;
    }),
});

/** How many digits of an id are shown. */
export const SHORT_ID_LENGTH = 8;

export const SNAPSHOT_COLUMNS: readonly Column<StoreSnapshot>[] = [
  { title: 'ID', cell: ({ id }) => id.slice(0, SHORT_ID_LENGTH) },
  { title: 'Time', cell: ({ time }) => formatClock(time) },
  { title: 'Host', cell: ({ host }) => host },
  { title: 'Tags', cell: ({ tags }) => tags.join(',') },
  { title: 'Size', isRight: true, cell: ({ pageSize, pageCount }) => formatBytes(pageSize * pageCount) },
  { title: 'Changed', isRight: true, cell: ({ statistics }) => formatCount(statistics.pagesChanged) },
  { title: 'Added', isRight: true, cell: ({ statistics }) => formatBytes(statistics.bytesAdded) },
  { title: 'Path', cell: ({ path }) => path },
];

function describe(
  snapshots: readonly StoreSnapshot[],
  misdated: ReadonlyMap<string, 'future' | 'order'>,
  all: readonly StoreSnapshot[],
): string {
  if (snapshots.length === 0) return 'No snapshots';
  const doubts = { future: 'time in the future', order: 'time out of order' };
  const confirmed = confirmedByPlace(all);
  const note: Column<StoreSnapshot> = {
    title: '',
    cell: ({ id, stored }) => {
      const doubt = misdated.get(id);
      if (doubt !== undefined) return doubts[doubt];
      return confirmed.has(id) || stored === undefined ? '' : `stored ${formatClock(stored)}`;
    },
  };
  const lines = [formatTable(snapshots, [...SNAPSHOT_COLUMNS, note]), counted(snapshots.length, 'snapshot')];
  if (misdated.size > 0)
    lines.push(
      `The times of ${formatCount(misdated.size)} of them are wrong, since a clock was. They are listed in the order in which they were made; the last one of a database is its newest.`,
    );
  return lines.join('\n');
}
