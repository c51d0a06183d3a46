import { COMMON_OPTIONS, JOB_OPTIONS, SYNC_OPTIONS } from './options.ts';
import type { KnownOption } from './options.ts';

export type StoreCommandName =
  | 'init'
  | 'backup'
  | 'snapshots'
  | 'restore'
  | 'diff'
  | 'forget'
  | 'prune'
  | 'check'
  | 'repair'
  | 'stats'
  | 'dump'
  | 'open';

/** An option as yargs takes it. */
export interface StoreOption extends KnownOption {
  readonly type?: 'string' | 'boolean';
  readonly nargs?: number;
  readonly default?: string | boolean;
  readonly describe: string;
}

type StoreOptions = Readonly<Record<string, StoreOption>>;

const { json, verbose, quiet } = COMMON_OPTIONS;
const OUTPUT_OPTIONS: StoreOptions = { json, verbose, quiet };

const count = (of: string) =>
  ({ type: 'string', describe: `Keep the newest so many ${of}; or unlimited` }) as const;
const span = (of: string) =>
  ({ type: 'string', describe: `Keep ${of} of so long before the newest, such as 1y5m7d2h` }) as const;

/** restic's, with their meaning. */
const KEEP_OPTIONS: StoreOptions = {
  'keep-last': count('snapshots'),
  'keep-hourly': count('hours that have one, the last of each'),
  'keep-daily': count('days'),
  'keep-weekly': count('weeks'),
  'keep-monthly': count('months'),
  'keep-yearly': count('years'),
  'keep-within': span('all'),
  'keep-within-hourly': span('one of each hour'),
  'keep-within-daily': span('one of each day'),
  'keep-within-weekly': span('one of each week'),
  'keep-within-monthly': span('one of each month'),
  'keep-within-yearly': span('one of each year'),
  'keep-tag': {
    type: 'string',
    array: true,
    nargs: 1,
    describe: 'Keep all that have this tag, or all of tag,tag',
  },
  'group-by': {
    type: 'string',
    nargs: 1,
    describe: 'Apply the policy to snapshots that have these in common: host, path, tags (default host,path)',
  },
} as const;

/** Which snapshots of a store are meant. */
const FILTER_OPTIONS = {
  host: { type: 'string', describe: 'Only snapshots of this host' },
  path: { type: 'string', describe: 'Only snapshots of this database: its path, or how that ends' },
  tag: { type: 'string', array: true, nargs: 1, describe: 'Only snapshots with this tag, or all of tag,tag' },
} as const;

const prune = {
  type: 'boolean',
  default: false,
  describe: 'Then remove what no snapshot needs any more',
} as const;
const dryRun = {
  alias: 'n',
  type: 'boolean',
  default: false,
  describe: 'Only say what would be done',
} as const;
const JOB_OPTIONS_OF_STORES = { 'lock-wait': JOB_OPTIONS['lock-wait'], ping: JOB_OPTIONS.ping } as const;
const { compress, hash, overwrite, replace } = SYNC_OPTIONS;

/** By command. */
export const STORE_OPTIONS: Readonly<Record<StoreCommandName, StoreOptions>> = {
  init: {
    grace: {
      type: 'string',
      describe:
        'How long prune leaves alone what a running backup may need (default 12h); a backup should take less than half of it',
    },
    ...OUTPUT_OPTIONS,
  },
  backup: {
    tag: {
      type: 'string',
      array: true,
      nargs: 1,
      describe: 'Tag of the new snapshots; may be given several times',
    },
    host: { type: 'string', describe: 'Host that the snapshots are said to be of' },
    verify: {
      type: 'boolean',
      default: false,
      describe: 'Restore each new snapshot to a temporary file and compare it with the origin',
    },
    'max-shrink': SYNC_OPTIONS['max-shrink'],
    ...KEEP_OPTIONS,
    prune,
    compress,
    hash,
    ...JOB_OPTIONS,
    ...COMMON_OPTIONS,
  },
  snapshots: { ...FILTER_OPTIONS, ...OUTPUT_OPTIONS },
  restore: {
    host: FILTER_OPTIONS.host,
    path: FILTER_OPTIONS.path,
    'dry-run': dryRun,
    overwrite: { ...overwrite, describe: 'TARGET may be a database that is there (its content is lost)' },
    replace: { ...replace, describe: 'Replace a TARGET of another page size' },
    'follow-links': {
      ...SYNC_OPTIONS['follow-links'],
      describe: 'Write TARGET also through a symbolic link, or under several hard links',
    },
    ping: JOB_OPTIONS.ping,
    salvage: {
      type: 'boolean',
      default: false,
      describe:
        'Where the store is damaged, write what is left of the snapshot to TARGET, a new file; status 24',
    },
    compress,
    hash,
    ...COMMON_OPTIONS,
  },
  diff: { host: FILTER_OPTIONS.host, path: FILTER_OPTIONS.path, ...OUTPUT_OPTIONS },
  forget: {
    ...KEEP_OPTIONS,
    ...FILTER_OPTIONS,
    'dry-run': dryRun,
    prune,
    ...JOB_OPTIONS_OF_STORES,
    ...OUTPUT_OPTIONS,
  },
  prune: {
    'max-unused': {
      type: 'string',
      describe:
        'Part of a pack that may be garbage before what is needed of it is copied (default 20%), or unlimited',
    },
    grace: {
      type: 'string',
      describe:
        'Grace period of this run, less than that of the store (0: delete at once); only while nothing else uses the store',
    },
    'dry-run': dryRun,
    ...JOB_OPTIONS_OF_STORES,
    ...OUTPUT_OPTIONS,
  },
  repair: {
    'read-data': {
      type: 'boolean',
      default: false,
      describe:
        'Read all data, and give up the packs that have changed, not only those that are missing or cut',
    },
    forget: {
      type: 'boolean',
      default: false,
      describe: 'Forget the snapshots that cannot be restored whole',
    },
    'dry-run': dryRun,
    ...OUTPUT_OPTIONS,
  },
  check: {
    'read-data': {
      type: 'boolean',
      default: false,
      describe: 'Read and check all data, not only records and trees',
    },
    'read-data-subset': {
      type: 'string',
      describe: 'Read only this part of the data: 1/7 … 7/7; or so much, chosen at random: 5%, 500M',
    },
    ...JOB_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  stats: OUTPUT_OPTIONS,
  dump: { host: FILTER_OPTIONS.host, path: FILTER_OPTIONS.path, ...OUTPUT_OPTIONS },
  open: {
    host: FILTER_OPTIONS.host,
    path: FILTER_OPTIONS.path,
    exec: {
      type: 'string',
      default: 'sqlite3 -readonly',
      describe: 'What to run on the copy; its path is added, then SQL',
    },
    ...OUTPUT_OPTIONS,
  },
};

export const STORE_COMMAND_NAMES: readonly StoreCommandName[] = Object.keys(
  STORE_OPTIONS,
) as StoreCommandName[];

export function optionsOfStoreCommand(command: string): Readonly<Record<string, KnownOption>> | undefined {
  return Object.hasOwn(STORE_OPTIONS, command) ? STORE_OPTIONS[command as StoreCommandName] : undefined;
}
