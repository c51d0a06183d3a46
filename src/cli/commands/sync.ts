import type { Writable } from 'node:stream';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import { runStream } from '../../sync/runs/stream.ts';
import { runSync } from '../../sync/runs/sync.ts';
import type { SyncOptions, SyncSummary } from '../../sync/runs/sync.ts';
import { EXIT_DAMAGED, EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { formatBytes, formatCount, formatDuration, formatPages, formatShare } from '../terminal/format.ts';
import { canonicalLocation, jobOptionsOf, runJob } from '../job/job.ts';
import { STDOUT, openStdout } from '../job/to-stdout.ts';
import type { Output } from '../terminal/output.ts';
import { copyListeners } from '../terminal/progress.ts';
import { parseWholeNumber } from '../options/quantities.ts';
import { copyOptionsOf, outputOf, remoteOptionsOf } from '../options/common-options.ts';
import { CONNECTION_OPTIONS, JOB_OPTIONS, OUTPUT_OPTIONS, SYNC_OPTIONS } from '../options/options.ts';
import { checkFolderOptions, FOLDER_OPTIONS } from '../folder/folder-options.ts';
import { defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';

const OPTIONS = {
  ...SYNC_OPTIONS,
  ...FOLDER_OPTIONS,
  ...JOB_OPTIONS,
  ...CONNECTION_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'<origin> <replica>', typeof OPTIONS>;

/** `sqlsync ORIGIN REPLICA`; returns the exit status. */
async function run(args: Arguments): Promise<number> {
  const { origin, replica } = args;
  const toStdout = replica === STDOUT;
  const output = outputOf(args, toStdout);
  try {
    const { maxTimeMs, ...options } = optionsOf(args);
    checkFolderOptions(args);
    if (args.recursive) {
      const { runFolder } = await import('../folder/sync-folder-job.ts');
      return await runFolder(args, { ...options, maxTimeMs }, output);
    }
    const stdout = toStdout ? openStdout(args, OPTIONS, OF_A_FILE) : undefined;
    const labels = { command: 'sync', origin, replica };
    return await runJob({
      name: ['sync', canonicalLocation(origin), toStdout ? STDOUT : canonicalLocation(replica)],
      expected: [labels],
      options: jobOptionsOf(args, args.dryRun),
      output,
      explain: (failure) => explainInterruption(failure, args.dryRun || toStdout),
      async run(interruption, copies) {
        const startedAtMs = Date.now();
        const summary = await withMaxTime(maxTimeMs, interruption, (signal) =>
          syncWithProgress({ ...options, maxTimeMs, signal }, output, stdout),
        );
        output.json({ type: 'summary', ...summary });
        output.result(
          toStdout
            ? describeStream(summary)
            : isBrief(output)
              ? describeBriefly(summary)
              : describeSummary(summary),
        );
        const isDamaged = summary.findings.length > 0;
        if (isDamaged) output.warning(describeFindings(summary));
        // The snapshot was taken after the start, so it contains everything that was committed before.
        const figures = { ...summary, snapshotAtMs: startedAtMs };
        const exitStatus = isDamaged ? EXIT_DAMAGED : EXIT_OK;
        copies.report({ labels, exitStatus, durationMs: summary.durationMs, figures });
      },
    });
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

/** With `stdout`, that stream gets the copy. */
async function syncWithProgress(
  options: SyncOptions,
  output: Output,
  stdout: Writable | undefined,
): Promise<SyncSummary> {
  const listeners = copyListeners(output);
  try {
    if (stdout === undefined) return await runSync({ ...options, ...listeners });
    return await runStream({ ...options, ...listeners, output: stdout });
  } finally {
    listeners.end();
  }
}

/** What is about a replica that is a file. A stream cannot be taken back, so it is written once, of one snapshot. */
const OF_A_FILE = [
  'recursive',
  'dry-run',
  'overwrite',
  'replace',
  'reflink',
  'follow-links',
  'retry',
  'max-snapshot',
  'max-wal-growth',
  'max-shrink',
  'check',
  'full',
  'full-every',
] as const;

function describeStream({ origin, pageCount, pageSize, durationMs }: SyncSummary): string {
  const size = `${formatPages(pageCount)} (${formatBytes(pageSize * pageCount)})`;
  return `Standard output has an exact copy of ${origin}: ${size}, ${formatDuration(durationMs)}`;
}

/** A log gets one line, a person the whole summary. */
function isBrief(output: Output): boolean {
  return !process.stdout.isTTY && output.options.verbosity !== 'verbose';
}

function explainInterruption(error: SqlsyncError, isNothingKept: boolean): SqlsyncError {
  if (error.code !== 'INTERRUPTED' || isNothingKept || error.outcome !== undefined) return error;
  return new SqlsyncError(error.code, error.message, {
    hint: 'The replica was not changed. The next run continues from what has arrived, if anything has.',
    cause: error.cause,
  });
}

function optionsOf(args: Arguments): SyncOptions & { maxTimeMs: number | undefined } {
  const { origin, replica, compress, check, dryRun, reflink } = args;
  if (check && dryRun) {
    throw new SqlsyncError('USAGE', '--check and --dry-run exclude each other', {
      hint: 'A dry run writes nothing to check. To check the origin, run integrity_check with sqlite3.',
    });
  }
  const retries = parseWholeNumber('--retry', args.retry, RETRIES);
  return { origin, replica, compress, retries, reflink, ...copyOptionsOf(args), ...remoteOptionsOf(args) };
}

const RETRIES = {
  least: 0,
  most: Infinity,
  hint: 'Give how often to try again when the connection fails, such as --retry 10.',
};

/** How many findings are shown; `--json` has them all. */
const MAX_FINDINGS_SHOWN = 10;

function describeFindings({ origin, replica, findings }: SyncSummary): string {
  const shown = findings.slice(0, MAX_FINDINGS_SHOWN).map((finding) => `  ${finding}`);
  const more = findings.length - shown.length;
  return [
    `${replica} is an exact copy of ${origin}, and SQLite finds it damaged:`,
    ...shown,
    ...(more > 0 ? [`  and ${more} more (--json has them all)`] : []),
  ].join('\n');
}

/** The summary for people. */
export function describeSummary(summary: SyncSummary): string {
  const { pageSize, pageCount, bytesSent, bytesReceived } = summary;
  const size = pageSize * pageCount;
  const wire = bytesSent + bytesReceived;
  // A new copy that this process makes by itself crosses no wire.
  const speedup =
    summary.outcome === 'committed' && wire > 0 && size > wire * 1.05
      ? `, ${factor(size / wire)} less than the whole`
      : '';
  return [
    headline(summary),
    `  pages     ${describePages(summary)}`,
    `  wire      ${formatBytes(bytesSent)} sent, ${formatBytes(bytesReceived)} received${speedup}`,
    `  time      ${formatDuration(summary.durationMs)}; snapshot held for ${formatDuration(summary.snapshotHeldMs)}, origin's WAL grew by ${formatBytes(summary.walGrowthBytes)}`,
    ...describeRounds(summary),
  ].join('\n');
}

function describeRounds({ attempts, rounds }: SyncSummary): string[] {
  const parts = [
    ...(attempts > 1 ? [`${formatCount(attempts)} attempts`] : []),
    ...(rounds > 1 ? [`${formatCount(rounds)} rounds; the figures of snapshot and WAL are the largest`] : []),
  ];
  return parts.length === 0 ? [] : [`  link      ${parts.join(', ')}`];
}

/** The summary on one line. */
export function describeBriefly(summary: SyncSummary): string {
  const { outcome, pageSize, pageCount, pagesCompared, pagesChanged, pagesTransferred, rounds } = summary;
  const { bytesSent, bytesReceived, quick } = summary;
  const did = outcome === 'dryRun' ? 'would change' : 'changed';
  const pages =
    pagesCompared === 0
      ? `${formatPages(pageCount)} (${formatBytes(pageSize * pageCount)})${quick ? ' not read' : ''}`
      : rounds > 1
        ? `${formatPages(pageCount)}, ${formatCount(pagesTransferred)} sent in ${rounds} rounds`
        : `${formatCount(pagesChanged)} of ${formatPages(pageCount)} ${did}`;
  const wire = `${formatBytes(bytesSent)} sent, ${formatBytes(bytesReceived)} received`;
  return `${headline(summary)}: ${pages}, ${wire}, ${formatDuration(summary.durationMs)}`;
}

function describePages(summary: SyncSummary): string {
  const { pageSize, pageCount, pagesCompared, pagesChanged, pagesTransferred, pagesDelta, rounds } = summary;
  const size = formatBytes(pageSize * pageCount);
  const isDryRun = summary.outcome === 'dryRun';
  if (summary.quick) return `${formatPages(pageCount)} (${size}), not read: nothing has touched either side`;
  if (pagesCompared === 0)
    return `${formatPages(pageCount)} ${isDryRun ? 'would be copied' : 'copied'} (${size})`;
  if (rounds > 1)
    return `${formatPages(pageCount)} (${size}), ${formatCount(pagesTransferred)} sent in ${rounds} rounds`;
  const did = isDryRun ? 'would change' : 'changed';
  const deltas = pagesDelta > 0 ? `, ${formatCount(pagesDelta)} of them sent as deltas` : '';
  const ofAll = pagesCompared === pageCount ? '' : ' of all';
  const compared =
    pagesCompared === pageCount
      ? `${formatPages(pageCount)} compared (${size})`
      : `${formatPages(pageCount)} (${size}): ${formatCount(pagesCompared)} compared`;
  return `${compared}, ${formatCount(pagesChanged)} ${did} (${formatShare(pagesChanged, pageCount)}${ofAll})${deltas}`;
}

function headline({ outcome, origin, replica, created, resumed, pagesCompared }: SyncSummary): string {
  switch (outcome) {
    case 'dryRun':
      if (pagesCompared === 0) return `${replica} would be a new copy of ${origin}; nothing was written`;
      return `${replica} was compared with ${origin}; nothing was written`;
    case 'unchanged':
      return `${replica} already is an exact copy of ${origin}`;
    case 'committed': {
      const how = created ? (resumed ? ' (new, resumed)' : ' (new)') : resumed ? ' (resumed)' : '';
      return `${replica} is now an exact copy of ${origin}${how}`;
    }
  }
}

function factor(value: number): string {
  return `${value < 10 ? value.toFixed(1) : formatCount(Math.round(value))} times`;
}

export const command: Command = defineCommand({
  name: 'sync',
  usage: '<origin> <replica>',
  describe: 'Copy ORIGIN to REPLICA; the name sync may be left out',
  example: 'sqlsync --dry-run app.db deploy@db1:/srv/app.db',
  summary:
    'with `--recursive` `origin`, `replica`, `databases`, `committed`, `unchanged`, `failures` (each with `origin`, `code`, `message`, `hint`), `deleted`, `omitted` (how many), `pagesChanged`, `bytesSent`, `bytesReceived`, `durationMs`; else `origin`, `replica`, `outcome` (`committed`, `unchanged`, `dryRun`), `pageSize`, `pageCount`, `pagesCompared`, `pagesChanged`, `pagesTransferred`, `pagesDelta`, `bytesSent`, `bytesReceived`, `durationMs`, `attempts`, `rounds`, `snapshotHeldMs`, `walGrowthBytes` (the largest of all rounds), `created`, `resumed`, `quick` (nothing was compared, because nothing had touched either side since all pages were), `warnings`, `findings` (what `--check` found)',
  operands: {
    origin: 'Path or [user@]host:path',
    replica: 'Path or [user@]host:path, or - for standard output',
  },
  options: OPTIONS,
  group: 'Databases',
  run,
});
