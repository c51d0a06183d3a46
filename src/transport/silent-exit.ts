import { SqlsyncError, sanitizeText } from '../errors.ts';
import type { TransportExit } from './transport.ts';

/** How a sqlsync ends whose Node.js is too old or whose packages are missing: before it can speak the protocol. */
export const EXIT_CANNOT_RUN = 9;

/** The cause where a remote shell of which nothing is known ended so: what it could not do, it may never be able to. */
export class SilentExit extends Error {
  constructor(status: number) {
    super(`ended with status ${status} before a byte came`);
    this.name = 'SilentExit';
  }
}

/** A sqlsync on `host` that ended with {@link EXIT_CANNOT_RUN} and without a byte. Its stderr says why. */
export function cannotRun(host: string, exit: Pick<TransportExit, 'stderr'>): SqlsyncError {
  const why = exit.stderr === '' ? 'it ended with status 9 and said nothing' : exit.stderr;
  return new SqlsyncError('NODE_UNSUPPORTED', `sqlsync on ${host} cannot run: ${why}`, {
    hint: 'Name one with a newer Node.js there by --remote-exe.',
  });
}

/** `run.command` is not there, or no program. `run.description` names the host and the way to it. */
export function missingExecutable(
  run: { readonly description: string; readonly command: string },
  exit: Pick<TransportExit, 'status' | 'stderr'>,
): SqlsyncError {
  const what = exit.status === null ? 'could not be started' : `ended with status ${exit.status}`;
  const detail = exit.stderr === '' ? '' : `: ${exit.stderr}`;
  return new SqlsyncError(
    'REMOTE_EXE_NOT_FOUND',
    `${run.description}: the command "${sanitizeText(run.command, 200)}" ${what} before it sent anything${detail}`,
    { hint: 'Install sqlsync on that host, or name its executable there with --remote-exe.' },
  );
}
