import { closeSync, fstatSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { shellQuote } from '../command-words.ts';
import {
  DEFAULT_SSH_PORT,
  hostKeyFingerprint,
  hostKeyType,
  knownHostsLine,
  knownKeyTypes,
  lookupHostKey,
  lookupKey,
} from './known-hosts.ts';
import type { HostKeyLookup, KnownHostsFile } from './known-hosts.ts';
import type { HostConfig } from './ssh-config.ts';

/**
 * The host key algorithms that sqlsync checks, best first. Without `ssh-rsa` (SHA-1) and `ssh-dss`, which OpenSSH has
 * disabled too.
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
 * Reads the known_hosts files. A missing file lists no hosts. An existing file that cannot be read is an error, because
 * it might hold the line that forbids this host.
 */
async function readKnownHosts(paths: readonly string[]): Promise<KnownHostsFile[]> {
  const files: KnownHostsFile[] = [];
  for (const path of paths) {
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

/** The host whose key is checked. */
export interface HostKeyOwner {
  /** Its name in known_hosts, and the port that belongs to the name. */
  name: { host: string; port: number };
  /** The `ssh …` command to log in to it with OpenSSH. */
  login: string;
  /** Options and name for ssh-keyscan. */
  scan: string;
}

/** Checks the key of one host, and records it if the user wants to trust new ones. */
export class HostKeyCheck {
  /** Why the key was not accepted. */
  fault: SqlsyncError | undefined;
  readonly #config: HostConfig;
  readonly #owner: HostKeyOwner;
  readonly #files: KnownHostsFile[];
  /** The file for new keys; undefined if they are not trusted. */
  readonly #newKeysFile: string | undefined;
  #newKey: Buffer | undefined;

  /** Throws SqlsyncError HOST_KEY_UNKNOWN if a known_hosts file cannot be read. */
  static async forHost(
    config: HostConfig,
    options: { knownHostsFiles?: readonly string[] | undefined; acceptNewHostKey?: boolean | undefined },
  ): Promise<HostKeyCheck> {
    const files = await readKnownHosts(options.knownHostsFiles ?? config.knownHostsFiles);
    const newKeysFile =
      options.knownHostsFiles === undefined ? config.newHostKeysFile : options.knownHostsFiles[0];
    return new HostKeyCheck(config, files, options.acceptNewHostKey === true ? newKeysFile : undefined);
  }

  private constructor(config: HostConfig, files: KnownHostsFile[], newKeysFile: string | undefined) {
    const { alias, host, port, hostKeyAlias } = config;
    const option = port === DEFAULT_SSH_PORT ? '' : `-p ${port} `;
    this.#config = config;
    this.#files = files;
    this.#newKeysFile = newKeysFile;
    this.#owner = {
      name: hostKeyAlias === undefined ? { host, port } : { host: hostKeyAlias, port: DEFAULT_SSH_PORT },
      login: `ssh ${option}${shellQuote(alias)}`,
      scan: `${option}${shellQuote(host)}`,
    };
  }

  /** The algorithms to offer: first those of the known keys of this host, then the others. */
  algorithms(): string[] {
    const { host, port } = this.#owner.name;
    const allowed = HOST_KEY_ALGORITHMS.filter(
      (algorithm) => this.#config.hostKeyAlgorithms?.includes(algorithm) !== false,
    );
    if (allowed.length === 0) {
      throw new SqlsyncError(
        'CONNECT_FAILED',
        `${lookupKey(host, port)}: HostKeyAlgorithms in the SSH configuration allows none of ${HOST_KEY_ALGORITHMS.join(', ')}`,
        { hint: 'Add `--rsh ssh`: then OpenSSH itself connects.' },
      );
    }
    const known = knownKeyTypes(this.#files, host, port).filter((type) => allowed.includes(type));
    return [...new Set([...known, ...allowed])];
  }

  accepts(key: Buffer): boolean {
    const { host, port } = this.#owner.name;
    const found = lookupHostKey(this.#files, host, port, key);
    if (this.#newKeysFile !== undefined && isNewHost(found)) {
      this.#newKey = key;
      return true;
    }
    this.fault = hostKeyFault(this.#files, this.#owner, found);
    return this.fault === undefined;
  }

  /**
   * Records a key that was accepted as new, and returns a message about it. Throws SqlsyncError HOST_KEY_UNKNOWN if it
   * cannot: a key that is new each time would be no check at all.
   */
  remember(): string | undefined {
    const [key, path] = [this.#newKey, this.#newKeysFile];
    if (key === undefined || path === undefined) return undefined;
    this.#newKey = undefined;
    const { host, port } = this.#owner.name;
    const line = knownHostsLine(host, port, key, this.#config.hashKnownHosts);
    try {
      addKnownHost(path, line);
    } catch (error) {
      throw new SqlsyncError(
        'HOST_KEY_UNKNOWN',
        `the new key of ${lookupKey(host, port)} could not be written to ${sanitizeText(path, 200)} (${systemErrorCode(error) ?? String(error)})`,
        { hint: 'Make the file writable, or name another one with --known-hosts.', cause: error },
      );
    }
    return `the ${sanitizeText(hostKeyType(key), 64)} key ${hostKeyFingerprint(key)} of ${lookupKey(host, port)} is trusted from now on; it was written to ${sanitizeText(path, 200)}`;
  }
}

/**
 * True for a host that known_hosts does not list. False if another type of key is known: the host would have shown that
 * one, as we ask for known types first. False if the host should show a certificate.
 */
function isNewHost(found: HostKeyLookup): boolean {
  return found.status === 'unknown' && found.otherKeys.length === 0 && !found.hasCertAuthority;
}

/** One write, so that two processes that add a key do not mix their lines. */
function addKnownHost(path: string, line: string): void {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const fd = openSync(path, 'a+', 0o600);
  try {
    const { size } = fstatSync(fd);
    const last = Buffer.alloc(1, '\n');
    if (size > 0) readSync(fd, last, 0, 1, size - 1);
    writeSync(fd, `${last.toString() === '\n' ? '' : '\n'}${line}\n`);
  } finally {
    closeSync(fd);
  }
}

/** The reason not to trust `key`; undefined if known_hosts holds it for this host. */
function hostKeyFault(
  files: KnownHostsFile[],
  owner: HostKeyOwner,
  found: HostKeyLookup,
): SqlsyncError | undefined {
  const name = lookupKey(owner.name.host, owner.name.port);
  const offered = `${name} offered the ${sanitizeText(found.keyType, 64)} key ${found.fingerprint}`;
  const line = `${sanitizeText(found.file ?? '', 200)} line ${found.line}`;
  switch (found.status) {
    case 'match':
      return undefined;
    case 'revoked':
      return new SqlsyncError('HOST_KEY_MISMATCH', `${offered}, which ${line} marks as revoked`, {
        hint: 'Do not connect. Ask the administrator of the host for its new key.',
      });
    case 'mismatch':
      return new SqlsyncError(
        'HOST_KEY_MISMATCH',
        `${offered}, but ${line} expects ${found.knownFingerprint}; someone may be in between, or the host has a new key`,
        {
          hint:
            'Verify the new key with the administrator of the host. If it is right, remove the old one with ' +
            `\`ssh-keygen -f ${shellQuote(found.file ?? '')} -R ${shellQuote(name)}\` and log in once with ssh.`,
        },
      );
    case 'unknown':
      return unknownHostError(offered, owner, found, files);
  }
}

function unknownHostError(
  offered: string,
  owner: HostKeyOwner,
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
  if (found.hasCertAuthority) {
    const authority =
      'a @cert-authority line covers the host, but the SSH built into sqlsync checks no certificates';
    return new SqlsyncError('HOST_KEY_UNKNOWN', `${offered}, ${but}; ${authority}`, {
      hint: 'Add `--rsh ssh`: then OpenSSH itself checks the certificate.',
    });
  }
  const anew = other === undefined ? ', or trust this one with --accept-new-host-key' : '';
  return new SqlsyncError('HOST_KEY_UNKNOWN', `${offered}, ${but}`, {
    hint:
      `Verify the fingerprint with the administrator of the host, then run \`${owner.login}\` once and accept it` +
      ` (or append what \`ssh-keyscan ${owner.scan}\` prints, once verified)${anew}.`,
  });
}
