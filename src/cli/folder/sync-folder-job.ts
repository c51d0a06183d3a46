import type { SqlsyncError } from '../../errors.ts';
import { sanitizeText } from '../../errors.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import { syncFolder } from '../../sync/runs/sync-folder.ts';
import type { FolderOptions } from '../../sync/runs/sync-folder.ts';
import type { Pair } from '../../sync/runs/sync-many.ts';
import type { SyncOptions, SyncSummary } from '../../sync/runs/sync.ts';
import type { Copies } from '../job/copies.ts';
import { canonicalLocation, jobOptionsOf, runJob } from '../job/job.ts';
import type { JobArguments } from '../options/options.ts';
import { EXIT_DAMAGED, EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { counted, formatBytes, formatCount, formatDuration, formatPages } from '../terminal/format.ts';
import type { Output } from '../terminal/output.ts';
import type { FolderArguments } from './folder-options.ts';

type Arguments = FolderArguments & JobArguments & { readonly dryRun: boolean };

/** `sqlsync --recursive`; returns the exit status. Throws SqlsyncError USAGE. */
export function runFolder(args: Arguments, options: SyncOptions, output: Output): Promise<number> {
  const { origin, replica, maxTimeMs } = options;
  const { include, exclude, delete: deletes } = args;
  return runJob({
    name: ['sync', '--recursive', canonicalLocation(origin), canonicalLocation(replica)],
    expected: [],
    partial: 'highest',
    options: jobOptionsOf(args, args.dryRun),
    output,
    async run(interruption, copies) {
      const report = new FolderReport(output, copies);
      const { reflink: _reflink, ...shared } = options;
      await withMaxTime(maxTimeMs, interruption, (signal) =>
        report.copy({ ...shared, include, exclude, deletes, signal }),
      );
    },
  });
}

/** What is told of each database, and of all. */
class FolderReport {
  readonly #output: Output;
  readonly #copies: Copies;
  readonly #summaries: SyncSummary[] = [];
  readonly #failures: { readonly origin: string; readonly failure: SqlsyncError }[] = [];
  #deleted = 0;
  #omitted = 0;

  constructor(output: Output, copies: Copies) {
    this.#output = output;
    this.#copies = copies;
  }

  async copy(options: FolderOptions): Promise<void> {
    const startedAt = performance.now();
    const startedAtMs = Date.now();
    const output = this.#output;
    const { bytesSent, bytesReceived } = await syncFolder(
      {
        ...options,
        // What is advice for one database is a flood for a thousand.
        onWarning: (text, kind) => (kind === 'advice' ? output.note(text) : output.warning(text, kind)),
        onNote: (text) => output.note(text),
      },
      {
        onListed: (pairs) => this.#copies.expect(pairs.map(labelsOf)),
        onOmitted: ({ path, why }) => {
          this.#omitted++;
          output.json({ type: 'omitted', path, why });
          output.note(`${path} is left out: it ${why}`);
        },
        onDeleted: (path) => {
          this.#deleted++;
          output.json({ type: 'deleted', path });
          output.result(
            `${sanitizeText(path)} ${options.dryRun === true ? 'would be' : 'was'} deleted: its origin is gone`,
          );
        },
        onDone: (pair, summary) => this.#onDone(pair, summary, startedAtMs),
        onFailed: (pair, failure) => this.#onFailed(pair, failure),
        onRetry: ({ failure, pauseMs }) =>
          output.warning(
            `${failure.message} [${failure.code}]; it is tried again in ${formatDuration(pauseMs)}`,
            'advice',
          ),
      },
    );
    const durationMs = Math.round(performance.now() - startedAt);
    this.#summarize(options, { bytesSent, bytesReceived, durationMs });
  }

  #onDone(pair: Pair, summary: SyncSummary, snapshotAtMs: number): void {
    const { outcome, findings, warnings, durationMs } = summary;
    this.#summaries.push(summary);
    const isDamaged = findings.length > 0;
    const exitStatus = isDamaged ? EXIT_DAMAGED : EXIT_OK;
    this.#copies.report({
      labels: labelsOf(pair),
      exitStatus,
      durationMs,
      figures: { ...summary, snapshotAtMs },
    });
    const { origin, replica, pagesChanged } = summary;
    this.#output.json({
      type: 'database',
      origin,
      replica,
      outcome,
      pagesChanged,
      durationMs,
      warnings,
      findings,
    });
    const shown = `${sanitizeText(origin)}: ${formatCount(pagesChanged)} of ${formatPages(summary.pageCount)} changed`;
    if (outcome === 'unchanged') this.#output.note(shown);
    else this.#output.result(shown);
    if (isDamaged)
      this.#output.warning(
        `SQLite finds ${sanitizeText(origin)} damaged: ${sanitizeText(findings[0] ?? '', 200)}`,
      );
  }

  #onFailed(pair: Pair, failure: SqlsyncError): void {
    const { origin } = pair;
    this.#failures.push({ origin, failure });
    const exitStatus = exitStatusOf(failure.code);
    this.#copies.report({ labels: labelsOf(pair), exitStatus, durationMs: 0, figures: undefined });
    this.#output.failure(sanitizeText(origin), failure);
  }

  #summarize(
    { origin, replica, dryRun }: FolderOptions,
    how: { bytesSent: number; bytesReceived: number; durationMs: number },
  ): void {
    const summaries = this.#summaries;
    const unchanged = summaries.filter(({ outcome }) => outcome === 'unchanged').length;
    const pagesChanged = summaries.reduce((sum, each) => sum + each.pagesChanged, 0);
    const databases = summaries.length + this.#failures.length;
    const committed = dryRun === true ? 0 : summaries.length - unchanged;
    this.#output.json({
      type: 'summary',
      origin,
      replica,
      databases,
      committed,
      unchanged,
      failures: this.#failures.map(({ origin: of, failure: { code, message, hint } }) => ({
        origin: of,
        code,
        message,
        hint,
      })),
      deleted: this.#deleted,
      omitted: this.#omitted,
      pagesChanged,
      ...how,
    });
    const parts = [
      `${formatCount(summaries.length - unchanged)} ${dryRun === true ? 'differ' : 'copied'}`,
      `${formatCount(unchanged)} unchanged`,
      ...(this.#failures.length > 0 ? [`${formatCount(this.#failures.length)} failed`] : []),
      ...(this.#omitted > 0 ? [`${counted(this.#omitted, 'other file')} left out`] : []),
    ];
    const wire = `${formatBytes(how.bytesSent)} sent, ${formatBytes(how.bytesReceived)} received`;
    this.#output.result(
      `${sanitizeText(origin)} → ${sanitizeText(replica)}: ${counted(databases, 'database')}: ${parts.join(', ')}; ${formatPages(pagesChanged)} changed, ${wire}, ${formatDuration(how.durationMs)}`,
    );
  }
}

function labelsOf({ origin, replica }: Pair): Record<string, string> {
  return { command: 'sync', origin, replica };
}
