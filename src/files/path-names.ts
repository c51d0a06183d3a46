import { readFileSync, readlinkSync, realpathSync } from 'node:fs';
import { sanitizeText, SqlsyncError, systemErrorCode } from '../errors.ts';

/** The character that Node.js puts in the place of bytes that are not UTF-8. */
const REPLACEMENT = '\ufffd';

/**
 * Throws USAGE for a path that would open another file than it spells: SQLite and the system read up to its first NUL,
 * and half of a surrogate pair is written as U+FFFD. Every path passes here before it becomes a URI.
 */
export function checkPath(path: string): void {
  const fault = path.includes('\0')
    ? 'holds a NUL byte, at which the system would cut it off'
    : path.isWellFormed()
      ? undefined
      : 'holds half of a surrogate pair, which no file name can hold';
  if (fault === undefined) return;
  throw new SqlsyncError('USAGE', `The path ${quote(path)} ${fault}`, {
    hint: 'Check how the path is spelled on the disk.',
  });
}

/**
 * The text of a file's name; undefined if its bytes are not UTF-8. Decoded, such a name would be another one, and
 * several names could become the same. For names read as bytes (`readdirSync(folder, 'buffer')`).
 */
export function decodeName(bytes: Uint8Array): string | undefined {
  const text = Buffer.from(bytes).toString('utf8');
  // A name that really holds U+FFFD decodes to itself.
  return text.includes(REPLACEMENT) && !Buffer.from(text).equals(bytes) ? undefined : text;
}

/** As `realpathSync`, which decodes with loss. Throws USAGE for a real path that is not UTF-8. */
export function realPath(path: string): string {
  const real = realpathSync(path);
  if (!real.includes(REPLACEMENT)) return real;
  const exact = decodeName(realpathSync.native(path, 'buffer'));
  if (exact === undefined) throw undecodable(`The place to which ${quote(path)} leads`);
  return exact;
}

/**
 * Throws USAGE for words of the command line, variables among `variables`, or a working directory that are not UTF-8.
 * Linux provides the bytes; on other systems U+FFFD is the sign of such bytes.
 */
export function checkDecoding(words: readonly string[], variables: readonly string[]): void {
  const lossy = words.find((word) => word.includes(REPLACEMENT));
  if (lossy !== undefined && !isExactly(words, splitAtNul(procFile('cmdline')).slice(-words.length))) {
    throw undecodable(`The argument ${quote(lossy)}`);
  }
  for (const name of variables) {
    if (process.env[name]?.includes(REPLACEMENT) !== true) continue;
    const entry = `${name}=${process.env[name]}`;
    if (!isExactly([entry], splitAtNul(procFile('environ')).filter(startsWith(`${name}=`)))) {
      throw undecodable(`The environment variable ${name}, ${quote(process.env[name])},`);
    }
  }
  if (workingDirectory().includes(REPLACEMENT) && !isWorkingDirectoryExact()) {
    throw undecodable(`The working directory ${quote(workingDirectory())}`);
  }
}

/** True if `texts` have exactly these bytes. */
function isExactly(texts: readonly string[], bytes: readonly Buffer[]): boolean {
  return (
    texts.length === bytes.length &&
    texts.every((text, i) => Buffer.from(text).equals(bytes[i] ?? Buffer.alloc(0)))
  );
}

function startsWith(text: string): (bytes: Buffer) => boolean {
  return (bytes) => bytes.subarray(0, text.length).toString() === text;
}

function splitAtNul(bytes: Buffer): Buffer[] {
  const parts: Buffer[] = [];
  for (let from = 0; from < bytes.length;) {
    const end = bytes.indexOf(0, from);
    parts.push(bytes.subarray(from, end === -1 ? bytes.length : end));
    from = end === -1 ? bytes.length : end + 1;
  }
  return parts;
}

/** Empty if the system has no such file. */
function procFile(name: string): Buffer {
  try {
    return readFileSync(`/proc/self/${name}`);
  } catch {
    return Buffer.alloc(0);
  }
}

/** '' if the folder was removed: then opening a relative path fails with its own error. */
function workingDirectory(): string {
  try {
    return process.cwd();
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error;
    return '';
  }
}

function isWorkingDirectoryExact(): boolean {
  try {
    return decodeName(readlinkSync('/proc/self/cwd', 'buffer')) !== undefined;
  } catch {
    return false;
  }
}

function undecodable(what: string): SqlsyncError {
  return new SqlsyncError(
    'USAGE',
    `${what} holds bytes that are no UTF-8, which Node.js cannot pass on: it would name another file`,
    { hint: 'Rename it; `convmv` renames whole trees.' },
  );
}

function quote(text: string): string {
  return `"${sanitizeText(text, 200)}"`;
}
