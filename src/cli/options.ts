/**
 * The options of each command, as yargs takes them; completion and the check for misspelt ones read the same table.
 * `nargs: 1` on an array: without it, it would take the locations too.
 */
export const COMMON_OPTIONS = {
  port: { alias: 'p', type: 'number', describe: 'SSH port of the remote side' },
  identity: { alias: 'i', type: 'string', array: true, nargs: 1, describe: 'Private key file for SSH' },
  'known-hosts': {
    type: 'string',
    array: true,
    nargs: 1,
    describe: 'Files of trusted host keys (default: ~/.ssh/known_hosts and the system’s)',
  },
  'remote-exe': { type: 'string', default: 'sqlsync', describe: 'Name of sqlsync on the remote side' },
  'busy-timeout': { type: 'number', default: 10, describe: 'Seconds to wait for locks of other programs' },
  timeout: {
    type: 'number',
    default: 300,
    describe: 'Seconds of silence after which the other side counts as lost; 0 is for ever',
  },
  json: { type: 'boolean', default: false, describe: 'One JSON object a line on stdout' },
  verbose: { alias: 'v', type: 'boolean', default: false, describe: 'Say more' },
  quiet: { alias: 'q', type: 'boolean', default: false, describe: 'Say nothing but errors' },
} as const;

export const SYNC_OPTIONS = {
  'dry-run': { alias: 'n', type: 'boolean', default: false, describe: 'Compare only; write nothing' },
  overwrite: {
    type: 'boolean',
    default: false,
    describe: 'REPLICA may be a database that sqlsync did not make (its content is lost)',
  },
  replace: { type: 'boolean', default: false, describe: 'Replace a REPLICA of another page size' },
  compress: {
    choices: ['auto', 'zstd', 'none'],
    default: 'auto',
    describe: 'auto: all over SSH, only deltas between local files',
  },
  hash: {
    choices: ['xxh64', 'sha256'],
    default: 'xxh64',
    describe: 'sha256 resists crafted collisions and is slower',
  },
  reader: {
    choices: ['file', 'dbpage'],
    default: 'file',
    describe: 'How pages are read: mostly from the file itself, or all by SQLite (slower)',
  },
} as const;

/** What the check and the completion need to know of an option. */
export interface KnownOption {
  readonly alias?: string;
  readonly type?: string;
  readonly choices?: readonly string[];
}

const ALWAYS: Readonly<Record<string, KnownOption>> = {
  help: { alias: 'h', type: 'boolean' },
  version: { type: 'boolean' },
};

/** By their names without dashes. */
export function optionsOfCommand(command: string): Readonly<Record<string, KnownOption>> {
  if (command === 'sync') return { ...SYNC_OPTIONS, ...COMMON_OPTIONS, ...ALWAYS };
  return command === 'verify' ? { ...COMMON_OPTIONS, ...ALWAYS } : ALWAYS;
}
