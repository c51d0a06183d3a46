import { SqlsyncError, sanitizeText } from '../errors.ts';
import { camelCase, isSwitch } from './options/command.ts';
import type { Command, Option, Options } from './options/command.ts';
import type { CommandLine } from './command-line.ts';
import { checkWords, helpLine } from './usage-errors.ts';

/** Values stay strings, and an option takes one value at a time. */
const CONFIGURATION = {
  'greedy-arrays': false,
  'parse-numbers': false,
  'parse-positional-numbers': false,
} as const;

/** The arguments of the command, as yargs reads them. Throws SqlsyncError USAGE. */
export async function argumentsOf(line: CommandLine): Promise<Record<string, unknown>> {
  checkWords(line);
  const { Parser } = await import('yargs/helpers');
  const { command, words, operands } = line;
  const { argv, error } = Parser.detailed([...words.divided], {
    ...parserOptions(command.options),
    configuration: CONFIGURATION,
  });
  if (error !== null) throw usageError(error.message, line);
  const values: Record<string, unknown> = operandValues(command, operands);
  for (const [name, option] of Object.entries(command.options)) {
    const value = isNegated(name, argv) || (lastOf(argv[name], option) ?? presetOf(option));
    checkChoice(name, option, value, line);
    values[camelCase(name)] = value;
  }
  return values;
}

/** For yargs, `--no-cache` means that the switch `cache` is off. */
function isNegated(name: string, argv: Readonly<Record<string, unknown>>): boolean {
  return name.startsWith('no-') && argv[name.slice('no-'.length)] === false;
}

function presetOf(option: Option): string | false | undefined {
  return option.default ?? (isSwitch(option) ? false : undefined);
}

/** For an option that is given twice, the last value counts, unless it takes several. */
function lastOf(value: unknown, { array }: Option): unknown {
  return array !== true && Array.isArray(value) ? value.at(-1) : value;
}

function parserOptions(options: Options): { [key in 'boolean' | 'string' | 'array']: string[] } & {
  alias: Record<string, string[]>;
} {
  const named = (matches: (option: Option) => boolean): string[] =>
    Object.entries(options).flatMap(([name, option]) => (matches(option) ? [name] : []));
  return {
    boolean: named(isSwitch),
    string: named((option) => !isSwitch(option)),
    array: named(({ array }) => array === true),
    alias: Object.fromEntries(
      Object.entries(options).flatMap(([name, { alias }]) => (alias === undefined ? [] : [[name, [alias]]])),
    ),
  };
}

/** The operands by their names in the usage: `<store> [ids..]`. `checkWords` has counted them. */
function operandValues({ usage }: Command, operands: readonly string[]): Record<string, unknown> {
  const slots = [...usage.matchAll(/[<[](\w+)(\.\.)?[\]>]/g)];
  return Object.fromEntries(
    slots.map(([, name, dots], at) => [name, dots === undefined ? operands[at] : operands.slice(at)]),
  );
}

function checkChoice(name: string, { choices }: Option, value: unknown, line: CommandLine): void {
  if (choices === undefined || typeof value !== 'string' || choices.includes(value)) return;
  throw usageError(`--${name}: "${sanitizeText(value, 100)}" is not one of ${choices.join(', ')}`, line);
}

function usageError(message: string, line: CommandLine): SqlsyncError {
  return new SqlsyncError('USAGE', message, { hint: `See \`${helpLine(line)}\`.` });
}
