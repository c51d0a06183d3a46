import { readFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import type { Job } from '../../service/jobs/job.ts';
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
  listen: {
    value: 'HOST:PORT',
    describe: 'Also serve the status over HTTP: a page, /metrics, /healthz, /api/status',
    more: 'On a loopback address, such as 127.0.0.1:9247; on others only with `--token-file`.',
  },
  'token-file': {
    value: 'FILE',
    describe:
      'File whose one line those who ask over HTTP have to send, as a Bearer token or as the password',
  },
  ...CONFIG_OPTION,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'', typeof OPTIONS>;

/** `sqlsync run`; returns the exit status. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  try {
    const { runService } = await import('../../service/run/run-service.ts');
    const listen = await listenerOf(args, output);
    await runService({ config: args.config, listen, listeners: logTo(output) });
    output.json({ type: 'summary', config: args.config });
    output.result('The service has ended');
    return EXIT_OK;
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

/** Opens the page of the service, if that is asked for. Throws SqlsyncError USAGE. */
async function listenerOf({ listen, tokenFile }: Arguments, output: Output): Promise<RunOptions['listen']> {
  if (listen === undefined) {
    if (tokenFile === undefined) return undefined;
    throw new SqlsyncError('USAGE', '--token-file is for --listen', { hint: 'Add --listen 127.0.0.1:9247.' });
  }
  const { parseListen, parseToken, serveHttp } = await import('../../service/http/server.ts');
  const { closed } = await import('../../service/run/control-socket.ts');
  const { TargetReports } = await import('../../service/run/target-reports.ts');
  const place = parseListen(listen);
  const token = tokenFile === undefined ? undefined : parseToken(readFileSync(tokenFile, 'utf8'));
  return async (service) => {
    const reports = new TargetReports({
      job: (id) => service.job(id),
      stateOf: (id) => service.states.get(id),
    });
    const shown = { status: () => service.status, report: (id: string) => reports.get(id) };
    const server = await serveHttp(place, token, shown, (text) => output.warning(text));
    const { address, port, family } = server.address() as AddressInfo;
    const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${port}/`;
    output.json({ type: 'listening', url });
    output.result(`The status is at ${url}`);
    return {
      async close() {
        await Promise.all([reports.close(), closed(server, () => server.closeAllConnections())]);
      },
    };
  };
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
