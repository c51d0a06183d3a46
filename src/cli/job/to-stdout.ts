import { fstatSync } from 'node:fs';
import type { Writable } from 'node:stream';
import { SqlsyncError } from '../../errors.ts';
import { standardOutput } from '../../sync/stream/page-stream.ts';
import { camelCase } from '../options/command.ts';
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
  if (isStderrToo()) {
    throw new SqlsyncError('USAGE', 'Standard error goes to the same place as standard output', {
      hint: 'A message there would damage the database. Leave out 2>&1, or send messages elsewhere: 2> errors.log.',
    });
  }
  return standardOutput();
}

/** True if both are one file or pipe. A device, such as /dev/null, mixes nothing. */
function isStderrToo(): boolean {
  const [out, err] = [fstatSync(1), fstatSync(2)];
  const isOne = out.dev === err.dev && out.ino === err.ino;
  return isOne && (out.isFile() || out.isFIFO() || out.isSocket());
}
