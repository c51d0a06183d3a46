import { readCommandLine } from './command-line.ts';
import { optionsOfCommand } from './known-options.ts';
import { STORE_COMMAND_NAMES } from './store-options.ts';

/** What the scripts of yargs call the program with; the words of the command line follow, its name first. */
export const COMPLETION_FLAG = '--get-yargs-completions';

const COMMANDS = ['verify', 'setup', 'completion', ...STORE_COMMAND_NAMES];

/**
 * What the last of the words may become. Nothing where a file is due: the shell then completes file names itself,
 * which it would not do beside a single word of ours. Pure.
 */
export function completions(words: readonly string[]): string[] {
  const before = words.slice(1, -1);
  const current = words.at(-1) ?? '';
  if (before.includes('--')) return [];
  // bash makes words of their own of `=` and what stands around it.
  const line = readCommandLine(before.filter((word) => word !== '='));
  if (current.startsWith('-')) {
    const names = Object.keys(optionsOfCommand(line.command)).map((name) => `--${name}`);
    return names.filter((name) => name.startsWith(current));
  }
  const { expectsValue } = line;
  if (expectsValue !== undefined && expectsValue.type !== 'boolean') {
    return (expectsValue.choices ?? []).filter((choice) => choice.startsWith(current));
  }
  const isFirst = line.commandAt === -1 && line.operands.length === 0;
  return isFirst && current !== '' ? COMMANDS.filter((command) => command.startsWith(current)) : [];
}
