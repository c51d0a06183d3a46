import { sanitizeLine, toSqlsyncError } from '../../errors.ts';
import { judge } from '../../doctor/judge/judge.ts';
import { withExamination } from '../../sync/runs/examine.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import { presentReport } from '../doctor/present-report.ts';
import { outputOf, remoteOptionsOf } from '../options/common-options.ts';
import { defineCommand, hintAtDatabase } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { EXIT_FINDINGS, EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import type { Output } from '../terminal/output.ts';
import { storeListeners } from '../terminal/progress.ts';
import { withInterruption } from '../terminal/signals.ts';

const OPTIONS = {
  full: {
    describe: 'Read the whole database too: integrity, foreign keys, sizes of tables, what VACUUM gives back',
    more: 'It keeps no program from writing. Where a program writes in rollback mode meanwhile, it says so, and checks nothing.',
  },
  ...CONNECTION_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'<database>', typeof OPTIONS>;

/** `sqlsync doctor DATABASE`; returns 1 if there are findings. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  try {
    return await withInterruption((interruption) => report(args, output, interruption));
  } catch (error) {
    const failure = hintAtDatabase('doctor', toSqlsyncError(error));
    output.error(failure);
    return exitStatusOf(failure.code);
  }
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
    '`database`, `findings` (`id`, `severity`: `danger`, `blocked` or `advice`, `title`, `meaning`, `mend`), `facts` (`path`, `host`, `database`, `header`, `wal`, `journal`, `processes`, `locks`, `lookedForMs`, `health`, `full`, `unseen`)',
  operands: { database: 'Path or [user@]host:path' },
  options: OPTIONS,
  group: 'Databases',
  run,
});
