import { SqlsyncError, sanitizeLine, sanitizeText, toSqlsyncError } from '../../errors.ts';
import { runSetup } from '../../sync/runs/setup.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import type { SetupOptions, SetupReport } from '../../sync/runs/setup-report.ts';
import type { RestrictionOptions } from '../../sync/request/restriction.ts';
import type { SshLocation } from '../../sync/link/start-agent.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { formatBytes } from '../terminal/format.ts';
import type { Output } from '../terminal/output.ts';
import { withInterruption } from '../terminal/signals.ts';
import { INSTALL_OPTIONS, changeAsJson, installOnHost } from '../setup/install-host.ts';
import { RESTRICT_OPTIONS, restrictKey } from '../setup/restrict-key.ts';
import { restrictionOf, RESTRICTION_OPTIONS } from '../options/restriction.ts';
import { outputOf, remoteOptionsOf } from '../options/common-options.ts';
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { hintAtDatabase, defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';

const OPTIONS = {
  ...INSTALL_OPTIONS,
  ...RESTRICT_OPTIONS,
  ...RESTRICTION_OPTIONS,
  ...CONNECTION_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'[host] [path]', typeof OPTIONS>;

/** `sqlsync setup HOST [PATH]`; returns the exit status of the first thing that is missing. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  try {
    checkArguments(args);
    const location = args.host === undefined ? undefined : locationOf(args, args.host);
    const remote = remoteOptionsOf(args);
    return await withInterruption((interruption) =>
      withMaxTime(remote.maxTimeMs, interruption, (signal) => {
        const onWarning = (warning: string): void => output.warning(warning);
        const options = location && { ...remote, location, signal, onWarning };
        return args.restrict === undefined
          ? setUp(args, output, options as SetupOptions)
          : setUpKey(args, output, options);
      }),
    );
  } catch (error) {
    const failure = hintAtDatabase('setup', toSqlsyncError(error));
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

/** Throws SqlsyncError USAGE. */
function checkArguments(args: Arguments): void {
  restrictionOf(args);
  const { host, path, install, uninstall, bundle, yes, dryRun, restrict, key } = args;
  const isForKey = restrict !== undefined;
  const faults: readonly (readonly [boolean, string])[] = [
    [host === undefined && !isForKey, 'the host is missing'],
    [host === undefined && install, '--install needs the host'],
    [install && uninstall, '--install and --uninstall exclude each other'],
    [
      isForKey && (uninstall || bundle !== undefined),
      '--restrict goes with neither --uninstall nor --bundle',
    ],
    [isForKey && path !== undefined, '--restrict names the folder, so no path is expected'],
    [!isForKey && key !== undefined, '--key needs --restrict'],
    [!install && bundle !== undefined, '--bundle needs --install'],
    [!install && !uninstall && (yes || dryRun), '--yes and --dry-run need --install or --uninstall'],
  ];
  const [, fault] = faults.find(([isFault]) => isFault) ?? [];
  if (fault !== undefined)
    throw new SqlsyncError('USAGE', `setup: ${fault}`, { hint: 'See `sqlsync setup --help`.' });
}

async function setUp(args: Arguments, output: Output, options: SetupOptions): Promise<number> {
  const { location } = options;
  const host = hostOf(options);
  const changes = args.install || args.uninstall;
  const change = changes ? await installOnHost(args, host, options, output) : undefined;
  const summary = { type: 'summary', host, path: location.path };
  const asJson = change === undefined ? {} : { installation: changeAsJson(change) };
  // What is not installed, or was removed, is not checked.
  if (change !== undefined && (args.uninstall || (!change.isDone && change.plan.bundle !== undefined))) {
    output.json({ ...summary, ...asJson });
    return EXIT_OK;
  }
  const report = await runSetup({ ...options, measuresLink: !changes });
  output.json({ ...summary, ...report, ...asJson });
  output.result(describe(host, report));
  const missing = report.checks.find(({ state }) => state === 'missing');
  if (missing !== undefined && output.options.verbosity === 'quiet')
    output.warning(`${host} is not ready yet: ${missing.name}: ${sanitizeLine(missing.detail, 1000)}`);
  return missing === undefined ? EXIT_OK : exitStatusOf(missing.code ?? 'CONNECT_FAILED');
}

/** Prints the line for a restricted key, or writes it. */
async function setUpKey(args: Arguments, output: Output, options: SetupOptions | undefined): Promise<number> {
  const host = options === undefined ? undefined : hostOf(options);
  const restriction = restrictionOf(args) as RestrictionOptions;
  const fields = await restrictKey(args, restriction, host ?? '', options, output);
  output.json({ type: 'summary', host, ...fields });
  return EXIT_OK;
}

function hostOf({ location }: SetupOptions): string {
  return formatLocation({ ...location, path: '' }).replace(/:$/, '');
}

/** `HOST`, `HOST PATH` or `HOST:PATH`. Throws SqlsyncError USAGE. */
function locationOf({ path }: Arguments, host: string): SshLocation {
  const isPlain = !/^ssh:\/\//i.test(host) && !/:[^\]]*$/.test(host.replace(/^.*\]/, ']'));
  const location = isPlain || host.endsWith(':') ? parseHost(host.replace(/:$/, '')) : parseLocation(host);
  if (location.kind !== 'ssh') {
    throw new SqlsyncError('USAGE', `setup: ${sanitizeText(host, 200)} is not a host`, {
      hint: 'Name the host as [user@]host, and a path on it as [user@]host:path.',
    });
  }
  if (path === undefined) return location;
  if (isPlain) return { ...location, path };
  throw new SqlsyncError('USAGE', 'setup: the path is given twice', { hint: 'Give it once.' });
}

/** The text before a path describes the host completely. */
function parseHost(host: string): ReturnType<typeof parseLocation> {
  const location = parseLocation(`${host}:.`);
  return location.kind === 'ssh' ? { ...location, path: '' } : location;
}

const SIGNS = { ok: 'ok', missing: 'MISSING', unknown: '?' } as const;

function describe(host: string, { ok, checks, link }: SetupReport): string {
  const lines = checks.flatMap(({ name, state, detail, mend }) => {
    const line = `  ${SIGNS[state].padEnd(8)} ${name.padEnd(9)} ${sanitizeLine(detail, 1000)}`;
    return mend === undefined ? [line] : [line, `           ${sanitizeLine(mend, 4000)}`];
  });
  if (link !== undefined) {
    const down = formatBytes(Math.round(link.downloadBytesPerS));
    const up = formatBytes(Math.round(link.uploadBytesPerS));
    lines.push(
      `  ${'ok'.padEnd(8)} ${'link'.padEnd(9)} round trip ${link.roundTripMs.toFixed(1)} ms, ${down}/s from there, ${up}/s to there`,
    );
  }
  const verdict = ok ? `${host} is ready` : `${host} is not ready yet`;
  return [verdict, ...lines].join('\n');
}

export const command: Command = defineCommand({
  name: 'setup',
  usage: '[host] [path]',
  describe:
    'Check that a host can be the other side, and how fast the link is; --install installs sqlsync there',
  example: 'sqlsync setup deploy@db1 /srv/app.db',
  summary:
    '`host`, `path`, `ok`, `checks` (`name`, `state`: `ok`, `missing` or `unknown`, `detail`, `mend`, `code`), `link` (`roundTripMs`, `downloadBytesPerS`, `uploadBytesPerS`); with `--install` or `--uninstall` also `installation` (`changed`, `bundle`, `version`, `place`, `remove`, `removed`, `kept`); with `--restrict` only `host`, `line`, `file`, `action` (`add`, `replace` or `present`), `changed`',
  operands: {
    host: '[user@]host, or [user@]host:path',
    path: 'Database or folder there that a sync would use',
  },
  options: OPTIONS,
  group: 'Databases',
  run,
});
