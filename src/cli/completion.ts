import { PUBLIC_COMMAND_NAMES } from './command-files.ts';
import { readCommandLine } from './command-line.ts';
import { FILES } from './commands/completion.ts';
import { ALWAYS } from './options/options.ts';

/** The possible completions of the last word. */
export async function completions(words: readonly string[]): Promise<string[]> {
  const before = words.slice(1, -1);
  const current = words.at(-1) ?? '';
  if (before.includes('--')) return [FILES];
  // bash makes separate words of `=` and the text around it.
  const line = await readCommandLine(before.filter((word) => word !== '='));
  if (current.startsWith('-')) {
    const names = Object.keys({ ...line.command.options, ...ALWAYS }).map((name) => `--${name}`);
    return names.filter((name) => name.startsWith(current));
  }
  const { pending } = line.words;
  if (pending !== undefined)
    return pending.choices?.filter((choice) => choice.startsWith(current)) ?? [FILES];
  const isFirst = !line.isNamed && line.operands.length === 0;
  return [...(isFirst ? PUBLIC_COMMAND_NAMES.filter((name) => name.startsWith(current)) : []), FILES];
}
