import { existsSync } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../errors.ts';
import { allOptions, optionsOfCommand } from './known-options.ts';
import type { KnownOption } from './options.ts';
import { STORE_COMMAND_NAMES } from './store-options.ts';

/** Names that are commands where they stand first; anything else there is the origin of a sync. */
const COMMANDS = new Set<string>([
  'verify',
  'setup',
  'completion',
  'agent',
  'build-binding',
  ...STORE_COMMAND_NAMES,
]);

/** The words of a command line, each told what it is. */
export interface CommandLine {
  /** `sync` where none is named. */
  readonly command: string;
  /** Index of the command's name in the words, -1 where none is named. */
  readonly commandAt: number;
  /** All that are neither options nor their values, without the command. */
  readonly operands: readonly string[];
  /** Words that start with a dash, before `--`. */
  readonly options: readonly string[];
  /** The option that takes the next word, where there will be one. */
  readonly expectsValue: KnownOption | undefined;
  /** Words that end with an option that takes a value, and are not followed by one. */
  readonly withoutValue: readonly string[];
}

/** Reads the words as yargs does, but knows the options before the command. Pure. */
export function readCommandLine(words: readonly string[]): CommandLine {
  // An option that only one command has is known before its name comes.
  const known = allOptions();
  const operands: string[] = [];
  const options: string[] = [];
  const withoutValue: string[] = [];
  let commandAt = -1;
  let expectsValue: KnownOption | undefined;
  for (const [i, word] of words.entries()) {
    const isOption = isOptionWord(word);
    if (isOption && expectsValue !== undefined && expectsValue.type !== 'boolean') {
      withoutValue.push(words[i - 1] as string);
    }
    if (word === '--') {
      expectsValue = undefined;
      operands.push(...words.slice(i + 1));
      break;
    }
    const isValue = !isOption && expectsValue !== undefined && takes(expectsValue, word);
    expectsValue = isOption ? optionTaking(word, known) : undefined;
    if (isOption) options.push(word);
    else if (isValue) continue;
    else if (operands.length === 0 && commandAt === -1 && COMMANDS.has(word)) commandAt = i;
    else operands.push(word);
  }
  const command = words[commandAt] ?? 'sync';
  return { command, commandAt, operands, options, expectsValue, withoutValue };
}

/**
 * Says what is wrong with a command line where yargs would blame something else: it takes the word after an option
 * that it does not know for the value of that. Throws SqlsyncError USAGE.
 */
export function checkCommandLine(line: CommandLine): void {
  const { command, operands, options, expectsValue, withoutValue } = line;
  if (options.some((word) => ['--help', '-h', '--version'].includes(word))) return;
  const known = optionsOfCommand(command);
  for (const word of options) {
    const unknown = unknownOption(word, known);
    if (unknown !== undefined) throw unknownOptionError(unknown, command, Object.keys(known));
  }
  const lacking =
    withoutValue[0] ?? (expectsValue?.type === 'boolean' ? undefined : expectsValue && options.at(-1));
  if (lacking !== undefined) throw withoutValueError(lacking, command);
  if (command !== 'sync' && command !== 'verify') return;
  const meant = command === 'sync' ? misspelt(operands[0] ?? '') : undefined;
  if (meant !== undefined) throw unknownCommandError(operands, meant);
  if (operands.length > 2) throw tooManyError(command, operands);
  if (operands.includes('-')) {
    throw new SqlsyncError('USAGE', '"-" is no place for a database: sqlsync reads and writes files only', {
      hint: 'Name a file; one that is called - is ./-',
    });
  }
}

/** A single dash is a word like any other, and so is a negative number. */
function isOptionWord(word: string): boolean {
  return /^-./s.test(word) && !/^-\d+(\.\d+)?$/.test(word);
}

function takes(option: KnownOption, word: string): boolean {
  return option.type !== 'boolean' || word === 'true' || word === 'false';
}

