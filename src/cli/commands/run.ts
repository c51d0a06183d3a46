import type { SqlsyncError } from '../../errors.ts';
import { toSqlsyncError } from '../../errors.ts';
import type { Job } from '../../service/jobs/job-list.ts';
import type { RunOptions } from '../../service/run/run-service.ts';
import { withoutSecrets } from '../../service/state/state.ts';
import { outputOf } from '../options/common-options.ts';
import { defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { counted, formatBytes, formatDuration, formatPages } from '../terminal/format.ts';
import type { Output } from '../terminal/output.ts';
import { CONFIG_OPTION, SERVICE } from './config.ts';

const OPTIONS = {
  ...CONFIG_OPTION,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'', typeof OPTIONS>;

/** `sqlsync run`; returns the exit status. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  try {
    const { runService } = await import('../../service/run/run-service.ts');
    await runService({ config: args.config, listen: undefined, listeners: logTo(output) });
    output.json({ type: 'summary', config: args.config });
    output.result('The service has ended');
    return EXIT_OK;
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

/** The log: a line for each event. */
function logTo(output: Output): RunOptions['listeners'] {
  const say = (
    job: Job,
    type: string,
    fields: object,
    text: (origin: string, target: string) => string,
  ): void => {
    const { origin, target } = placesOf(job);
    output.json({ type, origin, target, ...fields });
    output.result(text(origin, target));
  };
  return {
    onStarted(targets) {
      output.json({ type: 'started', targets });
      output.result(`The service runs, with ${counted(targets, 'target')}`);
    },
    onReloaded(targets) {
      output.json({ type: 'reloaded', targets });
      output.result(`The configuration was read again: ${counted(targets, 'target')}`);
    },
    onReloadFailed: (failure: SqlsyncError) => output.failure('the configuration', failure),
    onCopied: (job, result) =>
      say(job, 'copied', result, (origin, target) => {
        const { pagesChanged, bytes, durationMs } = result;
        return `${origin} → ${target}: ${formatPages(pagesChanged)} changed, ${formatBytes(bytes)}, ${formatDuration(durationMs)}`;
      }),
    onFollowing: (job) => say(job, 'following', {}, (origin, target) => `${target} follows ${origin}`),
    onProven: (job) =>
      say(
        job,
        'proven',
        {},
        (origin, target) => `${target} has a whole copy of ${origin}: restored and checked`,
      ),
    onFailed(job, { code, message }) {
      const { origin, target } = placesOf(job);
      output.json({ type: 'failure', origin, target, code, message });
      if (!output.options.json) output.warning(`${origin} → ${target}: ${message} [${code}]`);
    },
    onWarning: (text) => output.warning(text),
  };
}

function placesOf({ origin, target }: Job): { readonly origin: string; readonly target: string } {
  return { origin: withoutSecrets(origin), target: withoutSecrets(target.place) };
}

export const command: Command = defineCommand({
  name: 'run',
  usage: '',
  describe: 'Run the service: copy what the configuration says, when it says so, until it is asked to end',
  example: 'sqlsync run -c /etc/sqlsync.yaml',
  summary: '`config`',
  operands: {},
  options: OPTIONS,
  group: SERVICE,
  run,
});
