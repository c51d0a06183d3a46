import { SqlsyncError } from '../../errors.ts';
import type { HostConfig } from './ssh-config.ts';

/** The key exchange methods of ssh2, without those with SHA-1, best first. */
const KEX_ALGORITHMS = [
  'curve25519-sha256',
  'curve25519-sha256@libssh.org',
  'ecdh-sha2-nistp256',
  'ecdh-sha2-nistp384',
  'ecdh-sha2-nistp521',
  'diffie-hellman-group-exchange-sha256',
  'diffie-hellman-group14-sha256',
  'diffie-hellman-group15-sha512',
  'diffie-hellman-group16-sha512',
  'diffie-hellman-group17-sha512',
  'diffie-hellman-group18-sha512',
];

/** The message authentication codes of ssh2, best first. */
const MACS = [
  'hmac-sha2-256-etm@openssh.com',
  'hmac-sha2-512-etm@openssh.com',
  'hmac-sha1-etm@openssh.com',
  'hmac-sha2-256',
  'hmac-sha2-512',
  'hmac-sha1',
];

/** Ciphers that authenticate what they encrypt, and so use no such code. */
const AUTHENTICATING_CIPHERS: ReadonlySet<string> = new Set([
  'aes128-gcm@openssh.com',
  'aes256-gcm@openssh.com',
  'chacha20-poly1305@openssh.com',
]);

export interface SshAlgorithms {
  readonly kex: string[];
  readonly cipher: string[];
  readonly hmac: string[];
}

/**
 * The algorithms to offer to a host: those that ssh2 has and the configuration allows. `ciphers` are those of ssh2 that
 * this system has, best first. If the configuration allows no code that ssh2 has, only ciphers that need none remain.
 * Throws SqlsyncError CONNECT_FAILED if nothing is left; `target` is for its message.
 */
export function allowedAlgorithms(
  config: Pick<HostConfig, 'ciphers' | 'kexAlgorithms' | 'macs'>,
  ciphers: readonly string[],
  target: string,
): SshAlgorithms {
  const kex = allowed(KEX_ALGORITHMS, config.kexAlgorithms);
  const cipher = allowed(ciphers, config.ciphers);
  const macs = allowed(MACS, config.macs);
  if (kex.length === 0) throw noneAllowed(target, 'KexAlgorithms', KEX_ALGORITHMS);
  if (cipher.length === 0) throw noneAllowed(target, 'Ciphers', ciphers);
  if (macs.length > 0) return { kex, cipher, hmac: macs };
  const authenticating = cipher.filter((name) => AUTHENTICATING_CIPHERS.has(name));
  if (authenticating.length === 0) throw noneAllowed(target, 'MACs', MACS);
  return { kex, cipher: authenticating, hmac: MACS };
}

function allowed(ours: readonly string[], configured: readonly string[] | undefined): string[] {
  return ours.filter((name) => configured?.includes(name) !== false);
}

function noneAllowed(target: string, option: string, ours: readonly string[]): SqlsyncError {
  return new SqlsyncError(
    'CONNECT_FAILED',
    `${target}: ${option} in the SSH configuration allows none of ${ours.join(', ')}`,
    { hint: 'Add `--rsh ssh`: then OpenSSH itself connects.' },
  );
}
