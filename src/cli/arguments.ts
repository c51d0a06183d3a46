import type { Argv } from 'yargs';
import { SqlsyncError } from '../errors.ts';
import { isSwitch } from './options/command.ts';
import type { Command, Options } from './options/command.ts';
import type { CommandLine } from './command-line.ts';
import { checkWords, helpLine } from './usage-errors.ts';
import { camelCase } from './words.ts';

/** The arguments of the command, as yargs reads them. Throws SqlsyncError USAGE. */
export async function argumentsOf(line: CommandLine): Promise<Record<string, unknown>> {
  checkWords(line);
  const { default: yargs } = await import('yargs');
  const { command, words, operands } = line;
  const afterEnd = words.operands.filter(({ at }) => at > words.endAt).length;
  const argv = [...words.divided, ...operands.slice(operands.length - afterEnd)];
  const parsed = await yargs(argv)
    .command(`$0 ${command.usage}`.trim(), false, (parser: Argv) => addOptions(parser, command))
    .middleware((args) => keepLast(args, command.options), true)
    .strict()
    .locale('en')
    .help(false)
    .version(false)
    .parserConfiguration({ 'parse-positional-numbers': false })
    .exitProcess(false)
    .fail((message, error) => {
      throw new SqlsyncError('USAGE', message || error.message, { hint: `See \`${helpLine(line)}\`.` });
    })
    .parseAsync();
  const negated = Object.keys(command.options).flatMap((name) => {
    const other = negatedBy(name);
    return other === undefined ? [] : [[camelCase(name), parsed[other] === false] as const];
  });
  return { ...parsed, ...Object.fromEntries(negated) };
}

function addOptions(parser: Argv, { operands, usage, options }: Command): Argv {
  for (const name of Object.keys(operands))
    parser.positional(name, { type: 'string', array: usage.includes(`${name}..`) });
  for (const [name, option] of Object.entries(options)) {
    const negated = negatedBy(name);
    const {
      alias,
      array,
      choices,
      default: preset = isSwitch(option) ? negated !== undefined : undefined,
    } = option;
    parser.option(negated ?? name, {
      type: isSwitch(option) ? 'boolean' : 'string',
      ...(alias === undefined ? {} : { alias }),
      ...(choices === undefined ? {} : { choices }),
      // Without `nargs`, yargs takes the operands as values too.
      ...(array === true ? { array, nargs: 1 } : {}),
      ...(preset === undefined ? {} : { default: preset }),
    });
  }
  return parser;
}

/** For yargs, `--no-cache` means that the switch `cache` is off. */
function negatedBy(name: string): string | undefined {
  return name.startsWith('no-') ? name.slice('no-'.length) : undefined;
}

/**
 * For an option that is given twice, the last value counts. (yargs' own setting for that also shortens options that
 * take several values.)
 */
function keepLast(args: Record<string, unknown>, options: Options): void {
  for (const [name, { alias = name, array }] of Object.entries(options))
    for (const key of array === true ? [] : [name, alias, camelCase(name)]) {
      const value = args[key];
      if (Array.isArray(value)) args[key] = value.at(-1);
    }
}
