import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import { runRestore } from '../../backup/restore/restore.ts';
import type { RestoreSummary } from '../../backup/options.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import type { SalvageReport } from '../../backup/types.ts';
import { SqlsyncError } from '../../errors.ts';
import { exitStatusOf } from '../terminal/exit.ts';
import { formatBytes, formatCount, formatDuration, formatPages } from '../terminal/format.ts';
import { canonicalLocation } from '../job/job.ts';
import { STDOUT, openStdout } from '../job/to-stdout.ts';
import type { Output } from '../terminal/output.ts';
import { copyListeners } from '../terminal/progress.ts';
import { describeSalvage } from '../store/describe-salvage.ts';
import {
  DATABASE_OPTIONS,
  chooseMoment,
  chooseSnapshot,
  parseSnapshotReference,
} from '../store/snapshot-choice.ts';
import {
  AT_OPTION,
  CACHE_OPTION,
  DRY_RUN,
  SNAPSHOT_OPERAND,
  STORES,
  atTime,
  openStoreAt,
  refuseSwapped,
  runStoreJob,
  storePlace,
} from '../store/store-command.ts';
import { copyOptionsOf, remoteOptionsOf } from '../options/common-options.ts';
import { SHORT_ID_LENGTH } from './snapshots.ts';
import { CONNECTION_OPTIONS, JOB_OPTIONS, OUTPUT_OPTIONS, SYNC_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command, Options } from '../options/command.ts';

const OPTIONS = {
  'dry-run': DRY_RUN,
  overwrite: { describe: 'TARGET may be a database that is there (its content is lost)' },
  replace: { describe: 'Replace a TARGET of another page size' },
  'follow-links': { describe: 'Write TARGET also through a symbolic link, or under several hard links' },
  salvage: {
    describe:
      'Where the store is damaged, write what is left of the snapshot to TARGET, a new file; status 24',
  },
  ...DATABASE_OPTIONS,
  ...AT_OPTION,
  ...CACHE_OPTION,
  compress: SYNC_OPTIONS.compress,
  hash: SYNC_OPTIONS.hash,
  ping: JOB_OPTIONS.ping,
  ...CONNECTION_OPTIONS,
  ...ACCESS_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

/** What is about a target that is a file. */
const OF_A_FILE = ['dry-run', 'overwrite', 'replace', 'follow-links', 'salvage'] as const;

/** `sqlsync restore STORE[#WHICH] TARGET`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'restore',
  usage: '<snapshot> <target>',
  describe: 'Make TARGET the database of a snapshot: STORE[#ID|#latest|#TIME]',
  example: 'sqlsync restore /srv/store#latest app.db',
  summary:
    '`snapshot`, `step` (how many steps after the snapshot were added to it), `target`, `outcome` (`committed`, `unchanged`, `dryRun`), `created`, `pagesChanged`, `pagesTransferred`, `pagesDelta`, `bytesSent`, `bytesReceived`, `durationMs`, `warnings`; with `--salvage` also `salvaged` where pages are lost (`pagesLost`, `objects` with `name`, `type`, `table`, `pagesLost`, `isRebuilt`, `objectsWhole`, `schemaOf`, `isSchemaLost`, `isSchemaCertain`)',
  operands: { snapshot: SNAPSHOT_OPERAND, target: 'Path or [user@]host:path, or - for standard output' },
  options: OPTIONS,
  group: STORES,
  run(args) {
    const { target, salvage, compress } = args;
    const toStdout = target === STDOUT;
    return runStoreJob('restore', args, {
      isStdoutTaken: toStdout,
      name: () => ['restore', args.snapshot, toStdout ? STDOUT : canonicalLocation(target)],
      async work(output, { signal: interruption }, copies) {
        const { store: folder, which } = parseSnapshotReference(atTime(args.snapshot, args.at));
        const stdout = toStdout ? openStdout(args, OPTIONS, OF_A_FILE) : undefined;
        if (!toStdout) refuseSwapped(folder, [target], 'sqlsync restore STORE[#SNAPSHOT] TARGET');
        const { maxTimeMs, ...remote } = remoteOptionsOf(args);
        // What there is to say of the store is said when it is restored from.
        const { onWarning: _, ...access } = storeAccessOf(args, folder, output, interruption);
        const store = await openStoreAt(folder, access);
        const chosen = chooseSnapshot(await store.snapshots(), which, args, (warning) =>
          output.warning(warning),
        );
        const moment = await chooseMoment(store, chosen, which);
        const listeners = copyListeners(output);
        const summary = await withMaxTime(maxTimeMs, interruption, (signal) =>
          runRestore({
            store: storePlace(folder),
            snapshot: moment?.snapshot ?? chosen.id,
            moment,
            target,
            output: stdout,
            salvage,
            compress,
            ...copyOptionsOf(args),
            ...remote,
            ...access,
            ...listeners,
            signal,
          }),
        ).finally(() => listeners.end());
        output.json({ type: 'summary', ...summary });
        const { salvaged, durationMs } = summary;
        if (salvaged === undefined) return output.result(describe(summary));
        sayIncomplete(output, summary, salvaged);
        const labels = { command: 'restore', target };
        const exitStatus = exitStatusOf('SNAPSHOT_INCOMPLETE');
        copies.report({ labels, exitStatus, durationMs, figures: undefined });
      },
    });
  },
});

/** Reports what the target lacks. */
function sayIncomplete(output: Output, summary: RestoreSummary, report: SalvageReport): void {
  output.result(describeSalvage(summary, report));
  // With -q, the exit status alone would not say what happened.
  if (output.options.verbosity === 'quiet' && !output.options.json) {
    throw new SqlsyncError(
      'SNAPSHOT_INCOMPLETE',
      `${summary.target} lacks ${formatPages(report.pagesLost)} of the snapshot`,
      { hint: 'Without -q, sqlsync reports which tables they belonged to.' },
    );
  }
}

function describe(summary: RestoreSummary): string {
  const { snapshot, step, target, outcome, created, pagesChanged, durationMs } = summary;
  const after = step === 0 ? '' : ` and ${formatCount(step)} ${step === 1 ? 'step' : 'steps'}`;
  const of = `${snapshot.path} of ${formatClock(snapshot.time)} (${snapshot.id.slice(0, SHORT_ID_LENGTH)}${after})`;
  const pages = created
    ? `${formatPages(snapshot.pageCount)}, ${formatBytes(snapshot.pageCount * snapshot.pageSize)}`
    : `${formatPages(pagesChanged)} ${outcome === 'dryRun' ? 'would change' : 'changed'}`;
  const figures = `${pages}, ${formatDuration(durationMs)}`;
  if (target === STDOUT) return `Standard output has ${of}: ${figures}`;
  if (outcome === 'dryRun') return `${target} was compared with ${of}; nothing was written: ${figures}`;
  return `${target} ${outcome === 'unchanged' ? 'already is' : 'is now'} ${of}: ${figures}`;
}
