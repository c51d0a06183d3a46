import { existsSync } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import type { RemoteOptions } from '../../sync/link/start-agent.ts';
import { COPY_REQUEST } from '../../sync/request/copy-request.ts';
import type { CopyRequestOptions } from '../../sync/request/copy-request.ts';
import type { CommonArguments, OutputArguments } from './options.ts';
import { Output } from '../terminal/output.ts';
import { parseDuration, parsePercent, parseRate, parseSize, parseWholeNumber } from './quantities.ts';

const PORTS = { least: 1, most: 65_535, hint: 'Give the port on which sshd listens.' };

/** Throws SqlsyncError USAGE. With `isStdoutTaken`, stdout carries a database. */
export function outputOf(args: OutputArguments, isStdoutTaken = false): Output {
  if (args.quiet && args.verbose) throw new SqlsyncError('USAGE', '--quiet and --verbose exclude each other');
  return new Output({
    json: args.json,
    verbosity: args.quiet ? 'quiet' : args.verbose ? 'verbose' : 'normal',
    isStdoutTaken,
  });
}

/** Throws SqlsyncError USAGE. */
export function remoteOptionsOf(
  args: CommonArguments,
): RemoteOptions & { busyTimeoutMs: number; idleTimeoutMs: number; maxTimeMs: number | undefined } {
  for (const file of args.identity ?? []) {
    if (existsSync(file)) continue;
    throw new SqlsyncError('USAGE', `--identity: ${sanitizeText(file, 200)} does not exist`, {
      hint: 'Name the private key file. Only the shell expands ~, and it does not after a =.',
    });
  }
  const { port, connectTimeout, maxTime, bwlimit } = args;
  return {
    port: port === undefined ? undefined : parseWholeNumber('--port', port, PORTS),
    identityFiles: args.identity,
    knownHostsFiles: args.knownHosts,
    acceptNewHostKey: args.acceptNewHostKey,
    jump: args.jump,
    configFile: args.sshConfig,
    rsh: args.rsh ?? (process.env['SQLSYNC_RSH'] || undefined),
    remoteExe: args.remoteExe,
    busyTimeoutMs: parseDuration('--busy-timeout', args.busyTimeout, true),
    idleTimeoutMs: parseDuration('--timeout', args.timeout, true),
    connectTimeoutMs:
      connectTimeout === undefined ? undefined : parseDuration('--connect-timeout', connectTimeout),
    maxTimeMs: maxTime === undefined ? undefined : parseDuration('--max-time', maxTime),
    bandwidthBytesPerS: bwlimit === undefined ? undefined : parseRate('--bwlimit', bwlimit),
  };
}

/** How the names of fields end that have a unit, and how their options are read. */
const UNITS = {
  // 0 stands for no limit in some fields, which the user has by leaving the option out.
  Ms: (option: string, text: string) => parseDuration(option, text, option === '--full-every'),
  Bytes: parseSize,
  Percent: parsePercent,
} as const;

/**
 * What a command's options ask of a copy: the option of the field `maxSnapshotMs` is `--max-snapshot`. Fields whose
 * option the command does not have, or the user did not give, are missing. Throws SqlsyncError USAGE.
 */
export function copyOptionsOf(args: Readonly<Record<string, unknown>>): CopyRequestOptions {
  const given = Object.keys(COPY_REQUEST).flatMap((field) => {
    const unit = Object.keys(UNITS).find((ending) => field.endsWith(ending)) as
      keyof typeof UNITS | undefined;
    const name = unit === undefined ? field : field.slice(0, -unit.length);
    const value = args[name];
    if (value === undefined || name === 'busyTimeout') return [];
    if (unit === undefined) return [[field, value]];
    return [
      [
        field,
        UNITS[unit](`--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`, value as string),
      ],
    ];
  });
  return Object.fromEntries(given) as CopyRequestOptions;
}
