import type { CheckOptions, CheckSummary } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { EXIT_OK, exitStatusOf } from '../exit.ts';
import { counted, formatBytes, formatPages } from '../format.ts';
import { openStoreAt, runStoreCommand } from '../store/store-command.ts';
import { formatTable } from '../table.ts';
import type { OutputArguments } from './common-options.ts';
import { SNAPSHOT_COLUMNS } from './snapshots.ts';

export interface CheckArguments extends OutputArguments {
  readonly store: string;
  readonly readData: boolean;
  readonly readDataSubset?: string | undefined;
}

/** `sqlsync check STORE`; returns the exit status: that of a damaged store where it found something. */
export function runCheckCommand(args: CheckArguments): Promise<number> {
  return runStoreCommand('check', args, async (output, options) => {
    const subset = subsetOf(args.readDataSubset);
    const store = await openStoreAt(args.store);
    const summary = await store.check({ readData: args.readData, readDataSubset: subset, ...options });
    const isSound = summary.problems.length === 0 && summary.damaged.length === 0;
    output.json({ type: 'summary', ...summary });
    output.result(describe(summary));
    if (isSound) return EXIT_OK;
    // The exit status alone would tell nobody who was quiet.
    if (output.options.verbosity === 'quiet' && !output.options.json) {
      const { problems, damaged } = summary;
      throw new SqlsyncError(
        'STORE_DAMAGED',
        `${args.store}: ${counted(problems.length, 'problem')}, ${counted(damaged.length, 'snapshot')} damaged`,
        {
          hint: '`sqlsync check` without -q says what.',
        },
      );
    }
    return exitStatusOf('STORE_DAMAGED');
  });
}

function subsetOf(text: string | undefined): CheckOptions['readDataSubset'] {
  if (text === undefined) return undefined;
  const [, n, m] = /^(\d{1,6})\/(\d{1,6})$/.exec(text) ?? [];
  const subset = { n: Number(n), m: Number(m) };
  if (subset.n >= 1 && subset.n <= subset.m) return subset;
  throw new SqlsyncError(
    'USAGE',
    `--read-data-subset: expected such as 1/7 but got "${sanitizeText(text, 100)}"`,
    {
      hint: 'The first of seven parts is 1/7, the last 7/7; all seven together are all data.',
    },
  );
}

function describe({ problems, damaged, intact, packsRead, bytesRead }: CheckSummary): string {
  const read = packsRead === 0 ? '' : `, ${counted(packsRead, 'pack')} read (${formatBytes(bytesRead)})`;
  if (problems.length === 0 && damaged.length === 0)
    return `No damage found: ${counted(intact.length, 'snapshot')} can be restored${read}`;
  const lines = [`${counted(problems.length, 'problem')} found${read}`];
  for (const { file, message } of problems) lines.push(`  ${file}: ${sanitizeText(message)}`);
  if (damaged.length > 0) {
    const columns = [
      ...SNAPSHOT_COLUMNS.map(({ title, cell }) => ({
        title,
        cell: ({ snapshot }: CheckSummary['damaged'][number]) => cell(snapshot),
      })),
      { title: 'Lost', cell: ({ pagesLost }: CheckSummary['damaged'][number]) => formatPages(pagesLost) },
    ];
    lines.push(`${counted(damaged.length, 'snapshot')} cannot be restored:`, formatTable(damaged, columns));
  }
  lines.push(`${counted(intact.length, 'snapshot')} can be restored`);
  return lines.join('\n');
}
