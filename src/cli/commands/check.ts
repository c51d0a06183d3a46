import type { CheckProblem, CheckSummary, DataSubset } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { counted, formatBytes, formatPages } from '../terminal/format.ts';
import { parseSize } from '../options/quantities.ts';
import {
  AT_OPTION,
  STORES,
  STORE_OPERAND,
  atTime,
  canonicalStore,
  openStoreAt,
  runStoreJob,
} from '../store/store-command.ts';
import { formatTable } from '../terminal/table.ts';
import { SHORT_ID_LENGTH, SNAPSHOT_COLUMNS } from './snapshots.ts';
import { JOB_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync check STORE`; returns the exit status: that of a damaged store if it found damage. */
export const command: Command = defineCommand({
  name: 'check',
  usage: '<store>',
  describe: 'Look for damage in a store',
  example: 'sqlsync check /srv/store --read-data',
  summary:
    '`problems` (`file`, `message`), `damaged` (`snapshot`, `pagesLost`), `intact` (snapshots), `dataRead` (`none`, `part`, `all`; `there` if the host of the store read all), `packsRead`, `bytesRead`, `packs`, `packBytes`',
  operands: { store: STORE_OPERAND },
  options: {
    'read-data': { describe: 'Read and check all data, not only records and trees' },
    'read-data-subset': {
      value: 'PART',
      describe: 'Read only this part of the data: 1/7 … 7/7; or so much, chosen at random: 5%, 500M',
    },
    'read-here': {
      describe: 'With these: read the data on this host, also where sqlsync on the host of the store could',
    },
    ...AT_OPTION,
    ...JOB_OPTIONS,
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run(args) {
    const labels = { command: 'check', store: args.store };
    return runStoreJob(
      'check',
      { ...args, dryRun: false },
      {
        name: () => ['check', canonicalStore(args.store)],
        expected: [labels],
        async work(output, options, copies) {
          const startedAt = performance.now();
          const subset = subsetOf(args.readDataSubset);
          const store = await openStoreAt(
            atTime(args.store, args.at),
            storeAccessOf(args, args.store, output, options.signal),
          );
          const { readData, readHere } = args;
          const summary = await store.check({ readData, readHere, readDataSubset: subset, ...options });
          const isSound = summary.problems.length === 0 && summary.damaged.length === 0;
          output.json({ type: 'summary', ...summary });
          output.result(describe(args.store, summary));
          // With -q, the exit status alone would not say what happened.
          if (!isSound && output.options.verbosity === 'quiet' && !output.options.json) {
            const { problems, damaged } = summary;
            throw new SqlsyncError(
              'STORE_DAMAGED',
              `${args.store}: ${counted(problems.length, 'problem')}, ${counted(damaged.length, 'snapshot')} damaged`,
              { hint: 'Run `sqlsync check` without -q to see what it found.' },
            );
          }
          const exitStatus = isSound ? EXIT_OK : exitStatusOf('STORE_DAMAGED');
          copies.report({
            labels,
            exitStatus,
            durationMs: performance.now() - startedAt,
            figures: undefined,
          });
        },
      },
    );
  },
});

/** Throws SqlsyncError USAGE. */
function subsetOf(text: string | undefined): DataSubset | undefined {
  if (text === undefined) return undefined;
  const [, n, m] = /^(\d{1,6})\/(\d{1,6})$/.exec(text) ?? [];
  const part = { n: Number(n), m: Number(m) };
  if (part.n >= 1 && part.n <= part.m) return part;
  const percent = Number(/^(\d{1,3}(?:\.\d{1,9})?)%$/.exec(text)?.[1]);
  if (percent > 0 && percent <= 100) return { percent };
  if (/^\d+(?:\.\d+)?[kmgt]?(?:i?b)?$/i.test(text)) return { bytes: parseSize('--read-data-subset', text) };
  throw new SqlsyncError(
    'USAGE',
    `--read-data-subset: expected such as 1/7, 5% or 500M but got "${sanitizeText(text, 100)}"`,
    {
      hint: 'The first of seven parts is 1/7, the last 7/7; all seven together are all data. 5% and 500M are chosen at random.',
    },
  );
}

function describe(store: string, summary: CheckSummary): string {
  const { problems, damaged } = summary;
  if (problems.length === 0 && damaged.length === 0)
    return `No damage found: ${claimOf(summary)}\n${lookedAt(summary)}`;
  const lines = [`${counted(problems.length, 'problem')} found`];
  for (const problem of problems) lines.push(`  ${describeProblem(problem)}`);
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
  lines.push(claimOf(summary), lookedAt(summary), `To mend what can be: sqlsync repair ${store} --read-data`);
  if (damaged.length > 0)
    lines.push(
      `What is left of one: sqlsync restore --salvage ${store}#${damaged.at(-1)?.snapshot.id.slice(0, SHORT_ID_LENGTH) ?? ''} NEW.db`,
    );
  return lines.join('\n');
}

/** What the check shows about the undamaged snapshots: no more than it looked at. */
function claimOf({ intact, dataRead, problems, damaged }: CheckSummary): string {
  const snapshots = counted(intact.length, 'snapshot');
  if (dataRead === 'all' || dataRead === 'there') return `${snapshots} can be restored`;
  const isSound = problems.length + damaged.length === 0;
  return isSound
    ? `everything is there that ${snapshots} ${intact.length === 1 ? 'needs' : 'need'}`
    : `${snapshots} ${intact.length === 1 ? 'needs' : 'need'} nothing that was found damaged`;
}

function lookedAt({ dataRead, packsRead, bytesRead, packs, packBytes }: CheckSummary): string {
  const read = `${counted(packsRead, 'pack')} read (${formatBytes(bytesRead)})`;
  if (dataRead === 'all') return `All data was read: ${read}`;
  if (dataRead === 'there') return `All data was read by the host of the store: ${read}`;
  const all = `${counted(packs, 'pack')} (${formatBytes(packBytes)})`;
  return dataRead === 'part'
    ? `A part of the data was read: ${read} of ${all}; --read-data reads all`
    : `Records, indexes and trees were read, but not the data in ${all}: --read-data reads that too`;
}

/** Names the file once, with an id as short as elsewhere. */
function describeProblem({ file, message }: CheckProblem): string {
  const text = message.startsWith(file) ? message : `${file}: ${message}`;
  return sanitizeText(text.replaceAll(/\b([0-9a-f]{8})[0-9a-f]{56}\b/g, '$1'));
}
