import type { MessageOf } from '../../../protocol/messages.ts';
import { parseErrorCode, sanitizeText, SqlsyncError } from '../../errors.ts';
import type { ErrorCode } from '../../errors.ts';

/**
 * Codes that an agent can find out about its own side. The other codes are this side's own verdicts, such as a changed
 * host key; a peer must not be able to cause them.
 */
const PEER_CODES: ReadonlySet<ErrorCode> = new Set([
  'SAME_FILE',
  'SWAPPED',
  'ORIGIN_NOT_FOUND',
  'ORIGIN_NOT_A_DATABASE',
  'ORIGIN_UNREADABLE',
  'ORIGIN_PERMISSION',
  'ORIGIN_HOT_JOURNAL',
  'ORIGIN_CHECKSUM_VFS',
  'ORIGIN_REPLACED',
  'ORIGIN_CHANGED',
  'ORIGIN_TOO_LARGE',
  'ORIGIN_ALIAS',
  'ORIGIN_SHRUNK',
  'REPLICA_NOT_A_DATABASE',
  'REPLICA_UNWRITABLE',
  'REPLICA_NOT_MARKED',
  'REPLICA_PAGE_SIZE',
  'REPLICA_LEFTOVER',
  'REPLICA_REPLACED',
  'REPLICA_EXISTS',
  'REPLICA_CHECKSUM_VFS',
  'REPLICA_LINK',
  'ROOT_MISMATCH',
  'CHANGES_MISSED',
  'BUSY',
  'SNAPSHOT_LIMIT',
  'BINDING_MISSING',
  'BINDING_BROKEN',
  'CONNECTION_LOST',
  'TIMEOUT',
  'PROTOCOL',
  'PROTOCOL_VERSION',
  'RESTRICTED',
  'SYSTEM_ERROR',
  'INTERNAL',
]);

/** The error that the peer reported, marked as the peer's, with its text made safe to show. */
export function peerError(error: MessageOf<'error'>): SqlsyncError {
  const code = parseErrorCode(error.errorCode);
  if (code === 'INTERRUPTED') return peerEnded();
  const hint = sanitizeText(error.hint);
  return new SqlsyncError(
    PEER_CODES.has(code) ? code : 'PROTOCOL',
    `The other side: ${sanitizeText(error.message.trim(), 2000)}`,
    hint === '' ? {} : { hint: `Its advice: ${hint}` },
  );
}

/** No one interrupted this side: the agent there was ended, for example because its host shuts down. */
function peerEnded(): SqlsyncError {
  return new SqlsyncError('CONNECTION_LOST', 'The other side was asked to end before it was done', {
    hint: 'Its host may be restarting. Run sqlsync again: it continues from what has arrived.',
  });
}

/** The error of an agent that is this very program, started by this process. */
export function ownAgentError(error: MessageOf<'error'>): SqlsyncError {
  const hint = sanitizeText(error.hint);
  return new SqlsyncError(
    parseErrorCode(error.errorCode),
    sanitizeText(error.message, 2000),
    hint === '' ? {} : { hint },
  );
}
