import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { DEFAULT_INTERVAL_MS, runFollow } from '../../sync/follow/follow.ts';
import type { FollowFailure, FollowOptions, FollowStep, FollowSummary } from '../../sync/follow/follow.ts';
import { copyOptionsOf, outputOf, remoteOptionsOf } from '../options/common-options.ts';
import { defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';
import { CONNECTION_OPTIONS, OUTPUT_OPTIONS, SYNC_OPTIONS } from '../options/options.ts';
import { parseDuration } from '../options/quantities.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { formatBytes, formatCount, formatDuration, formatPages } from '../terminal/format.ts';
import type { Output } from '../terminal/output.ts';
import { addRequestsTo, sayRequests } from '../store/requests.ts';
import { isStore, storePlace } from '../store/store-command.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { withInterruption } from '../terminal/signals.ts';

const {
  overwrite,
  'follow-links': followLinks,
  'max-snapshot': maxSnapshot,
  'max-wal-growth': maxWalGrowth,
  'max-shrink': maxShrink,
  compress,
  hash,
  reader,
} = SYNC_OPTIONS;

const { 'max-time': _, ...CONNECTION } = CONNECTION_OPTIONS;

const OPTIONS = {
  interval: { value: 'T', default: '1', describe: 'How often to look for changes (1, 500ms, 5s)' },
  'full-every': {
    value: 'T',
    default: '1h',
    describe: 'Time after which a step compares all pages; 0 is every step',
    more: 'If it finds a change of the origin that nothing had told of, the error is `CHANGES_MISSED`.',
  },
  'exit-on-error': { describe: 'End at the first failure, instead of trying again after a pause' },
  overwrite,
  'follow-links': followLinks,
  'max-snapshot': maxSnapshot,
  'max-wal-growth': maxWalGrowth,
  'max-shrink': maxShrink,
  compress,
  hash,
  reader,
  'snapshot-every': {
    value: 'T',
    default: '1h',
    describe: 'Into a store: the age of a snapshot from which the next change makes another',
  },
  'keep-steps': {
    value: 'T',
    default: '1h',
    describe: 'Into a store: how long each single step is kept; of older ones, one for each five minutes',
  },
  store: { describe: 'REPLICA is a store; only [USER@]HOST:PATH needs it' },
  host: { value: 'NAME', describe: 'Into a store: the host that the snapshots are said to be of' },
  ...CONNECTION,
  ...ACCESS_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'<origin> <replica>', typeof OPTIONS>;

const MIN_INTERVAL_MS = 10;

/** `sqlsync follow ORIGIN REPLICA`; returns the exit status. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  addRequestsTo(output);
  try {
    const options = optionsOf(args);
    const summary = await withInterruption((signal) =>
      follow(args, { ...options, signal, ...listeners(args, output) }, output),
    );
    output.json({ type: 'summary', ...summary });
    output.result(describe(summary));
    sayRequests(output);
    if (summary.failing !== undefined) return exitStatusOf(summary.failing);
    return summary.missed > 0 ? exitStatusOf('CHANGES_MISSED') : EXIT_OK;
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

/** Into a database, or into a store. Throws SqlsyncError. */
async function follow(args: Arguments, options: FollowOptions, output: Output): Promise<FollowSummary> {
  const { replica } = options;
  if (!isIntoStore(args)) return runFollow(options);
  for (const name of Object.keys(OPTION_NAMES) as (keyof typeof OPTION_NAMES)[])
    if (options[name] !== undefined && options[name] !== false)
      throw new SqlsyncError('USAGE', `${replica} is a store, so ${OPTION_NAMES[name]} makes no sense`);
  const { runFollowStore } = await import('../../backup/follow/follow-store.ts');
  const { password, acceptNewStore, cache } = storeAccessOf(args, replica, output);
  return runFollowStore({
    ...options,
    password,
    acceptNewStore,
    cache,
    host: args.host,
    replica: storePlace(replica),
    snapshotEveryMs: parseDuration('--snapshot-every', args.snapshotEvery),
    keepStepsMs: parseDuration('--keep-steps', args.keepSteps),
  });
}

/** Those that make no sense for a store. */
const OPTION_NAMES = {
  overwrite: '--overwrite',
  followLinks: '--follow-links',
  maxSnapshotMs: '--max-snapshot',
  maxWalGrowthBytes: '--max-wal-growth',
} as const;

function isIntoStore({ replica, store }: Arguments): boolean {
  return store || isStore(replica);
}

function listeners(
  args: Arguments,
  output: Output,
): Pick<FollowOptions, 'onStep' | 'onFailure' | 'onWarning' | 'onNote'> {
  const { origin, replica } = args;
  let isBroken = false;
  return {
    onStep(step) {
      output.json({ type: 'step', ...step });
      if (step.step === 1)
        output.result(
          `${replica} ${isIntoStore(args) ? 'has a snapshot' : 'is an exact copy'} of ${origin}, and follows it`,
        );
      else if (isBroken) output.result(`${replica} follows ${origin} again`);
      if (!output.options.json) output.note(describeStep(step));
      isBroken = false;
    },
    onFailure(failure) {
      isBroken = true;
      tell(output, origin, failure);
    },
    onWarning: (text, kind) => output.warning(text, kind),
    onNote: (text) => output.note(text),
  };
}

function tell(output: Output, origin: string, { failure, pauseMs }: FollowFailure): void {
  const { code, message, hint, outcome } = failure;
  const again = `It tries again in ${(pauseMs / 1000).toFixed(1)} s.`;
  output.failure(
    origin,
    new SqlsyncError(code, message, { hint: `${hint ?? ''} ${again}`.trim(), outcome, cause: failure }),
  );
}

function describeStep({ step, outcome, pagesChanged, ...figures }: FollowStep): string {
  const wire = `${formatBytes(figures.bytesSent)} sent, ${formatBytes(figures.bytesReceived)} received`;
  const pages = outcome === 'unchanged' ? 'nothing changed' : `${formatPages(pagesChanged)} changed`;
  return `step ${step}: ${pages}, ${wire}, ${formatDuration(figures.durationMs)}`;
}

function describe({ replica, origin, steps, failures, failing, ...figures }: FollowSummary): string {
  const wire = `${formatBytes(figures.bytesSent)} sent, ${formatBytes(figures.bytesReceived)} received`;
  const failed = failures === 0 ? '' : `, ${formatCount(failures)} failures`;
  const since = new Date(figures.lastStepAtMs).toISOString();
  const stale = failing === undefined ? '' : `; it has not followed since ${since} [${failing}]`;
  return `${replica} followed ${origin} for ${formatDuration(figures.durationMs)}: ${formatCount(steps)} steps, ${wire}${failed}${stale}`;
}

/** Throws SqlsyncError USAGE. */
function optionsOf(args: Arguments): FollowOptions {
  const { origin, replica, compress: compression, exitOnError } = args;
  const intervalMs = parseDuration('--interval', args.interval);
  if (intervalMs < MIN_INTERVAL_MS) {
    throw new SqlsyncError(
      'USAGE',
      `--interval ${args.interval} is too short; the least is ${MIN_INTERVAL_MS} ms`,
      {
        hint: `Leave it out for ${DEFAULT_INTERVAL_MS} ms.`,
      },
    );
  }
  const { maxTimeMs: _maxTime, ...remote } = remoteOptionsOf({ ...args, maxTime: undefined });
  return {
    origin,
    replica,
    compress: compression,
    intervalMs,
    exitOnError,
    ...copyOptionsOf(args),
    ...remote,
  };
}

export const command: Command = defineCommand({
  name: 'follow',
  usage: '<origin> <replica>',
  describe:
    'Keep REPLICA, a database or a store, a copy of ORIGIN, second by second, until it is asked to end',
  example: 'sqlsync follow deploy@db1:/srv/app.db app.db',
  summary:
    '`origin`, `replica`, `steps`, `commits` (steps that changed the replica), `failures` (after which it went on), `missed` (of these, changes that nothing had told of), `lastStepAtMs` (when the last step was confirmed, milliseconds since 1970), `failing` (the code of the last failure, if no step has come since), `bytesSent`, `bytesReceived`, `durationMs`, `warnings`; into a store elsewhere also `requests` (as with `backup`)',
  operands: {
    origin: 'Path or [user@]host:path',
    replica: 'Path or [user@]host:path; or a store, which then has every state',
  },
  options: OPTIONS,
  group: 'Databases',
  run,
});
