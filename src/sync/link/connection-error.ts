import type { ProtocolViolation } from '../../../protocol/decode.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { MIN_PROTOCOL_VERSION, PROTOCOL_VERSION } from '../../../protocol/version.ts';
import { sanitizeText, SqlsyncError, toSqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';
import type { TransportExit } from '../../transport/transport.ts';
import { PROGRAM } from '../program.ts';

/** The error for bytes or a message that the protocol does not allow. */
export function protocolError(violation: ProtocolViolation): SqlsyncError {
  const { received } = violation;
  const said =
    received === undefined
      ? ''
      : `; it said: ${sanitizeText(new TextDecoder().decode(received).trim(), 200)}`;
  return new SqlsyncError('PROTOCOL', `Protocol violation by the other side: ${violation.message}${said}`, {
    hint:
      received === undefined
        ? 'Nothing was changed. Check that both sides have the same version of sqlsync.'
        : 'The remote command must be sqlsync, and a login shell there must print nothing.',
    cause: violation,
  });
}

/** The two sides share no version of the protocol. Says which side is older. */
export function versionError(hello: MessageOf<'hello'>): SqlsyncError {
  const program = sanitizeText(hello.program, 100);
  const isOlder = hello.maxVersion < MIN_PROTOCOL_VERSION;
  return new SqlsyncError(
    'PROTOCOL_VERSION',
    `The other side (${program}) speaks protocol ${hello.minVersion} to ${hello.maxVersion}, this side (${PROGRAM}) ${MIN_PROTOCOL_VERSION} to ${PROTOCOL_VERSION}`,
    {
      hint: isOlder
        ? `The other side is older: install ${PROGRAM} there, or name the executable of an installed one with --remote-exe.`
        : `This side is older: install ${program} here.`,
    },
  );
}

/**
 * The error for a stream that ended before the conversation did; `exit` is undefined if the transport does not report
 * it.
 */
export function lostError(description: string, exit: TransportExit | undefined): SqlsyncError {
  const how =
    exit?.signal != null
      ? `it was killed by ${exit.signal}`
      : exit?.status != null
        ? `it ended with exit status ${exit.status}`
        : 'the connection was closed';
  const said = exit === undefined || exit.stderr === '' ? '' : `; it said: ${exit.stderr}`;
  return new SqlsyncError('CONNECTION_LOST', `Lost ${description} before it was done: ${how}${said}`, {
    hint: 'Nothing was changed here unless a commit was reported. Run sqlsync again: it continues from what has arrived.',
  });
}

/** A replica agent only ends with one of these codes if it has committed nothing. */
const NOTHING_COMMITTED: ReadonlySet<ErrorCode> = new Set([
  'BUSY',
  'ROOT_MISMATCH',
  'REPLICA_EXISTS',
  'REPLICA_LEFTOVER',
  'REPLICA_LINK',
  'REPLICA_NOT_A_DATABASE',
  'REPLICA_NOT_MARKED',
  'REPLICA_PAGE_SIZE',
  'RESTRICTED',
  'SNAPSHOT_LIMIT',
]);

/** True for an error that proves that there was no commit, at any moment of the run. */
export function tellsNoCommit(error: unknown): boolean {
  return error instanceof SqlsyncError && NOTHING_COMMITTED.has(error.code);
}

/** A conversation that broke between the root hash and the confirmation does not show whether the commit happened. */
export function outcomeUnknown(error: unknown): SqlsyncError {
  const failure = toSqlsyncError(error);
  if (failure.outcome !== undefined) return failure;
  return new SqlsyncError(failure.code, failure.message, {
    hint: 'The replica may have been committed before that. Check it with `sqlsync verify`, or run sqlsync again, which is safe.',
    cause: error,
    outcome: 'unknown',
  });
}

export function silentError(description: string, silentMs: number): SqlsyncError {
  return new SqlsyncError('TIMEOUT', `${description} has been silent for ${seconds(silentMs)}`, {
    hint: 'Run sqlsync again, or allow more time with --timeout.',
  });
}

/** The far side runs, but it is not sqlsync, or it waits before it starts sqlsync. */
export function ungreetedError(description: string, waitedMs: number, received: Uint8Array): SqlsyncError {
  const said = sanitizeText(new TextDecoder().decode(received)).trim();
  const how = said === '' ? 'has sent nothing' : `has not greeted, and only sent "${said}"`;
  return new SqlsyncError('TIMEOUT', `${description} ${how} after ${seconds(waitedMs)}`, {
    hint: 'Test whether sqlsync starts there: `ssh HOST sqlsync --version`. A login shell must neither wait nor start another shell. For more time use --connect-timeout.',
  });
}

export function overdueError(description: string, maxTimeMs: number): SqlsyncError {
  return new SqlsyncError('TIMEOUT', `${description} was not done after ${seconds(maxTimeMs)}`, {
    hint: 'Run sqlsync again, or allow more time with --max-time.',
  });
}

function seconds(ms: number): string {
  return `${ms < 1000 ? (ms / 1000).toFixed(1) : Math.round(ms / 1000)} s`;
}