/** The option of `word` where its value is in the next word; undefined where it is unknown or holds its value. */
function optionTaking(word: string, known: Readonly<Record<string, KnownOption>>): KnownOption | undefined {
  if (word.includes('=')) return undefined;
  if (word.startsWith('--')) return known[kebabCase(word.slice(2))];
  const last = word.at(-1) as string;
  const takesRest = word
    .slice(1, -1)
    .split('')
    .some((letter) => byLetter(letter, known)?.type !== 'boolean');
  return takesRest ? undefined : byLetter(last, known);
}

/** The part of `word` that is no option of those, or undefined. */
function unknownOption(word: string, known: Readonly<Record<string, KnownOption>>): string | undefined {
  if (word.startsWith('--')) {
    const [name = ''] = word.slice(2).split('=', 1);
    const negated = name.startsWith('no-') ? known[kebabCase(name.slice(3))] : undefined;
    return Object.hasOwn(known, kebabCase(name)) || negated?.type === 'boolean' ? undefined : `--${name}`;
  }
  // -name where --name was meant says more than the first letter that is no option.
  if (Object.hasOwn(known, word.slice(1))) return word;
  for (const letter of word.slice(1)) {
    const option = byLetter(letter, known);
    if (option === undefined) return `-${letter}`;
    if (option.type !== 'boolean') return undefined; // the rest is its value
  }
  return undefined;
}

function byLetter(letter: string, known: Readonly<Record<string, KnownOption>>): KnownOption | undefined {
  return Object.values(known).find(({ alias }) => alias === letter);
}

function unknownOptionError(unknown: string, command: string, names: readonly string[]): SqlsyncError {
  const near = nearest(unknown.replace(/^-+/, ''), names);
  const ofSync = command !== 'sync' && unknownOption(unknown, optionsOfCommand('sync')) === undefined;
  const where = ofSync ? ` of \`sqlsync ${command}\`` : '';
  const help = command === 'sync' ? 'See `sqlsync --help`.' : `See \`sqlsync ${command} --help\`.`;
  return new SqlsyncError('USAGE', `unknown option ${sanitizeText(unknown, 100)}${where}`, {
    hint: near === undefined ? help : `Did you mean --${near}? ${help}`,
  });
}

/** The command that was meant by what is neither a command nor the name of something that is here. */
function misspelt(word: string): string | undefined {
  const isPlain = /^[a-z]{3,}$/i.test(word) && !existsSync(word);
  return isPlain ? nearest(word, ['verify', 'setup', ...STORE_COMMAND_NAMES]) : undefined;
}

function unknownCommandError([first = '', ...rest]: readonly string[], meant: string): SqlsyncError {
  const words = [meant, ...rest].map((word) => sanitizeText(word, 400)).join(' ');
  return new SqlsyncError('USAGE', `unknown command "${sanitizeText(first, 100)}"`, {
    hint: `Did you mean \`sqlsync ${words}\`? A database that is called ${sanitizeText(first, 100)} is ./${sanitizeText(first, 100)}.`,
  });
}

function withoutValueError(word: string, command: string): SqlsyncError {
  const name = word.startsWith('--') ? word : `-${word.at(-1)}`;
  return new SqlsyncError('USAGE', `${sanitizeText(name, 100)} needs a value`, {
    hint: `One that begins with a dash is given as ${sanitizeText(name, 100)}=VALUE. See \`sqlsync ${command === 'sync' ? '' : `${command} `}--help\`.`,
  });
}

function tooManyError(command: string, operands: readonly string[]): SqlsyncError {
  const extra = sanitizeText(operands.slice(2).join(' '), 400);
  return new SqlsyncError('USAGE', `expected two locations but got ${operands.length}; too many: ${extra}`, {
    hint: `A name with spaces needs quotes. See \`sqlsync ${command === 'sync' ? '' : `${command} `}--help\`.`,
  });
}

/** The name that takes the fewest typing errors to become `word`, if they are few. */
function nearest(word: string, names: readonly string[]): string | undefined {
  const [best] = names
    .map((name) => ({ name, distance: editDistance(word, name) }))
    .filter(({ name, distance }) => distance <= Math.max(2, Math.floor(name.length / 3)))
    .sort((a, b) => a.distance - b.distance);
  return best?.name;
}

/** Letters to add, remove or replace (Levenshtein). */
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

/** yargs also takes `--dryRun`. */
export function kebabCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
