import { spawn } from 'node:child_process';
import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { splitCommand } from '../../transport/command-words.ts';
import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import { withSnapshotCopy } from '../store/snapshot-copy.ts';
import { runStoreCommand } from '../store/store-command.ts';
import type { OutputArguments } from './common-options.ts';

export interface OpenArguments extends OutputArguments {
  readonly snapshot: string;
  readonly sql?: string | undefined;
  readonly host?: string | undefined;
  readonly path?: string | undefined;
  readonly exec: string;
}

/** `sqlsync open STORE[#WHICH] [SQL]`; returns the exit status of what was run on the copy. */
export function runOpenCommand(args: OpenArguments): Promise<number> {
  return runStoreCommand('open', args, async (output, options) => {
    const [program, ...words] = splitCommand(args.exec);
    return withSnapshotCopy(args.snapshot, args, output, options, (path, snapshot) => {
      output.note(`${snapshot.path} of ${formatClock(snapshot.time)} is in ${path}`);
      output.makeRoom();
      const sql = args.sql === undefined ? [] : [args.sql];
      return run(program, [...words, path, ...sql]);
    });
  });
}

/** It has the terminal, and its signals: what ends it does not end us before the copy is removed. */
function run(program: string, words: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, words, { stdio: 'inherit' });
    child.on('error', (error) => {
      const isMissing = systemErrorCode(error) === 'ENOENT';
      reject(
        new SqlsyncError(
          'USAGE',
          `${program} could not be started: ${isMissing ? 'not found' : error.message}`,
          {
            hint: 'Install it, or name another program by --exec; `sqlsync dump` and `restore` need none.',
            cause: error,
          },
        ),
      );
    });
    child.on('exit', (status) => resolve(status ?? 1));
  });
}
