import { toSqlsyncError } from '../../errors.ts';
import { withMaxTime } from '../../sync/max-time.ts';
import { runVerify } from '../../sync/verify.ts';
import type { VerifySummary } from '../../sync/verify.ts';
import { EXIT_DIFFERENT, EXIT_OK, exitStatusOf } from '../exit.ts';
import { describeRanges, formatCount, formatDuration, formatPages } from '../format.ts';
import type { Output } from '../output.ts';
import { withInterruption } from '../signals.ts';
import { outputOf, remoteOptionsOf } from './common-options.ts';
import type { CommonArguments } from './common-options.ts';

export interface VerifyArguments extends CommonArguments {
  readonly a: string;
  readonly b: string;
}

/** Ranges of pages shown without -v. */
const MAX_RANGES_SHOWN = 8;

/** `sqlsync verify A B`; returns the exit status. */
export async function runVerifyCommand(args: VerifyArguments): Promise<number> {
  const output = outputOf(args);
  try {
    const { maxTimeMs, ...options } = remoteOptionsOf(args);
    const summary = await withInterruption((interruption) =>
      withMaxTime(maxTimeMs, interruption, (signal) =>
        runVerify({
          a: args.a,
          b: args.b,
          ...options,
          maxTimeMs,
          signal,
          onWarning: (warning, kind) => output.warning(warning, kind),
          onNote: (note) => output.note(note),
        }),
      ),
    );
    output.json({ type: 'summary', ...summary });
    output.result(describe(summary, output));
    // That they differ is news; the status alone would send no mail.
    if (!summary.same && output.options.verbosity === 'quiet') output.warning(briefly(summary));
    return summary.same ? EXIT_OK : EXIT_DIFFERENT;
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
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
  if (a.pageCount !== b.pageCount)
    lines.push(`  size      ${formatPages(a.pageCount)} and ${formatPages(b.pageCount)}`);
  for (const { name, pagesInA, pagesInB } of objects) {
    lines.push(
      `  ${name}: ${formatPages(pagesInA)}${pagesInA === pagesInB ? '' : ` and ${formatPages(pagesInB)}`}`,
    );
  }
  const limit = output.options.verbosity === 'verbose' ? Infinity : MAX_RANGES_SHOWN;
  lines.push(
    `  pages     ${describeRanges(differingPages, limit, { more: ' (-v shows them)', count: differingRangeCount })}`,
  );
  return lines.join('\n');
}
