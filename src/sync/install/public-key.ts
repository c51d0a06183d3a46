import { readFileSync } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { shellWord } from '../../transport/command-words.ts';
import type { RestrictionOptions } from '../request/restriction.ts';

/** A line of a `.pub` file. */
export interface PublicKey {
  readonly type: string;
  /** The key in base64, which no other key has. */
  readonly blob: string;
  /** Who has it, in words of no meaning; may be ''. */
  readonly comment: string;
}

const KEY_TYPE =
  /^(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp\d+|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)$/;

/** Throws SqlsyncError USAGE if the file is not that of one public key. */
export function readPublicKey(file: string): PublicKey {
  const refuse = (why: string, hint: string, cause?: unknown): SqlsyncError =>
    new SqlsyncError('USAGE', `--key: ${sanitizeText(file, 300)} ${why}`, { hint, cause });
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw refuse(`cannot be read: ${why}`, 'Name the public half of a key: FILE.pub.', error);
  }
  if (text.includes('PRIVATE KEY'))
    throw refuse('is a private key, which never leaves its host', 'Name its public half: FILE.pub.');
  const [line = '', ...others] = text
    .split(/\r?\n/)
    .filter((each) => each.trim() !== '' && !each.startsWith('#'));
  const [type = '', blob = '', ...words] = line.trim().split(/\s+/);
  const bytes = Buffer.from(blob, 'base64');
  const isKey =
    KEY_TYPE.test(type) &&
    bytes.toString('base64') === blob &&
    bytes.toString('latin1', 4, 4 + type.length) === type &&
    bytes.readUInt32BE(0) === type.length;
  if (!isKey || others.length > 0)
    throw refuse(
      'is not the file of one public key',
      "Name the public half of a key: FILE.pub, as `ssh-keygen -t ed25519 -N '' -f FILE` makes it.",
    );
  return { type, blob, comment: sanitizeText(words.join(' '), 200) };
}

const ACCESS_FLAGS = { read: '--read-only', add: '--append-only', write: '--write-only' } as const;

/**
 * The line of authorized_keys that lets a key start an agent with this restriction, and nothing else. `exe` is a word of
 * a shell. Throws SqlsyncError USAGE if no line can name the folder.
 */
export function keyLine(key: PublicKey, exe: string, { folder, access, create }: RestrictionOptions): string {
  // oxlint-disable-next-line no-control-regex -- a line cannot have them
  if (/[\u0000-\u001f\u007f]/.test(folder))
    throw new SqlsyncError('USAGE', '--restrict: the name of the folder has control characters', {
      hint: 'Give it a name without, or a link of such a name.',
    });
  // With a dash first it would be an option.
  const name = folder.startsWith('-') ? `./${folder}` : folder;
  const words = [exe, 'agent', '--restrict', /^[\w./+-]+$/.test(name) ? name : shellWord(name)];
  if (access !== 'both') words.push(ACCESS_FLAGS[access]);
  if (create) words.push('--allow-create');
  // sshd reads \" as " in a quoted option, and any other backslash as itself.
  const command = words.join(' ').replaceAll('"', String.raw`\"`);
  const { type, blob, comment } = key;
  return [`restrict,command="${command}"`, type, blob, comment].join(' ').trim();
}
