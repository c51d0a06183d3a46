import { SqlsyncError } from '../errors.ts';
import type { ErrorCode } from '../errors.ts';

/**
 * The failures behind OpenSSH's status 255, which stands for all of them: only its stderr tells them apart. The texts
 * are from its sources (ssh.c, sshconnect.c, sshconnect2.c, packet.c), unchanged for many years and never translated;
 * an unknown one is CONNECT_FAILED with the text shown. The first match counts.
 */
const CAUSES: readonly { says: RegExp; code: ErrorCode; what: string; hint: string }[] = [
  {
    says: /REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY|host key .*(?:revoked|changed)/i,
    code: 'HOST_KEY_MISMATCH',
    what: 'the host key is not the known one',
    hint: 'Verify the new key with the administrator of the host before you trust it.',
  },
  {
    says: /Host key verification failed|host key is known for/,
    code: 'HOST_KEY_UNKNOWN',
    what: 'the host key is not known',
    hint: 'Verify the fingerprint with the administrator of the host, then log in once with the same command and accept it.',
  },
  {
    says: /Permission denied \(|Too many authentication failures|No more authentication methods/,
    code: 'AUTH_FAILED',
    what: 'the host refused to log in',
    hint: 'Check that the same command logs in with `true` as the remote command.',
  },
  {
    says: /^Connection to .* closed|client_loop: send disconnect|Timeout, server .* not responding/m,
    code: 'CONNECTION_LOST',
    what: 'the connection was lost',
    hint: 'Run sqlsync again.',
  },
];

const CONNECT_HINT = 'Check the host, the network and what `ssh -v` says.';

/**
 * Why `ssh`, or a script that runs it, ended with status 255 before a byte came. `stderr` is its output, sanitized;
 * `unexplained` is the cause if that output does not help. Pure.
 */
export function explainOpenssh(description: string, stderr: string, unexplained?: Error): SqlsyncError {
  const cause = CAUSES.find(({ says }) => says.test(stderr));
  const said = oneLine(stderr);
  const detail = said === '' ? '' : `; it said: ${said}`;
  return new SqlsyncError(
    cause?.code ?? 'CONNECT_FAILED',
    `${description}: ${cause?.what ?? 'the connection failed'}${detail}`,
    { hint: cause?.hint ?? CONNECT_HINT, cause: cause === undefined ? unexplained : undefined },
  );
}

/** Drops the frame of @ that OpenSSH draws around its warnings, and the line ends. */
function oneLine(text: string): string {
  return text
    .split('\n')
    .map((line) => line.replace(/^@[@ ]*|[@\s]*@$/g, '').trim())
    .filter((line) => line !== '')
    .join(' ');
}
