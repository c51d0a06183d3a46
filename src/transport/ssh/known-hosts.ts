import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** The text of one known_hosts file, and its path for messages. */
export interface KnownHostsFile {
  path: string;
  text: string;
}

/** A line of a known_hosts file. */
export interface KnownHostEntry {
  file: string;
  /** From 1, as editors and `ssh-keygen -R` count. */
  line: number;
  /** As the key itself says, such as `ssh-ed25519` or `ssh-rsa`. */
  keyType: string;
  /** As `ssh-keygen -l` prints it: `SHA256:…`. */
  fingerprint: string;
}

/**
 * - `match`: a line for this host holds this key.
 * - `mismatch`: no line holds it, and one holds another key of the same type.
 * - `unknown`: no line for this host holds a key of this type; `otherKeys` are those of other types.
 * - `revoked`: a `@revoked` line for this host holds this key, whatever other lines say.
 */
export interface HostKeyLookup {
  status: 'match' | 'mismatch' | 'unknown' | 'revoked';
  keyType: string;
  fingerprint: string;
  /** The line that decided; not for `unknown`. */
  file?: string;
  line?: number;
  /** The expected fingerprint; only for `mismatch`. */
  knownFingerprint?: string;
  /** Keys of other types that are known for this host. */
  otherKeys: KnownHostEntry[];
  /**
   * A `@cert-authority` line covers this host. sqlsync does not check certificates, so the line proves nothing here.
   */
  hasCertAuthority: boolean;
}

interface ParsedLine {
  marker: string | undefined;
  patterns: string;
  key: Buffer;
  file: string;
  line: number;
}

export const DEFAULT_SSH_PORT = 22;

/** What `files` say about `key`, offered by `host` on `port`. Pure. */
export function lookupHostKey(
  files: KnownHostsFile[],
  host: string,
  port: number,
  key: Buffer,
): HostKeyLookup {
  const lookup = lookupName(files, lookupKey(host, port), key);
  if (port === DEFAULT_SSH_PORT || lookup.status === 'match' || lookup.status === 'revoked') return lookup;
  // As in OpenSSH: on another port, a line for the plain host name with this very key is enough.
  const plain = lookupName(files, lookupKey(host, DEFAULT_SSH_PORT), key);
  const decides = plain.status === 'revoked' || (plain.status === 'match' && lookup.status === 'unknown');
  return decides ? plain : lookup;
}

/**
 * The host key algorithms that can check the known keys of this host, best first, each once. A client that offers these
 * first gets a key that it recognises, instead of an unknown one of another type.
 */
export function knownKeyTypes(files: KnownHostsFile[], host: string, port: number): string[] {
  const types = new Set<string>();
  for (const name of new Set([lookupKey(host, port), lookupKey(host, DEFAULT_SSH_PORT)])) {
    for (const line of linesFor(files, name)) if (line.marker === undefined) types.add(hostKeyType(line.key));
  }
  return [...types].flatMap((type) => (type === 'ssh-rsa' ? ['rsa-sha2-512', 'rsa-sha2-256'] : [type]));
}

/** `SHA256:…` in unpadded base64, as OpenSSH prints it. */
export function hostKeyFingerprint(key: Buffer): string {
  return `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`;
}

/** The name under which known_hosts lists a host: `host`, or `[host]:port` if the port is not 22. */
export function lookupKey(host: string, port: number): string {
  const lower = host.toLowerCase();
  return port === DEFAULT_SSH_PORT ? lower : `[${lower}]:${port}`;
}

/**
 * The line that makes `key` known for a host; hashed, it does not reveal to readers of the file which hosts are known.
 */
export function knownHostsLine(host: string, port: number, key: Buffer, hashed: boolean): string {
  const name = lookupKey(host, port);
  const salt = randomBytes(20);
  const hash = createHmac('sha1', salt).update(name).digest('base64');
  const shown = hashed ? `|1|${salt.toString('base64')}|${hash}` : name;
  return `${shown} ${hostKeyType(key)} ${key.toString('base64')}`;
}

