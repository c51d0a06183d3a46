import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import { resolve } from 'node:path';
import type { SnapshotDiff, StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError } from '../../errors.ts';
import { EXIT_OK } from '../terminal/exit.ts';
import { describeRanges, formatBytes, formatPages, formatPagesOfBoth } from '../terminal/format.ts';
import { DATABASE_OPTIONS, choosePair, parseSnapshotReference } from '../store/snapshot-choice.ts';
import {
  AT_OPTION,
  CACHE_OPTION,
  STORES,
  atTime,
  openStoreAt,
  runStoreCommand,
} from '../store/store-command.ts';
import { SHORT_ID_LENGTH } from './snapshots.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync diff STORE#A [STORE]#B`; returns the exit status, which is also 0 if they differ. */
export const command: Command = defineCommand({
  name: 'diff',
  usage: '<a> <b>',
  describe: 'Say which pages, tables and indexes differ between two snapshots: STORE#ID #ID',
  example: "sqlsync diff '/srv/store#1a2b3c4d' '#latest'",
  summary:
    '`a`, `b` (snapshots), `pagesInA`, `pagesInB`, `differingPages` (ranges), `objects` (`name`, `pagesInA`, `pagesInB`)',
  operands: { a: 'STORE#ID', b: 'STORE#ID, or #ID of the same store' },
  options: {
    ...DATABASE_OPTIONS,
    ...AT_OPTION,
    ...CACHE_OPTION,
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('diff', args, async (output, options) => {
      const first = parseSnapshotReference(args.a);
      const second = parseSnapshotReference(args.b);
      if (second.store !== '' && resolve(first.store) !== resolve(second.store)) {
        throw new SqlsyncError(
          'USAGE',
          `${first.store} and ${second.store} are two stores; expected snapshots of one`,
          {
            hint: 'Write `sqlsync diff STORE#ID #ID`. To compare databases, use `sqlsync verify`.',
          },
        );
      }
      const access = storeAccessOf(args, first.store, output, options.signal);
      const store = await openStoreAt(atTime(first.store, args.at), access);
      const all = await store.snapshots({ onWarning: (warning) => output.warning(warning) });
      const [a, b] = choosePair(all, [first.which, second.which], args, (text) => output.warning(text));
      const diff = await store.diff(a, b, { owners: true, ...options });
      output.json({ type: 'summary', a, b, ...diff });
      output.result(describe(a, b, diff));
      return EXIT_OK;
    }),
});

/** How many ranges of pages are shown. */
const MAX_RANGES_SHOWN = 8;

function describe(a: StoreSnapshot, b: StoreSnapshot, diff: SnapshotDiff): string {
  const [nameOfA, nameOfB] = [a, b].map(
    ({ id, time }) => `${id.slice(0, SHORT_ID_LENGTH)} (${formatClock(time)})`,
  );
  const pages = diff.differingPages.reduce((sum, [first, last]) => sum + last - first + 1, 0);
  if (pages === 0) return `${nameOfA} and ${nameOfB} are the same: ${formatPages(a.pageCount)}`;
  const size = formatBytes(pages * b.pageSize);
  const lines = [`${nameOfA} and ${nameOfB} differ in ${formatPages(pages)} (${size})`];
  if (diff.pagesInA !== diff.pagesInB)
    lines.push(`  size      ${formatPagesOfBoth(diff.pagesInA, diff.pagesInB)}`);
  for (const { name, pagesInA, pagesInB } of diff.objects)
    lines.push(`  ${name}: ${formatPagesOfBoth(pagesInA, pagesInB)}`);
  lines.push(`  pages     ${describeRanges(diff.differingPages, MAX_RANGES_SHOWN)}`);
  return lines.join('\n');
}
