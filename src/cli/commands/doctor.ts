import { sanitizeLine, SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { judge } from '../../doctor/judge/judge.ts';
import { withExamination } from '../../sync/runs/examine.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import { presentReport } from '../doctor/present-report.ts';
import { runExplain, runWatch } from '../doctor/run-watch.ts';
import { outputOf, remoteOptionsOf } from '../options/common-options.ts';
import { defineCommand, hintAtDatabase } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { parseDuration } from '../options/quantities.ts';
import { EXIT_FINDINGS, EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { stdoutClosed } from '../terminal/output.ts';
import type { Output } from '../terminal/output.ts';
import { storeListeners } from '../terminal/progress.ts';
import { withInterruption } from '../terminal/signals.ts';

const OPTIONS = {
  full: {
    describe: 'Read the whole database too: integrity, foreign keys, sizes of tables, what VACUUM gives back',
    more: 'In WAL mode it is a reader for all of that time: the WAL grows, and a checkpoint that waits for readers (FULL, RESTART, TRUNCATE) keeps writers waiting. Where a program writes in rollback mode meanwhile, it says so, and checks nothing.',
  },
  watch: {
    describe: 'Go on looking until Ctrl-C (or --max-time): who writes, waits and reads, commits, the WAL',
    more: 'A terminal shows a live view. Without one, and with `--json`, there is a line for each interval. At the end it sums up.',
  },
  interval: { value: 'T', default: '500ms', describe: 'Time between two samples of --watch' },
  record: { value: 'FILE', describe: 'New file for the samples of --watch, as JSON lines' },
  explain: { describe: 'DATABASE is a file of --record: sum it up' },
  ...CONNECTION_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'<database>', typeof OPTIONS>;

/** `sqlsync doctor DATABASE`; returns 1 if there are findings. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  try {
    checkChoice(args);
    if (args.explain) return runExplain(args.database, output);
    return await withInterruption((interruption) =>
      args.watch ? watch(args, output, interruption) : report(args, output, interruption),
    );
  } catch (error) {
    const failure = hintAtDatabase('doctor', toSqlsyncError(error));
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

/** Throws SqlsyncError USAGE. */
function checkChoice({ full, watch: isWatch, record, explain }: Arguments): void {
  const given = [full && '--full', isWatch && '--watch', explain && '--explain'].filter(
    (name) => name !== false,
  );
  if (given.length > 1) throw new SqlsyncError('USAGE', `${given.join(' and ')} exclude each other`);
  if (record !== undefined && !isWatch)
    throw new SqlsyncError('USAGE', '--record needs --watch', { hint: 'Add --watch.' });
}

/** Ctrl-C, `--max-time` and the end of who reads it (`| head`) are its proper end. */
function watch(args: Arguments, output: Output, interruption: AbortSignal): Promise<number> {
  const { maxTimeMs, ...remote } = remoteOptionsOf(args);
  const intervalMs = parseDuration('--interval', args.interval);
  const ends = [
    interruption,
    ...(maxTimeMs === undefined ? [] : [AbortSignal.timeout(maxTimeMs)]),
    // A record goes on without a reader.
    ...(args.record === undefined ? [stdoutClosed] : []),
  ];
  return runWatch({ database: args.database, intervalMs, record: args.record }, output, {
    ...remote,
    until: AbortSignal.any(ends),
    onWarning: (warning) => output.warning(warning),
    onNote: (note) => output.note(note),
  });
}

async function report(args: Arguments, output: Output, interruption: AbortSignal): Promise<number> {
  const { maxTimeMs, ...remote } = remoteOptionsOf(args);
  const listeners = storeListeners(output);
  try {
    const facts = await withMaxTime(maxTimeMs, interruption, (signal) =>
      withExamination(
        args.database,
        {
          ...remote,
          maxTimeMs,
          signal,
          onWarning: (warning) => output.warning(warning),
          onNote: (note) => output.note(note),
        },
        (examine) =>
          examine({
            full: args.full,
            onProgress: (done, total) => listeners.onProgress({ phase: 'read', done, total }),
          }),
      ),
    );
    listeners.end();
    const findings = judge(facts);
    output.json({ type: 'summary', database: args.database, findings, facts });
    output.result(presentReport({ facts, findings }, args.database));
    if (output.options.verbosity === 'quiet')
      for (const { title, severity } of findings)
        if (severity !== 'advice') output.warning(`${args.database}: ${sanitizeLine(title, 2000)}`);
    return findings.length === 0 ? EXIT_OK : EXIT_FINDINGS;
  } finally {
    listeners.end();
  }
}

export const command: Command = defineCommand({
  name: 'doctor',
  usage: '<database>',
  describe:
    'Show who holds and who waits for the locks of a database, what keeps its WAL from shrinking, and what is wrong with it; exits 0 when nothing is, 1 when something is',
  example: 'sqlsync doctor deploy@db1:/srv/app.db',
  summary:
    '`database`, `findings` (`id`, `severity`: `danger`, `blocked` or `advice`, `title`, `meaning`, `mend`), `facts` (`path`, `host`, `database`, `header`, `wal`, `journal`, `processes`, `locks`, `pools`, `lookedForMs`, `busyMs`, `sight`, `health`, `full`, `unseen`). With `--watch` and `--explain`: `path`, `host`, `unseen`, `forMs`, `looks`, `commits`, `checkpoints`, `walBytesWritten`, `walBytesMax`, `processes` (`pid`, `command`, `heldShare`, `waitedShare`, `longHolds`, `longest`, `longestReadMs`, `longestPinMs`), `histogram` (holds under 50 ms, 200 ms, 1 s, 5 s, and longer)',
  operands: { database: 'Path or [user@]host:path, or the file of --explain' },
  options: OPTIONS,
  group: 'Databases',
  run,
});
