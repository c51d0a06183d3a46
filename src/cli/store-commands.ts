import type { Argv } from 'yargs';
import { STORE_COMMAND_NAMES, STORE_OPTIONS } from './store-options.ts';
import type { StoreCommandName } from './store-options.ts';

/** What yargs made of the words is given on as the arguments that the command declares. */
type Run = (args: never) => Promise<number>;

interface Description {
  readonly usage: string;
  readonly describe: string;
  /** Loaded when it is run. */
  readonly load: () => Promise<Run>;
}

/** Commands on a backup store; all but the first two words of `usage` are told by the options. */
const DESCRIPTIONS: Readonly<Record<StoreCommandName, Description>> = {
  init: {
    usage: 'init <store>',
    describe: 'Make an empty backup store, a folder',
    load: async () => (await import('./commands/init.ts')).runInitCommand,
  },
  backup: {
    usage: 'backup <places..>',
    describe: 'Add snapshots of databases to a store: backup ORIGIN… STORE; quoted, ORIGIN may be a pattern',
    load: async () => (await import('./commands/backup.ts')).runBackupCommand,
  },
  snapshots: {
    usage: 'snapshots <store>',
    describe: 'List the snapshots of a store',
    load: async () => (await import('./commands/snapshots.ts')).runSnapshotsCommand,
  },
  restore: {
    usage: 'restore <snapshot> <target>',
    describe: 'Make TARGET the database of a snapshot: STORE[#ID|#latest|#TIME]',
    load: async () => (await import('./commands/restore.ts')).runRestoreCommand,
  },
  diff: {
    usage: 'diff <a> <b>',
    describe: 'Say which pages, tables and indexes differ between two snapshots: STORE#ID #ID',
    load: async () => (await import('./commands/diff.ts')).runDiffCommand,
  },
  forget: {
    usage: 'forget <store> [ids..]',
    describe: 'Take snapshots away, by a policy or by their ids',
    load: async () => (await import('./commands/forget.ts')).runForgetCommand,
  },
  prune: {
    usage: 'prune <store>',
    describe: 'Remove from a store what no snapshot needs any more',
    load: async () => (await import('./commands/prune.ts')).runPruneCommand,
  },
  check: {
    usage: 'check <store>',
    describe: 'Look for damage in a store',
    load: async () => (await import('./commands/check.ts')).runCheckCommand,
  },
  repair: {
    usage: 'repair <store>',
    describe: 'Make a damaged store usable again',
    load: async () => (await import('./commands/repair.ts')).runRepairCommand,
  },
  stats: {
    usage: 'stats <store>',
    describe: 'Say how large a store is, and what it saves',
    load: async () => (await import('./commands/stats.ts')).runStatsCommand,
  },
  dump: {
    usage: 'dump <snapshot> [tables..]',
    describe: 'Print a snapshot, or some tables of it, as SQL',
    load: async () => (await import('./commands/dump.ts')).runDumpCommand,
  },
  open: {
    usage: 'open <snapshot> [sql]',
    describe: 'Query a snapshot with sqlite3, in a temporary copy',
    load: async () => (await import('./commands/open.ts')).runOpenCommand,
  },
};

const POSITIONALS: Readonly<Record<string, string>> = {
  store: 'Folder of the store',
  places: 'Databases, each a path or [user@]host:path, and last the store',
  snapshot: 'STORE, STORE#ID, STORE#latest, or STORE#2026-11-21T08:00 for the newest until then',
  target: 'Path or [user@]host:path',
  a: 'STORE#ID',
  b: 'STORE#ID, or #ID of the same store',
  ids: 'Ids of snapshots, or how they begin',
  tables: 'Names of tables; without any, everything',
  sql: 'SQL to run; without it, sqlite3 asks for it',
};

export function addStoreCommands(parser: Argv, setStatus: (status: number) => void): Argv {
  return STORE_COMMAND_NAMES.reduce((all, name) => {
    const { usage, describe, load } = DESCRIPTIONS[name];
    return all.command(
      usage,
      describe,
      (command: Argv) => positionals(command, usage).options(STORE_OPTIONS[name]),
      async (args) => {
        (await import('../backup/young-generation.ts')).keepYoungGenerationSmall();
        const run = await load();
        setStatus(await run(args as never));
      },
    );
  }, parser);
}

function positionals(command: Argv, usage: string): Argv {
  const names = usage.matchAll(/[<[](\w+)(\.\.)?[\]>]/g);
  return [...names].reduce(
    (all, [, name = '', dots]) =>
      all.positional(name, { type: 'string', array: dots !== undefined, describe: POSITIONALS[name] ?? '' }),
    command,
  );
}
