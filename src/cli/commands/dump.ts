import { throwIfAborted } from '../../backup/store-error.ts';
import { dumpSql } from '../../sqlite/sql-dump.ts';
import { EXIT_OK } from '../exit.ts';
import { withSnapshotCopy } from '../store/snapshot-copy.ts';
import { runStoreCommand } from '../store/store-command.ts';
import type { OutputArguments } from './common-options.ts';

export interface DumpArguments extends OutputArguments {
  readonly snapshot: string;
  readonly tables?: string[] | undefined;
  readonly host?: string | undefined;
  readonly path?: string | undefined;
}

/** Characters that are gathered before they are written. */
const CHUNK_LENGTH = 64 * 1024;

/** `sqlsync dump STORE[#WHICH] [TABLE…]`: SQL on stdout; returns the exit status. */
export function runDumpCommand(args: DumpArguments): Promise<number> {
  return runStoreCommand('dump', args, (output, options) =>
    withSnapshotCopy(args.snapshot, args, output, options, async (path, snapshot) => {
      output.makeRoom();
      for (const chunk of chunksOf(dumpSql(path, args.tables ?? []))) {
        throwIfAborted(options.signal);
        if (!(await write(chunk, output.options.json))) return EXIT_OK;
      }
      output.json({ type: 'summary', snapshot });
      return EXIT_OK;
    }),
  );
}

function* chunksOf(lines: Iterable<string>): Generator<string> {
  let chunk = '';
  for (const line of lines) {
    chunk += `${line}\n`;
    if (chunk.length < CHUNK_LENGTH) continue;
    yield chunk;
    chunk = '';
  }
  if (chunk !== '') yield chunk;
}

/** With --json the SQL is in lines of JSON as all else. Resolves to false where nobody reads any more. */
function write(sql: string, asJson: boolean): Promise<boolean> {
  const text = asJson ? `${JSON.stringify({ type: 'sql', sql })}\n` : sql;
  return new Promise((resolve) => {
    process.stdout.write(text, (error) => resolve(error === null || error === undefined));
  });
}
