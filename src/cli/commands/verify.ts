import { existsSync } from 'node:fs';
import { toSqlsyncError } from '../../errors.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import { runVerify } from '../../sync/runs/verify.ts';
import type { VerifySummary } from '../../sync/runs/verify.ts';
import { EXIT_DIFFERENT, exitStatusOf } from '../terminal/exit.ts';
import {
  describeRanges,
  formatCount,
  formatDuration,
  formatPages,
  formatPagesOfBoth,
} from '../terminal/format.ts';
import { jobOptionsOf, runJob } from '../job/job.ts';
import type { Output } from '../terminal/output.ts';
import { withSnapshotCopy } from '../store/snapshot-copy.ts';
import { isSnapshotOnAnotherHost } from '../store/snapshot-choice.ts';
import { isStore } from '../store/store-command.ts';
import { outputOf, remoteOptionsOf } from '../options/common-options.ts';
import { CONNECTION_OPTIONS, JOB_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';

const OPTIONS = {
  host: { value: 'NAME', describe: 'Of a store without #ID: only snapshots of this host' },
  path: {
    value: 'PATH',
    describe: 'Of a store without #ID: only snapshots of this database, its path or how that ends',
  },
  ping: JOB_OPTIONS.ping,
  ...CONNECTION_OPTIONS,
  ...ACCESS_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'<a> <b>', typeof OPTIONS>;

/** How many ranges of pages are shown without -v. */
const MAX_RANGES_SHOWN = 8;

/** `sqlsync verify A B`; returns the exit status. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  try {
    const { maxTimeMs, ...options } = remoteOptionsOf(args);
    return await runJob({
      name: ['verify', args.a, args.b],
      expected: [],
      options: jobOptionsOf({ ping: args.ping }, false),
      output,
      run: (interruption, copies) =>
        withMaxTime(maxTimeMs, interruption, async (signal) => {
          const summary = await withSides(args, output, signal, (a, b, copied) =>
            runVerify({
              a,
              b,
              ...options,
              maxTimeMs,
              signal,
              // Warnings about a copy that we made ourselves do not concern the user.
              onWarning: (warning, kind) => {
                if (!copied.some((path) => warning.includes(path))) output.warning(warning, kind);
              },
              onNote: (note) => output.note(note),
            }),
          );
          output.json({ type: 'summary', ...summary });
          output.result(describe(summary, output));
          if (summary.same) return;
          // A difference is news; the exit status alone would send no mail.
          if (output.options.verbosity === 'quiet') output.warning(briefly(summary));
          const { durationMs } = summary;
          copies.report({ labels: {}, exitStatus: EXIT_DIFFERENT, durationMs, figures: undefined });
        }),
    });
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

/** Compares both sides, with a temporary copy in the place of a snapshot. The summary names them as the user did. */
async function withSides(
  { a, b, ...filter }: Arguments,
  output: Output,
  signal: AbortSignal | undefined,
  compare: (a: string, b: string, copied: readonly string[]) => Promise<VerifySummary>,
): Promise<VerifySummary> {
  const copied: string[] = [];
  const withSide = <T>(side: string, work: (location: string) => Promise<T>): Promise<T> => {
    if (!isSnapshot(side)) return work(side);
    return withSnapshotCopy(side, filter, output, { signal }, (path) => {
      copied.push(path);
      return work(path);
    });
  };
  const summary = await withSide(a, (first) => withSide(b, (second) => compare(first, second, copied)));
  return { ...summary, a: { ...summary.a, location: a }, b: { ...summary.b, location: b } };
}

/** `STORE#ID`, or a store by itself. A file with a # in its name is that file. */
function isSnapshot(side: string): boolean {
  if (existsSync(side) && !isStore(side)) return false;
  const at = side.lastIndexOf('#');
  return isStore(side) || (at > 0 && isStore(side.slice(0, at))) || isSnapshotOnAnotherHost(side);
}

function briefly({ a, b, differingPageCount }: VerifySummary): string {
  const how =
    a.pageSize === b.pageSize
      ? `in ${formatPages(differingPageCount)}`
      : `: pages of ${a.pageSize} and ${b.pageSize} bytes`;
  return `${a.location} and ${b.location} differ ${how}`.replace(' :', ':');
}

function describe(summary: VerifySummary, output: Output): string {
  const { a, b, differingPages, differingPageCount, differingRangeCount, objects } = summary;
  const time = formatDuration(summary.durationMs);
  if (summary.same) {
    return `${a.location} and ${b.location} are the same: ${formatPages(a.pageCount)} of ${formatCount(a.pageSize)} bytes (${time})`;
  }
  if (a.pageSize !== b.pageSize) {
    return `${a.location} and ${b.location} differ: pages of ${a.pageSize} and ${b.pageSize} bytes`;
  }
  const lines = [`${a.location} and ${b.location} differ in ${formatPages(differingPageCount)} (${time})`];
  if (a.pageCount !== b.pageCount) lines.push(`  size      ${formatPagesOfBoth(a.pageCount, b.pageCount)}`);
  for (const { name, pagesInA, pagesInB } of objects) {
    lines.push(`  ${name}: ${formatPagesOfBoth(pagesInA, pagesInB)}`);
  }
  const limit = output.options.verbosity === 'verbose' ? Infinity : MAX_RANGES_SHOWN;
  lines.push(
    `  pages     ${describeRanges(differingPages, limit, { more: ' (-v shows them)', count: differingRangeCount })}`,
  );
  return lines.join('\n');
}

export const command: Command = defineCommand({
  name: 'verify',
  usage: '<a> <b>',
  describe:
    'Compare two databases or snapshots (STORE#ID) and say which pages and tables differ; exits 0 when they are the same, 1 when not',
  example: 'sqlsync verify app.db deploy@db1:/srv/app.db',
  summary:
    '`same`, `a`, `b`, `differingPages` (ranges, the first 100,000), `differingPageCount`, `differingRangeCount`, `objects`, `bytesSent`, `bytesReceived`, `durationMs`',
  operands: { a: 'Path or [user@]host:path, or STORE#ID', b: 'Path or [user@]host:path, or STORE#ID' },
  options: OPTIONS,
  group: 'Databases',
  run,
});
