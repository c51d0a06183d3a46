import { existsSync } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../errors.ts';
import { PUBLIC_COMMAND_NAMES, RESERVED_NAMES } from './command-files.ts';
import { hintAtDatabase } from './options/command.ts';
import type { CommandLine } from './command-line.ts';
import { ALWAYS } from './options/options.ts';

/**
 * Says what is wrong with a command line, closer to the user's intention than yargs, which takes the word after an
 * unknown option for its value. Throws SqlsyncError USAGE.
 */
export function checkWords(line: CommandLine): void {
  const { command, words, operands } = line;
  const [unknown] = words.unknown;
  if (unknown !== undefined) throw unknownOptionError(unknown, line);
  const [lacking] = words.withoutValue;
  if (lacking !== undefined) throw withoutValueError(lacking, line);
  checkName(line);
  const slots = [...command.usage.matchAll(/([<[])\w+(\.\.)?[\]>]/g)];
  const least = slots.filter(([, bracket]) => bracket === '<').length;
  const most = slots.some(([, , dots]) => dots !== undefined) ? Infinity : slots.length;
  if (operands.length < least) {
    const given = operands.map((operand) => sanitizeText(operand, 200)).join(' ');
    throw countError(line, operands.length === 0 ? 'nothing' : `only ${given}`, '');
  }
  if (operands.length > most) {
    const extra = sanitizeText(operands.slice(most).join(' '), 400);
    throw countError(line, `${operands.length}; too many: ${extra}`, 'A name with spaces needs quotes. ');
  }
}

/** The command line that shows the matching help. */
export function helpLine({ command, isNamed }: Pick<CommandLine, 'command' | 'isNamed'>): string {
  return isNamed ? `sqlsync ${command.name} --help` : 'sqlsync --help';
}

/** Commands whose operands are databases. Those of `WRITERS` accept - for standard output as the second. */
const OF_DATABASES: ReadonlySet<string> = new Set(['sync', 'verify', 'backup', 'restore', 'setup']);
const WRITERS: ReadonlySet<string> = new Set(['sync', 'restore']);

/** Finds a name that is neither a command nor a database. Throws SqlsyncError USAGE. */
function checkName({ command, isNamed, words, operands }: CommandLine): void {
  const [first = ''] = operands;
  const isPlain = words.operands[0] !== undefined && words.operands[0].at < words.endAt;
  if (!isNamed && isPlain) {
    if (RESERVED_NAMES.has(first)) {
      throw new SqlsyncError('USAGE', `"${first}" is reserved for a command to come`, {
        hint: `A database named ${first} is ./${first}.`,
      });
    }
    const meant = /^[a-z]{3,}$/i.test(first) && !existsSync(first) && nearest(first, PUBLIC_COMMAND_NAMES);
    if (typeof meant === 'string') throw unknownCommandError(operands, meant);
  }
  const last = WRITERS.has(command.name) ? 1 : Infinity;
  if (OF_DATABASES.has(command.name) && operands.slice(0, last).includes('-')) {
    throw new SqlsyncError(
      'USAGE',
      '"-" cannot be a database: sqlsync reads no database from standard input',
      {
        hint: 'Name a file. A file named - is ./-',
      },
    );
  }
}

function unknownOptionError(unknown: string, line: CommandLine): SqlsyncError {
  const { command, isNamed } = line;
  const near = nearest(unknown.replace(/^-+/, ''), Object.keys({ ...command.options, ...ALWAYS }));
  const where = isNamed ? ` of \`sqlsync ${command.name}\`` : '';
  const help = `See \`${helpLine(line)}\`.`;
  return new SqlsyncError('USAGE', `unknown option ${sanitizeText(unknown, 100)}${where}`, {
    hint: near === undefined ? help : `Did you mean --${near}? ${help}`,
  });
}

function withoutValueError(written: string, line: CommandLine): SqlsyncError {
  const name = sanitizeText(written, 100);
  return new SqlsyncError('USAGE', `${name} needs a value`, {
    hint: `Write a value that begins with a dash as ${name}=VALUE. See \`${helpLine(line)}\`.`,
  });
}

function unknownCommandError([first = '', ...rest]: readonly string[], meant: string): SqlsyncError {
  const words = [meant, ...rest].map((word) => sanitizeText(word, 400)).join(' ');
  return new SqlsyncError('USAGE', `unknown command "${sanitizeText(first, 100)}"`, {
    hint: `Did you mean \`sqlsync ${words}\`? A database named ${sanitizeText(first, 100)} is ./${sanitizeText(first, 100)}.`,
  });
}

function countError(line: CommandLine, found: string, advice: string): SqlsyncError {
  const { command, isNamed } = line;
  const expected = command.usage === '' ? 'no operand' : command.usage;
  const failure = new SqlsyncError('USAGE', `expected ${expected} but got ${found}`, {
    hint: `${advice}See \`${helpLine(line)}\`.`,
  });
  return isNamed ? hintAtDatabase(command.name, failure) : failure;
}

/** The name that is the fewest typing errors away from `word`, if they are few. */
function nearest(word: string, names: readonly string[]): string | undefined {
  const [best] = names
    .map((name) => ({ name, distance: editDistance(word, name) }))
    .filter(({ name, distance }) => distance <= Math.max(2, Math.floor(name.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  return best?.name;
}

/** How many letters to add, remove or replace (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
