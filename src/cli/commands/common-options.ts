import { existsSync } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import type { RemoteOptions } from '../../sync/start-agent.ts';
import { parseRate } from '../../transport/rate-limit.ts';
import { Output } from '../output.ts';
import { given, limit, milliseconds } from './limits.ts';

/** The options that every command has, as yargs gives them. */
export interface OutputArguments {
  readonly json: boolean;
  readonly verbose: boolean;
  readonly quiet: boolean;
}

/** The options that every command of two locations has. */
export interface CommonArguments extends OutputArguments {
  readonly port?: number | undefined;
  readonly identity?: string[] | undefined;
  readonly knownHosts?: string[] | undefined;
  readonly acceptNewHostKey: boolean;
  readonly jump?: string | undefined;
  readonly sshConfig?: string | undefined;
  readonly rsh?: string | undefined;
  readonly remoteExe: string;
  readonly busyTimeout: number;
  readonly timeout: number;
  readonly connectTimeout?: number | undefined;
  readonly maxTime?: number | undefined;
  readonly bwlimit?: string | undefined;
}

/** Throws SqlsyncError USAGE. */
export function outputOf(args: OutputArguments): Output {
  if (args.quiet && args.verbose) throw new SqlsyncError('USAGE', '--quiet and --verbose exclude each other');
  return new Output({
    json: args.json,
    verbosity: args.quiet ? 'quiet' : args.verbose ? 'verbose' : 'normal',
  });
}

/** Throws SqlsyncError USAGE. */
export function remoteOptionsOf(
  args: CommonArguments,
): RemoteOptions & { busyTimeoutMs: number; idleTimeoutMs: number; maxTimeMs: number | undefined } {
  if (args.port !== undefined && !(Number.isInteger(args.port) && args.port >= 1 && args.port <= 65535)) {
    throw new SqlsyncError(
      'USAGE',
      `--port: ${given(args.port, 'no port')}expected a number from 1 to 65535`,
      {
        hint: 'Give the port on which sshd listens.',
      },
    );
  }
  for (const file of args.identity ?? []) {
    if (existsSync(file)) continue;
    throw new SqlsyncError('USAGE', `--identity: ${sanitizeText(file, 200)} does not exist`, {
      hint: 'Name the private key file; only the shell expands ~, and not after a =.',
    });
  }
  return {
    port: args.port,
    identityFiles: args.identity,
    knownHostsFiles: args.knownHosts,
    acceptNewHostKey: args.acceptNewHostKey,
    jump: args.jump,
    configFile: args.sshConfig,
    rsh: args.rsh ?? (process.env['SQLSYNC_RSH'] || undefined),
    remoteExe: args.remoteExe,
    busyTimeoutMs: milliseconds('--busy-timeout', args.busyTimeout),
    idleTimeoutMs: milliseconds('--timeout', args.timeout),
    connectTimeoutMs: limit('--connect-timeout', args.connectTimeout),
    maxTimeMs: limit('--max-time', args.maxTime),
    bandwidthBytesPerS: args.bwlimit === undefined ? undefined : parseRate(args.bwlimit),
  };
}
