import { SqlsyncError, sanitizeText } from '../errors.ts';

/**
 * Splits a remote-shell command into words, as rsync splits its `-e`. Only spaces separate. Quotes of either kind keep
 * spaces, anywhere in a word; a quote doubled within its own kind stands for itself. A backslash is an ordinary
 * character. Pure.
 *
 * @throws {SqlsyncError} USAGE if a quote is not closed or there is no word.
 */
export function splitCommand(command: string): [string, ...string[]] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let i = 0; i < command.length; i++) {
    const character = command.charAt(i);
    if (quote === '') {
      if (character === ' ') {
        if (word !== undefined) words.push(word);
        word = undefined;
        continue;
      }
      word ??= '';
      if (character === "'" || character === '"') quote = character;
      else word += character;
    } else if (character !== quote) {
      word += character;
    } else if (command[i + 1] === quote) {
      word += quote;
      i++;
    } else {
      quote = '';
    }
  }
  if (quote !== '') throw commandError(command, `lacks a closing ${quote}`);
  if (word !== undefined) words.push(word);
  const [first, ...rest] = words;
  if (first === undefined || first === '') throw commandError(command, 'names no program');
  if (command.includes('\0')) throw commandError(command, 'holds a NUL byte');
  return [first, ...rest];
}

/** A text as one word of a POSIX shell. Pure. */
export function shellWord(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** A text in a message, as a word that a user may paste into a shell: short, without what cannot be shown. Pure. */
export function shellQuote(text: string): string {
  const clean = sanitizeText(text, 200);
  return /^[A-Za-z0-9_./:@%+=,-]+$/.test(clean) ? clean : shellWord(clean);
}

/** A text of any length as a word that a user may paste into a shell: what cannot be shown is written as `$'\xNN'`. Pure. */
export function visibleWord(text: string): string {
  if (sanitizeText(text, Infinity) === text && !/[\t-\r\u0085\u2028\u2029]/.test(text))
    return shellWord(text);
  const bytes = [...Buffer.from(text)].map((byte) =>
    byte > 0x20 && byte < 0x7f && byte !== 0x27 && byte !== 0x5c
      ? String.fromCharCode(byte)
      : `\\x${byte.toString(16).padStart(2, '0')}`,
  );
  return `$'${bytes.join('')}'`;
}

function commandError(command: string, fault: string): SqlsyncError {
  return new SqlsyncError('USAGE', `the --rsh command "${sanitizeText(command, 200)}" ${fault}`, {
    hint: 'Give a program and its arguments, separated by spaces, such as --rsh "ssh -p 2222".',
  });
}
