import { isSwitch } from './options/command.ts';
import type { Option, Options } from './options/command.ts';

/** The words of a command line, sorted by the options of one command. yargs interprets the values. */
export interface Words {
  /** All words that are neither options nor their values, with their index. */
  readonly operands: readonly { readonly word: string; readonly at: number }[];
  /** Index of `--`, or of the end. */
  readonly endAt: number;
  /** Names of the options that are given, negated ones excluded. */
  readonly given: ReadonlySet<string>;
  /** Parts of words that are unknown options. */
  readonly unknown: readonly string[];
  /** Options, as written, that need a value and have none. */
  readonly withoutValue: readonly string[];
  /** The option that takes the next word, if one follows. */
  readonly pending: Option | undefined;
  /**
   * The words before `--`, with a space between each letter option and its value: yargs would read `-Jhost` as five
   * letters.
   */
  readonly divided: readonly string[];
}

/** The options in one word that begins with a dash. */
interface OptionWord {
  readonly given: readonly string[];
  readonly unknown?: string;
  /** The last option, if it has no value in this word. */
  readonly open?: { readonly option: Option; readonly written: string };
  readonly divided?: string;
}

/** Sorts the words, as yargs would with the same options. Pure. */
export function readWords(words: readonly string[], options: Options): Words {
  const at = words.indexOf('--');
  const endAt = at === -1 ? words.length : at;
  const operands = words.slice(endAt + 1).map((word, i) => ({ word, at: endAt + 1 + i }));
  const before: typeof operands = [];
  const given = new Set<string>();
  const unknown: string[] = [];
  const withoutValue: string[] = [];
  const divided = words.slice(0, endAt);
  let pending: Option | undefined;
  for (let i = 0; i < endAt; i++) {
    const word = words[i] as string;
    if (!isOption(word)) {
      before.push({ word, at: i });
      continue;
    }
    const read = word.startsWith('--') ? readLong(word, options) : readShort(word, options);
    for (const name of read.given) given.add(name);
    if (read.unknown !== undefined) unknown.push(read.unknown);
    divided[i] = read.divided ?? word;
    if (read.open === undefined) continue;
    const { option, written } = read.open;
    const next = i + 1 < endAt ? words[i + 1] : undefined;
    if (next !== undefined && takes(option, next)) i++;
    else if (!isSwitch(option)) {
      withoutValue.push(written);
      if (i === words.length - 1) pending = option;
    }
  }
  return { operands: [...before, ...operands], endAt, given, unknown, withoutValue, pending, divided };
}

/** A single dash is an ordinary word, and so is a negative number. */
function isOption(word: string): boolean {
  return /^-./s.test(word) && !/^-\d+(\.\d+)?$/.test(word);
}

function takes(option: Option, word: string): boolean {
  return isSwitch(option) ? word === 'true' || word === 'false' : !isOption(word);
}

function readLong(word: string, options: Options): OptionWord {
  const [written = '', value] = word.split(/=(.*)/s, 2);
  const name = kebabCase(written.slice(2));
  const option = optionOf(name, options);
  if (option === undefined) {
    const negated =
      name.startsWith('no-') && value === undefined ? optionOf(name.slice(3), options) : undefined;
    return { given: [], ...(negated !== undefined && isSwitch(negated) ? {} : { unknown: written }) };
  }
  if (value === undefined) return { given: [name], open: { option, written } };
  const isWrong = isSwitch(option) && !takes(option, value);
  return { given: [name], ...(isWrong ? { unknown: word } : {}) };
}

function readShort(word: string, options: Options): OptionWord {
  // -name in the place of --name says more than its first letter that is no option.
  if (optionOf(word.slice(1), options) !== undefined) return { given: [], unknown: word };
  const given: string[] = [];
  const letters = word.slice(1);
  for (let i = 0; i < letters.length; i++) {
    const letter = String.fromCodePoint(letters.codePointAt(i) ?? 0);
    const written = `-${letter}`;
    const [name, option] = Object.entries(options).find(([, { alias }]) => alias === letter) ?? [];
    if (name === undefined || option === undefined) return { given, unknown: written };
    given.push(name);
    const rest = letters.slice(i + 1);
    if (rest === '') return { given, open: { option, written } };
    const value = rest.replace(/^=/, '');
    if (isSwitch(option) && value === rest) continue;
    if (isSwitch(option) && !takes(option, value)) return { given, unknown: `${written}=${value}` };
    return { given, divided: `-${letters.slice(0, i + 1)}=${value}` };
  }
  return { given };
}

function optionOf(name: string, options: Options): Option | undefined {
  return Object.hasOwn(options, name) ? options[name] : undefined;
}

/** `--dryRun` is accepted too. */
function kebabCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}
