import type { Command } from './options/command.ts';
import { DEFAULT_COMMAND, isCommand, loadCommand } from './command-files.ts';
import { ALWAYS } from './options/options.ts';
import { readWords } from './words.ts';
import type { Words } from './words.ts';

export interface CommandLine {
  readonly command: Command;
  /** True if the command line names the command; the default command needs no name. */
  readonly isNamed: boolean;
  readonly words: Words;
  /** Without the command's name. */
  readonly operands: readonly string[];
}

/** Finds the command, which is the first operand wherever that stands, and sorts the words by its options. */
export async function readCommandLine(words: readonly string[]): Promise<CommandLine> {
  for (const [at, name] of words.entries()) {
    if (!isCommand(name)) continue;
    // The word before it may be an option of the command, and this word the option's value.
    const command = await loadCommand(name);
    const read = readWords(words, { ...command.options, ...ALWAYS });
    const [first, ...operands] = read.operands;
    if (first?.at !== at || at >= read.endAt) continue;
    const divided = read.divided.toSpliced(at, 1);
    return { command, isNamed: true, words: { ...read, divided }, operands: named(operands, read) };
  }
  const command = await loadCommand(DEFAULT_COMMAND);
  const read = readWords(words, { ...command.options, ...ALWAYS });
  return { command, isNamed: false, words: read, operands: named(read.operands, read) };
}

/** A word after `--` is a name: written as `./-name` it is not an option for yargs, which gets it without the `--`. */
function named(operands: Words['operands'], { endAt }: Words): string[] {
  return operands.map(({ word, at }) => (at > endAt && word.startsWith('-') ? `./${word}` : word));
}
