import type { Writable } from 'node:stream';
import { SqlsyncError } from '../../errors.ts';
import { standardOutput } from '../../sync/stream/page-stream.ts';
import type { Options } from '../options/command.ts';

/** The operand that stands for standard output in the place of a database that is written. */
export const STDOUT = '-';

/**
 * Standard output, to write a database to. Throws SqlsyncError USAGE if it is a terminal, or if the user gave one of
 * `excluded`, which are about a file.
 *
 * @param table - the options of the command, with their defaults.
 */
export function openStdout(
  args: Readonly<Record<string, unknown>>,
  table: Options,
  excluded: readonly string[],
): Writable {
  const given = excluded.find((name) => {
    const value = args[camelCase(name)];
    return value !== undefined && value !== false && value !== table[name]?.default;
  });
  if (given !== undefined) {
    throw new SqlsyncError('USAGE', `--${given} is about a file, and - stands for standard output`, {
      hint: `Leave out --${given}, or name a file; a file named - is ./-.`,
    });
  }
  if (process.stdout.isTTY) {
    throw new SqlsyncError('USAGE', 'Standard output is a terminal, which cannot show a database', {
      hint: 'Send it to a program or a file: | zstd, > copy.db. A file named - is ./-.',
    });
  }
  return standardOutput();
}

function camelCase(name: string): string {
  return name.replaceAll(/-(\w)/g, (_, letter: string) => letter.toUpperCase());
}
