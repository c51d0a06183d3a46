import { repairStore } from '../../backup/store.ts';
import type { LostSnapshot, RepairSummary } from '../../backup/types.ts';
import { SqlsyncError } from '../../errors.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { formatCount, formatDuration, formatPages } from '../terminal/format.ts';
import { DRY_RUN, STORES, STORE_OPERAND, runStoreCommand, storePlace } from '../store/store-command.ts';
import { formatTable } from '../terminal/table.ts';
import { SHORT_ID_LENGTH, SNAPSHOT_COLUMNS } from './snapshots.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/**
 * `sqlsync repair STORE`; returns the exit status: that of a damaged store if some remaining snapshots cannot be
 * restored.
 */
export const command: Command = defineCommand({
  name: 'repair',
  usage: '<store>',
  describe: 'Make a damaged store usable again',
  example: 'sqlsync repair /srv/store --dry-run',
  summary:
    '`dryRun`, `configWritten`, `graceSeconds`, `indexesRemoved`, `packsIndexed`, `packsGivenUp`, `packsDamaged` (ids), `objectsSaved`, `marksRemoved`, `notesWritten`, `lost` (`id`, `snapshot`, `pagesLost`), `forgotten` (ids)',
  operands: { store: STORE_OPERAND },
  options: {
    'dry-run': DRY_RUN,
    'read-data': {
      describe:
        'Read all data, and give up the packs that have changed, not only those that are missing or cut',
    },
    forget: { describe: 'Forget the snapshots that cannot be restored whole' },
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('repair', args, async (output, options) => {
      const { readData, forget, dryRun } = args;
      const access = storeAccessOf(args, args.store, output, options.signal);
      const modes = { readData, forget, dryRun, ...access };
      const summary = await repairStore(storePlace(args.store), { ...modes, ...options });
      output.json({ type: 'summary', ...summary });
      output.result(describe(summary, readData));
      const left = summary.lost.length - summary.forgotten.length;
      if (left === 0) return EXIT_OK;
      // With -q, the exit status alone would not say what happened.
      if (output.options.verbosity === 'quiet' && !output.options.json) {
        throw new SqlsyncError(
          'STORE_DAMAGED',
          `${args.store}: ${counted(left, 'snapshot')} cannot be restored`,
          {
            hint: 'Run `sqlsync repair --dry-run` without -q to see which.',
          },
        );
      }
      return exitStatusOf('STORE_DAMAGED');
    }),
});

function describe(summary: RepairSummary, readData: boolean): string {
  const { dryRun, lost, packsDamaged } = summary;
  const would = dryRun ? 'would be ' : '';
  const done = [
    [
      summary.configWritten ? 1 : 0,
      `the config ${would}written anew, with another id and a grace period of ${formatDuration(summary.graceSeconds * 1000)}`,
    ],
    [summary.indexesRemoved, `${counted(summary.indexesRemoved, 'unreadable index')} ${would}removed`],
    [summary.packsIndexed, `${counted(summary.packsIndexed, 'pack')} ${would}indexed again`],
    [summary.packsGivenUp, `${counted(summary.packsGivenUp, 'pack')} missing or damaged, ${would}given up`],
    [summary.objectsSaved, `${counted(summary.objectsSaved, 'object')} of damaged packs ${would}saved`],
    [
      summary.notesWritten,
      `${counted(summary.notesWritten, 'note')} on forgotten snapshots ${would}written anew, or removed`,
    ],
    [summary.marksRemoved, `${counted(summary.marksRemoved, 'unreadable mark')} ${would}removed`],
  ] as const;
  const lines = done.filter(([count]) => count > 0).map(([, text]) => `  ${text}`);
  lines.unshift(lines.length === 0 ? 'Nothing to repair' : dryRun ? 'To repair:' : 'Repaired:');
  if (packsDamaged.length > 0)
    lines.push(
      `Damaged packs that are still there, until prune deletes them:`,
      ...packsDamaged.map((id) => `  packs/${id}`),
    );
  if (lost.length > 0) lines.push(...describeFate(summary));
  // Bytes that have changed in place are found only by reading them.
  if (!readData) lines.push('The packs were not read, only listed: --read-data reads them.');
  return lines.join('\n');
}

function describeFate({ dryRun, lost, forgotten }: RepairSummary): string[] {
  const fate = forgotten.length > 0 ? `: ${dryRun ? 'to be ' : ''}forgotten` : '';
  return [
    `${counted(lost.length, 'snapshot')} cannot be restored whole${fate}`,
    describeLost(lost),
    ...(forgotten.length > 0
      ? []
      : ['A backup brings back what its database still has. --forget takes away those that stay.']),
  ];
}

function describeLost(lost: readonly LostSnapshot[]): string {
  const [id, ...others] = SNAPSHOT_COLUMNS;
  return formatTable(lost, [
    { title: id?.title ?? '', cell: (each: LostSnapshot) => each.id.slice(0, SHORT_ID_LENGTH) },
    ...others.map(({ title, cell }) => ({
      title,
      cell: ({ snapshot }: LostSnapshot) => (snapshot === undefined ? '' : cell(snapshot)),
    })),
    {
      title: 'Lost',
      cell: ({ pagesLost }: LostSnapshot) =>
        pagesLost === undefined ? 'its record' : formatPages(pagesLost),
    },
  ]);
}

function counted(count: number, noun: string): string {
  const plural = noun.endsWith('index') ? `${noun}es` : `${noun}s`;
  return `${formatCount(count)} ${count === 1 ? noun : plural}`;
}
