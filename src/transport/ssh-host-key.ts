import { readFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../errors.ts';
import { knownKeyTypes, lookupHostKey, lookupKey } from './known-hosts.ts';
import type { HostKeyLookup, KnownHostsFile } from './known-hosts.ts';

/**
 * The host key algorithms that sqlsync checks, best first. Without `ssh-rsa` (SHA-1) and `ssh-dss`, which OpenSSH
 * has switched off too.
 */
const HOST_KEY_ALGORITHMS = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'rsa-sha2-512',
  'rsa-sha2-256',
];

/**
 * Reads the known_hosts files (by default the user's and the system's). A file that does not exist knows nothing;
 * one that exists and cannot be read might hold the line that forbids this host, so that is an error.
 */
export async function readKnownHosts(paths: string[] | undefined): Promise<KnownHostsFile[]> {
  const files: KnownHostsFile[] = [];
  for (const path of paths ?? [join(homedir(), '.ssh', 'known_hosts'), '/etc/ssh/ssh_known_hosts']) {
    try {
      files.push({ path, text: await readFile(path, 'utf8') });
    } catch (error) {
      const code = systemErrorCode(error);
      if (code === 'ENOENT' || code === 'ENOTDIR') continue;
      throw new SqlsyncError(
        'HOST_KEY_UNKNOWN',
        `the known hosts in ${sanitizeText(path, 200)} exist but cannot be read (${code ?? String(error)})`,
        { hint: 'Make the file readable: without it the host cannot be checked.', cause: error },
      );
    }
  }
  return files;
}

/** What to offer to this host: the algorithms of the keys that are known of it first, then the others. */
export function hostKeyAlgorithms(files: KnownHostsFile[], host: string, port: number): string[] {
  const known = knownKeyTypes(files, host, port).filter((type) => HOST_KEY_ALGORITHMS.includes(type));
  return [...new Set([...known, ...HOST_KEY_ALGORITHMS])];
}

/** The reason not to trust `key`, or undefined where known_hosts holds it for this host. */
export function hostKeyFault(
  files: KnownHostsFile[],
  host: string,
  port: number,
  key: Buffer,
): SqlsyncError | undefined {
  const found = lookupHostKey(files, host, port, key);
  const name = lookupKey(host, port);
  const offered = `${name} offered the ${sanitizeText(found.keyType, 64)} key ${found.fingerprint}`;
  const line = `${sanitizeText(found.file ?? '', 200)} line ${found.line}`;
  switch (found.status) {
    case 'match':
      return undefined;
    case 'revoked':
      return new SqlsyncError('HOST_KEY_MISMATCH', `${offered}, which ${line} marks as revoked`, {
        hint: 'Do not connect: ask who runs the host for its new key.',
      });
    case 'mismatch':
      return new SqlsyncError(
        'HOST_KEY_MISMATCH',
        `${offered}, but ${line} expects ${found.knownFingerprint}; someone may be in between, or the host has a new key`,
        {
          hint:
            'Verify the new key with who runs the host; if it is right, forget the old one with ' +
            `\`ssh-keygen -f ${shellQuote(found.file ?? '')} -R ${shellQuote(name)}\` and log in once with ssh.`,
        },
      );
    case 'unknown':
      return unknownHostError(offered, host, port, found, files);
  }
}

function unknownHostError(
  offered: string,
  host: string,
  port: number,
  found: HostKeyLookup,
  files: KnownHostsFile[],
): SqlsyncError {
  const other = found.otherKeys[0];
  const searched =
    files.map((file) => sanitizeText(file.path, 200)).join(', ') || 'no known_hosts file exists';
  const but =
    other === undefined
      ? `which is not known (searched: ${searched})`
      : `but only a ${other.keyType} key is known (${other.file} line ${other.line}, ${other.fingerprint})`;
  const authority = found.hasCertAuthority
    ? '; a @cert-authority line covers the host, but sqlsync checks no certificates'
    : '';
  const option = port === 22 ? '' : `-p ${port} `;
  return new SqlsyncError('HOST_KEY_UNKNOWN', `${offered}, ${but}${authority}`, {
    hint:
      `Verify the fingerprint with who runs the host, then run \`ssh ${option}${shellQuote(host)}\` once and accept it` +
      ` (or append what \`ssh-keyscan ${option}${shellQuote(host)}\` prints, once verified).`,
  });
}

/** For a command that a user may paste into a shell. */
export function shellQuote(text: string): string {
  const clean = sanitizeText(text, 200);
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(clean) ? clean : `'${clean.replaceAll("'", `'\\''`)}'`;
}
