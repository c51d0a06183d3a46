import { SqlsyncError, sanitizeText } from '../errors.ts';
import type { TransportExit } from './transport.ts';

/**
 * The exit status of a sqlsync whose Node.js is too old or whose packages are missing: it cannot speak the protocol
 * yet.
 */
export const EXIT_CANNOT_RUN = 9;

/** The cause if an unknown remote shell ended with this status: it may never be able to do what it could not do. */
export class SilentExit extends Error {
  constructor(status: number) {
    super(`ended with status ${status} before a byte came`);
    this.name = 'SilentExit';
  }
}

/** A sqlsync on `host` ended with {@link EXIT_CANNOT_RUN} and without a byte. Its stderr says why. */
export function cannotRun(host: string, exit: Pick<TransportExit, 'stderr'>): SqlsyncError {
  const why = exit.stderr === '' ? 'it ended with status 9 and sent nothing' : exit.stderr;
  return new SqlsyncError('NODE_UNSUPPORTED', `sqlsync on ${host} cannot run: ${why}`, {
    hint: 'Install a newer Node.js there, or name a sqlsync that runs on one with --remote-exe.',
  });
}

/** `run.command` is missing, or is not a program. `run.description` names the host and the way to it. */
export function missingExecutable(
  run: { readonly description: string; readonly command: string },
  exit: Pick<TransportExit, 'status' | 'stderr'>,
): SqlsyncError {
  const what = exit.status === null ? 'could not be started' : `ended with status ${exit.status}`;
  const detail = exit.stderr === '' ? '' : `: ${exit.stderr}`;
  return new SqlsyncError(
    'REMOTE_EXE_NOT_FOUND',
    `${run.description}: the command "${sanitizeText(run.command, 200)}" ${what} before it sent anything${detail}`,
    {
      hint: 'Install it there with `sqlsync setup --install HOST`, or name its executable with --remote-exe.',
    },
  );
}
