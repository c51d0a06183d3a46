import { spawn } from 'node:child_process';
import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { splitCommand } from '../../transport/command-words.ts';
import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import { withSnapshotCopy } from '../store/snapshot-copy.ts';
import {
  AT_OPTION,
  CACHE_OPTION,
  SNAPSHOT_OPERAND,
  STORES,
  atTime,
  runStoreCommand,
} from '../store/store-command.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { DATABASE_OPTIONS } from '../store/snapshot-choice.ts';
import { ACCESS_OPTIONS } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync open STORE[#WHICH] [SQL]`; returns the exit status of the program that ran on the copy. */
export const command: Command = defineCommand({
  name: 'open',
  usage: '<snapshot> [sql]',
  describe: 'Query a snapshot with sqlite3, in a temporary copy',
  example: "sqlsync open /srv/store#latest 'SELECT count(*) FROM t'",
  operands: { snapshot: SNAPSHOT_OPERAND, sql: 'SQL to run; without it, sqlite3 asks for it' },
  options: {
    ...DATABASE_OPTIONS,
    ...AT_OPTION,
    ...CACHE_OPTION,
    exec: {
      value: 'COMMAND',
      default: 'sqlite3 -readonly',
      describe: 'What to run on the copy; its path is added, then SQL',
    },
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('open', args, async (output, options) => {
      const [program, ...words] = splitCommand(args.exec);
      return withSnapshotCopy(atTime(args.snapshot, args.at), args, output, options, (path, snapshot) => {
        output.note(`${snapshot.path} of ${formatClock(snapshot.time)} is in ${path}`);
        output.makeRoom();
        const sql = args.sql === undefined ? [] : [args.sql];
        return start(program, [...words, path, ...sql]);
      });
    }),
});

/**
 * The program has the terminal and its signals: a signal that ends it must not end this process before it has removed
 * the copy.
 */
function start(program: string, words: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: 'inherit' });
    child.on('error', (error) => {
      const isMissing = systemErrorCode(error) === 'ENOENT';
      reject(
        new SqlsyncError(
          'USAGE',
          `${program} could not be started: ${isMissing ? 'not found' : error.message}`,
          {
            hint: 'Install it, or name another program with --exec. `sqlsync dump` and `restore` need none.',
            cause: error,
          },
        ),
      );
    });
    child.on('exit', (status) => resolve(status ?? 1));
  });
}
