/**
 * The options of each command, as yargs takes them; completion and the check for misspelt ones read the same table.
 * `nargs: 1` on an array: without it, it would take the locations too.
 */
export const COMMON_OPTIONS = {
  port: { alias: 'p', type: 'string', describe: 'SSH port of the remote side' },
  identity: { alias: 'i', type: 'string', array: true, nargs: 1, describe: 'Private key file for SSH' },
  'known-hosts': {
    type: 'string',
    array: true,
    nargs: 1,
    describe: 'Files of trusted host keys (default: ~/.ssh/known_hosts and the system’s)',
  },
  'accept-new-host-key': {
    type: 'boolean',
    default: false,
    describe: 'Trust a host that is not known yet, and write its key to the known hosts',
  },
  jump: { alias: 'J', type: 'string', describe: 'Hosts to go through, as ssh -J: [user@]host[:port],…' },
  'ssh-config': {
    alias: 'F',
    type: 'string',
    describe: 'SSH configuration file, as ssh -F (default: ~/.ssh/config and the system’s); none for none',
  },
  rsh: {
    alias: 'e',
    type: 'string',
    describe: 'Your own remote shell, such as ssh, instead of the SSH built in (or SQLSYNC_RSH)',
  },
  'remote-exe': { type: 'string', default: 'sqlsync', describe: 'Name of sqlsync on the remote side' },
  'busy-timeout': { type: 'string', default: '10', describe: 'Time to wait for locks of other programs' },
  timeout: {
    type: 'string',
    default: '30',
    describe: 'Time of silence after which the other side counts as lost; 0 is for ever',
  },
  'connect-timeout': {
    type: 'string',
    describe: 'Time to wait for a login (default: as configured for SSH, or 20)',
  },
  'max-time': { type: 'string', describe: 'Time after which it gives up, whatever has arrived' },
  bwlimit: {
    type: 'string',
    describe:
      'At most so much each way per second, as with rsync: 500 is 500 KiB, 1.5m, 10MB, 0 for no limit',
  },
  json: { type: 'boolean', default: false, describe: 'One JSON object a line on stdout' },
  verbose: { alias: 'v', type: 'boolean', default: false, describe: 'Say more' },
  quiet: {
    alias: 'q',
    type: 'boolean',
    default: false,
    describe: 'Say nothing but errors, damage and omissions',
  },
} as const;

export const SYNC_OPTIONS = {
  'dry-run': { alias: 'n', type: 'boolean', default: false, describe: 'Compare only; write nothing' },
  overwrite: {
    type: 'boolean',
    default: false,
    describe: 'REPLICA may be a database that sqlsync did not make (its content is lost)',
  },
  replace: { type: 'boolean', default: false, describe: 'Replace a REPLICA of another page size' },
  'follow-links': {
    type: 'boolean',
    default: false,
    describe: 'Write REPLICA also through a symbolic link, or under several hard links',
  },
  retry: {
    type: 'string',
    default: '0',
    describe: 'Try again so often where the connection fails; what has arrived is not sent again',
  },
  'max-snapshot': {
    type: 'string',
    describe: 'Hold no snapshot of the origin for longer (30s, 5m); what takes longer is copied in rounds',
  },
  'max-wal-growth': {
    type: 'string',
    describe: 'Begin a new round once the origin’s WAL has grown by so much (64M, 1G)',
  },
  'max-shrink': {
    type: 'string',
    describe:
      'Refuse where the origin lost more than so many percent of its pages since the last copy (0 to 100)',
  },
  check: {
    type: 'boolean',
    default: false,
    describe: 'Have SQLite check REPLICA after the copy (integrity_check); status 1 where it finds damage',
  },
  compress: {
    choices: ['auto', 'zstd', 'none'],
    default: 'auto',
    describe: 'auto: all over SSH, only deltas between local files',
  },
  hash: {
    choices: ['nh-siphash', 'sha256', 'xxh64'],
    default: 'nh-siphash',
    describe:
      'How pages are compared: sha256 is longer and slower; xxh64 is for origins that nobody hostile writes',
  },
  reader: {
    choices: ['file', 'dbpage'],
    default: 'file',
    describe: 'How pages are read: mostly from the file itself, or all by SQLite (slower)',
  },
} as const;

/** Of what cron and timers run. */
export const JOB_OPTIONS = {
  'lock-wait': {
    type: 'string',
    describe: 'Do not overlap with another run of this job: wait for it so long (30s, 10m, 0), then give up',
  },
  ping: {
    type: 'string',
    describe: 'URL to tell of start, success and failure, as healthchecks.io has them',
  },
  'metrics-file': {
    type: 'string',
    describe: 'File for the metrics of the run, for Prometheus’ node exporter',
  },
} as const;

/** Of a comparison, in which a snapshot of a store may take part. */
export const VERIFY_OPTIONS = {
  host: { type: 'string', describe: 'Of a store without #ID: only snapshots of this host' },
  path: {
    type: 'string',
    describe: 'Of a store without #ID: only snapshots of this database, its path or how that ends',
  },
} as const;

/** Of the far side, for a forced command in authorized_keys. */
export const AGENT_OPTIONS = {
  restrict: { type: 'string', describe: 'Only databases inside this folder' },
  'read-only': { type: 'boolean', default: false, describe: 'Serve origins only: nothing is ever written' },
  'write-only': {
    type: 'boolean',
    default: false,
    describe: 'Write replicas only: no database can be fetched',
  },
  'allow-create': { type: 'boolean', default: false, describe: 'Replicas that do not exist may be made' },
  timeout: { type: 'string', describe: 'Time that the other side may take to say what it wants' },
  'max-time': { type: 'string', describe: 'Time that one database may take, whatever is asked for' },
} as const;

/** What the check and the completion need to know of an option. */
export interface KnownOption {
  readonly alias?: string;
  readonly type?: string;
  readonly choices?: readonly string[];
  /** May be given several times. */
  readonly array?: boolean;
}
