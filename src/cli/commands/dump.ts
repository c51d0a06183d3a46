import { throwIfAborted } from '../../backup/store-error.ts';
import { SqlsyncError } from '../../errors.ts';
import { dumpSql } from '../../sqlite/dump/sql-dump.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { counted } from '../terminal/format.ts';
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

/** `sqlsync dump STORE[#WHICH] [TABLE…]`: SQL on stdout; returns the exit status. */
export const command: Command = defineCommand({
  name: 'dump',
  usage: '<snapshot> [tables..]',
  describe: 'Print a snapshot, or some tables of it, as SQL',
  example: 'sqlsync dump /srv/store#latest users',
  summary:
    '`snapshot`, `omissions` (what is not in the dump), after lines of type `sql` with pieces of the text in `sql`',
  operands: { snapshot: SNAPSHOT_OPERAND, tables: 'Names of tables; without any, everything' },
  options: {
    ...DATABASE_OPTIONS,
    ...AT_OPTION,
    ...CACHE_OPTION,
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('dump', args, (output, options) =>
      withSnapshotCopy(atTime(args.snapshot, args.at), args, output, options, async (path, snapshot) => {
        output.makeRoom();
        const omissions: string[] = [];
        const statements = dumpSql(path, args.tables ?? [], {
          onOmission: (omission) => {
            omissions.push(omission);
            if (omissions.length <= OMISSIONS_SHOWN) output.warning(`left out: ${omission}`);
          },
          onRemark: (remark) => output.warning(remark),
        });
        for (const chunk of chunksOf(statements)) {
          throwIfAborted(options.signal);
          if (!(await write(chunk, output.options.json))) return EXIT_OK;
        }
        const failure = omissions.length === 0 ? undefined : partial(omissions);
        if (failure !== undefined) output.error(failure);
        // Last: the dump is complete.
        output.json({ type: 'summary', snapshot, omissions });
        return failure === undefined ? EXIT_OK : exitStatusOf(failure.code);
      }),
    ),
});

/** How many characters are collected before they are written. */
const CHUNK_LENGTH = 64 * 1024;

/** How many omissions are shown; the dump lists all of them. */
const OMISSIONS_SHOWN = 20;

function partial(omissions: readonly string[]): SqlsyncError {
  return new SqlsyncError(
    'DUMP_PARTIAL',
    `The dump leaves out ${counted(omissions.length, 'thing')} that could not be read as SQL`,
    {
      hint: 'A comment in the dump names each of them. For the complete database use `sqlsync restore`.',
    },
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

/** With --json the SQL comes in JSON lines, as everything else. Resolves to false if the reader is gone. */
function write(sql: string, asJson: boolean): Promise<boolean> {
  const text = asJson ? `${JSON.stringify({ type: 'sql', sql })}\n` : sql;
  return new Promise((resolve) => {
    process.stdout.write(text, (error) => resolve(error === null || error === undefined));
  });
}
