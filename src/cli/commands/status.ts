import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { LEVEL_STATUS } from '../../service/state/judge.ts';
import type { Status, TargetStatus } from '../../service/state/judge.ts';
import { outputOf } from '../options/common-options.ts';
import { defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { exitStatusOf } from '../terminal/exit.ts';
import { counted, formatBytes, formatPages, formatTimeLeft } from '../terminal/format.ts';
import { stdoutClosed } from '../terminal/output.ts';
import type { Output } from '../terminal/output.ts';
import { withInterruption } from '../terminal/signals.ts';
import { formatTable } from '../terminal/table.ts';
import { CONFIG_OPTION, SERVICE } from './config.ts';

const OPTIONS = {
  watch: { describe: 'Show it again every two seconds, until Ctrl-C' },
  ...CONFIG_OPTION,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'', typeof OPTIONS>;

const WATCH_INTERVAL_MS = 2000;

/** `sqlsync status`; returns the exit status. */
async function run(args: Arguments): Promise<number> {
  const output = outputOf(args);
  try {
    if (args.watch && args.json)
      throw new SqlsyncError('USAGE', '--watch and --json exclude each other', {
        hint: 'Leave out --watch.',
      });
    const { readStatus } = await import('../../service/run/read-status.ts');
    const status = args.watch
      ? await withInterruption((signal) => watch(args.config, output, signal, readStatus))
      : await readStatus(args.config);
    output.json({ type: 'summary', ...status });
    if (!args.watch) output.result(describe(status));
    return LEVEL_STATUS[status.level];
  } catch (error) {
    const failure = toSqlsyncError(error);
    output.error(failure);
    return exitStatusOf(failure.code);
  }
}

async function watch(
  config: string,
  output: Output,
  signal: AbortSignal,
  readStatus: (config: string) => Promise<Status>,
): Promise<Status> {
  for (;;) {
    const status = await readStatus(config);
    if (process.stdout.isTTY) process.stdout.write('\x1b[H\x1b[2J');
    output.result(describe(status));
    try {
      await delay(WATCH_INTERVAL_MS, undefined, { signal: AbortSignal.any([signal, stdoutClosed]) });
    } catch {
      return status;
    }
  }
}

function describe(status: Status): string {
  const { targets, isServiceRunning, configFailure, atMs, troubles: ofNoTarget } = status;
  const count = (level: string): number => targets.filter((each) => each.level === level).length;
  const counts = ['fine', 'late', 'failing', 'gone'].flatMap((level) => {
    const number = count(level);
    return number === 0 ? [] : [`${number} ${level}`];
  });
  const head = `${counted(targets.length, 'target')}: ${counts.join(', ') || 'none'}`;
  const troubles = [
    ...(isServiceRunning ? [] : ['No service runs: this is what the last one wrote.']),
    ...ofNoTarget,
    ...(configFailure === undefined
      ? []
      : [`The changed configuration was not taken: ${configFailure.message}`]),
    ...targets.flatMap(({ origin, target, why }) =>
      why === undefined ? [] : [`${origin} → ${target}: ${why}`],
    ),
  ];
  return [head, ...(targets.length === 0 ? [] : [tableOf(targets, atMs)]), ...troubles].join('\n');
}

function tableOf(targets: readonly TargetStatus[], atMs: number): string {
  const ago = (ms: number | undefined): string => (ms === undefined ? 'never' : `${span(atMs - ms)} ago`);
  return formatTable(targets, [
    { title: '', cell: ({ level }) => level },
    { title: 'Database', cell: ({ origin }) => origin },
    { title: 'Target', cell: ({ target }) => target },
    { title: 'Copy', cell: (each) => (each.isFollowing ? 'follows' : ago(each.lastSuccessAtMs)) },
    { title: 'Changed', cell: ({ moved }) => (moved === undefined ? '' : formatPages(moved.pagesChanged)) },
    { title: 'Size', cell: ({ sizeBytes, growthBytes }) => sizeOf(sizeBytes, growthBytes) },
    { title: 'Proven', cell: ({ provenAtMs }) => ago(provenAtMs) },
    { title: 'Next', cell: (each) => (each.isRunning ? 'runs' : nextOf(each, atMs)) },
  ]);
}

function nextOf({ nextRunAtMs, level }: TargetStatus, atMs: number): string {
  if (nextRunAtMs === undefined || level === 'gone') return '';
  return nextRunAtMs <= atMs ? 'now' : `in ${span(nextRunAtMs - atMs)}`;
}

function sizeOf(bytes: number | undefined, growth: number | undefined): string {
  if (bytes === undefined) return '';
  if (growth === undefined || growth === 0) return formatBytes(bytes);
  return `${formatBytes(bytes)} (${growth > 0 ? '+' : '−'}${formatBytes(Math.abs(growth))})`;
}

const DAY_MS = 86_400_000;

/** A time in its two largest units; days from two days on. */
function span(ms: number): string {
  return ms >= 2 * DAY_MS ? `${Math.floor(ms / DAY_MS)} d` : formatTimeLeft(Math.max(0, ms));
}

export const command: Command = defineCommand({
  name: 'status',
  usage: '',
  describe: 'Say of each copy of the service whether it is fine, late or failing (status 0, 1, 2)',
  example: 'sqlsync status -c /etc/sqlsync.yaml',
  summary:
    '`level`, `config`, `isServiceRunning`, `serviceStartedAtMs`, `atMs`, `configFailure`, `entries` (patterns and watched folders, each with `entry`, `databases`, `level`, `why`), `troubles` (sentences), and `targets`, each with `id`, `origin`, `target`, `kind`, `schedule`, `level`, `why`, `isRunning`, `isFollowing`, `lastSuccessAtMs`, `lagMs`, `nextRunAtMs`, `moved` (`bytes`, `pagesChanged`, `durationMs`), `provenAtMs`, `snapshot`, `sizeBytes`, `growthBytes`, `sizes`; times are milliseconds since 1970',
  operands: {},
  options: OPTIONS,
  group: SERVICE,
  run,
});
