import { SqlsyncError } from '../../errors.ts';
import type { OptionValues } from '../options/command.ts';

/** The options for a folder of databases. */
export const FOLDER_OPTIONS = {
  recursive: {
    alias: 'r',
    describe: 'Copy all SQLite databases in the folder ORIGIN to the folder REPLICA, over one connection',
    more: 'Symbolic links and files that are no databases are left out, and told of. ORIGIN may end in a pattern, as `db1:/srv/*.db`. The status is the highest of all databases.',
  },
  include: {
    value: 'PATTERN',
    array: true,
    describe: 'Copy what matches, also where an --exclude matches it',
    more: 'Patterns are those of rsync: `*.db`, `/only/here/*`, `cache/`, `**`. All `--include` come before all `--exclude`.',
  },
  exclude: { value: 'PATTERN', array: true, describe: 'Leave out what matches' },
  delete: {
    describe: 'Delete replicas in REPLICA, on this host, that have no origin any more',
    more: 'Only those that carry the mark of a copy from such a place; none if a part of ORIGIN cannot be read, or has no database.',
  },
} as const;

export type FolderArguments = OptionValues<typeof FOLDER_OPTIONS>;

/** Throws SqlsyncError USAGE for options of a folder without --recursive. */
export function checkFolderOptions(args: FolderArguments & { readonly reflink?: boolean }): void {
  if (args.recursive) {
    if (args.reflink !== true) return;
    throw new SqlsyncError('USAGE', '--recursive and --reflink exclude each other');
  }
  const { include, exclude } = args;
  const alone = include !== undefined ? '--include' : exclude !== undefined ? '--exclude' : '--delete';
  if (include === undefined && exclude === undefined && !args.delete) return;
  throw new SqlsyncError('USAGE', `${alone} is for --recursive`, {
    hint: 'Add --recursive to copy a folder.',
  });
}