/** The type that an SSH public key blob names first; '' if it is not such a blob. */
export function hostKeyType(key: Buffer): string {
  if (key.length < 4) return '';
  const length = key.readUInt32BE(0);
  return length > 0 && length <= 64 && 4 + length <= key.length ? key.toString('latin1', 4, 4 + length) : '';
}

function lookupName(files: KnownHostsFile[], name: string, key: Buffer): HostKeyLookup {
  const lines = linesFor(files, name);
  const keyType = hostKeyType(key);
  const plain = lines.filter((line) => line.marker === undefined);
  const common = {
    keyType,
    fingerprint: hostKeyFingerprint(key),
    otherKeys: plain.filter((line) => hostKeyType(line.key) !== keyType).map(entryOf),
    hasCertAuthority: lines.some((line) => line.marker === '@cert-authority'),
  };
  const revoked = lines.find((line) => line.marker === '@revoked' && line.key.equals(key));
  if (revoked !== undefined) return { status: 'revoked', ...common, file: revoked.file, line: revoked.line };
  const match = plain.find((line) => line.key.equals(key));
  if (match !== undefined) return { status: 'match', ...common, file: match.file, line: match.line };
  const other = plain.find((line) => hostKeyType(line.key) === keyType);
  if (other === undefined) return { status: 'unknown', ...common };
  const knownFingerprint = hostKeyFingerprint(other.key);
  return { status: 'mismatch', ...common, file: other.file, line: other.line, knownFingerprint };
}

function entryOf(line: ParsedLine): KnownHostEntry {
  return {
    file: line.file,
    line: line.line,
    keyType: hostKeyType(line.key),
    fingerprint: hostKeyFingerprint(line.key),
  };
}

function linesFor(files: KnownHostsFile[], name: string): ParsedLine[] {
  return files.flatMap((file) => parseFile(file)).filter((line) => matchesHost(line.patterns, name));
}

/** Skips the lines that OpenSSH would skip: comments, the old RSA1 form, damaged keys. */
function parseFile(file: KnownHostsFile): ParsedLine[] {
  return file.text.split('\n').flatMap((text, index) => {
    const fields = text.trim().split(/[ \t]+/);
    const marker = fields[0]?.startsWith('@') ? fields.shift() : undefined;
    const [patterns, keyType, base64] = fields;
    if (patterns === undefined || patterns.startsWith('#') || keyType === undefined || base64 === undefined)
      return [];
    const key = Buffer.from(base64, 'base64');
    return hostKeyType(key) === keyType ? [{ marker, patterns, key, file: file.path, line: index + 1 }] : [];
  });
}

function matchesHost(patterns: string, name: string): boolean {
  if (patterns.startsWith('|')) return matchesHashed(patterns, name);
  let matched = false;
  for (const pattern of patterns.toLowerCase().split(',')) {
    if (pattern.startsWith('!')) {
      if (matchesPattern(pattern.slice(1), name)) return false;
    } else if (matchesPattern(pattern, name)) {
      matched = true;
    }
  }
  return matched;
}

/** `|1|salt|hash`: HMAC-SHA1 of the name, keyed with the salt. */
function matchesHashed(field: string, name: string): boolean {
  const [, version, salt, hash] = field.split('|');
  if (version !== '1' || salt === undefined || hash === undefined) return false;
  const expected = Buffer.from(hash, 'base64');
  const actual = createHmac('sha1', Buffer.from(salt, 'base64')).update(name).digest();
  return expected.length === actual.length && timingSafeEqual(expected, actual);
}

/**
 * `*` is any run of characters, `?` any one; brackets are plain characters. Greedy with one point to return to, so that
 * no pattern takes more than pattern × name steps.
 */
function matchesPattern(pattern: string, name: string): boolean {
  let p = 0;
  let n = 0;
  let star = -1;
  let starName = 0;
  while (n < name.length) {
    if (pattern[p] === '*') {
      star = p++;
      starName = n;
    } else if (p < pattern.length && (pattern[p] === '?' || pattern[p] === name[n])) {
      p++;
      n++;
    } else if (star !== -1) {
      p = star + 1;
      n = ++starName;
    } else {
      return false;
    }
  }
  while (pattern[p] === '*') p++;
  return p === pattern.length;
}
