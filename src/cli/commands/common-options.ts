import { existsSync } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import type { RemoteOptions } from '../../sync/start-agent.ts';
import { Output } from '../output.ts';

/** The options that every command of two locations has, as yargs gives them. */
export interface CommonArguments {
  readonly json: boolean;
  readonly verbose: boolean;
  readonly quiet: boolean;
  readonly port?: number | undefined;
  readonly identity?: string[] | undefined;
  readonly knownHosts?: string[] | undefined;
  readonly remoteExe: string;
  readonly busyTimeout: number;
  readonly timeout: number;
}

/** Throws SqlsyncError USAGE. */
export function outputOf(args: CommonArguments): Output {
  if (args.quiet && args.verbose) throw new SqlsyncError('USAGE', '--quiet and --verbose exclude each other');
  return new Output({
    json: args.json,
    verbosity: args.quiet ? 'quiet' : args.verbose ? 'verbose' : 'normal',
  });
}

/** Throws SqlsyncError USAGE. */
export function remoteOptionsOf(
  args: CommonArguments,
): RemoteOptions & { busyTimeoutMs: number; idleTimeoutMs: number } {
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
    remoteExe: args.remoteExe,
    busyTimeoutMs: milliseconds('--busy-timeout', args.busyTimeout),
    idleTimeoutMs: milliseconds('--timeout', args.timeout),
  };
}

/** A week: beyond it a number is a mistake, and Node's timers do not reach much farther. */
const MAX_SECONDS = 7 * 24 * 3600;

function milliseconds(option: string, seconds: number): number {
  if (seconds >= 0 && seconds <= MAX_SECONDS) return Math.round(seconds * 1000);
  throw new SqlsyncError(
    'USAGE',
    `${option}: ${given(seconds, 'out of range')}expected a number of seconds from 0 to ${MAX_SECONDS}`,
  );
}

/** What is no number was not kept by the parser. */
function given(number: number, fault: string): string {
  return Number.isNaN(number) ? '' : `${number} is ${fault}; `;
}
