import type { OptionValues, Options } from './command.ts';

/** Options of every command. */
export const ALWAYS: Options = {
  help: { alias: 'h', describe: 'Show this help' },
  version: { alias: 'V', describe: 'Show the version' },
};

/** Options of every command for people that uses a database or a store. */
export const OUTPUT_OPTIONS = {
  json: { describe: 'One JSON object a line on stdout', more: 'See [JSON](#json).' },
  verbose: { alias: 'v', describe: 'Say more' },
  quiet: {
    alias: 'q',
    describe: 'Say nothing but errors, damage and omissions',
    more: 'It lets through [what is news](jobs.md#what-is-news).',
  },
} as const;

export type OutputArguments = OptionValues<typeof OUTPUT_OPTIONS>;

/** Options of every command that reaches databases, here and on other hosts. */
export const CONNECTION_OPTIONS = {
  port: { alias: 'p', value: 'N', describe: 'SSH port of the remote side' },
  identity: {
    alias: 'i',
    value: 'FILE',
    array: true,
    describe: 'Private key file for SSH',
    more: 'It comes before those of the SSH configuration, and may be given several times.',
  },
  'known-hosts': {
    value: 'FILE',
    array: true,
    describe: 'Files of trusted host keys (default: ~/.ssh/known_hosts and the system’s)',
    more: 'It may be given several times.',
  },
  'accept-new-host-key': {
    describe: 'Trust a host that is not known yet, and write its key to the known hosts',
    more: 'The first known hosts file gets the key. A changed key is still refused. Another port is another host, as for OpenSSH.',
  },
  jump: {
    alias: 'J',
    value: 'HOST,…',
    describe: 'Hosts to go through, as ssh -J: [user@]host[:port], divided by commas',
    more: '`none` is for none.',
  },
  'ssh-config': {
    alias: 'F',
    value: 'FILE',
    describe: 'SSH configuration file, as ssh -F (default: ~/.ssh/config and the system’s); none for none',
  },
  rsh: {
    alias: 'e',
    value: 'COMMAND',
    describe: 'Your own remote shell, such as ssh, instead of the SSH built in (or SQLSYNC_RSH)',
  },
  'remote-exe': { value: 'NAME', default: 'sqlsync', describe: 'Name of sqlsync on the remote side' },
  'busy-timeout': { value: 'T', default: '10', describe: 'Time to wait for locks of other programs' },
  timeout: {
    value: 'T',
    default: '30',
    describe: 'Time of silence after which the other side counts as lost; 0 is for ever',
    more: 'It is ten times as long after the other side said that it opens a database or commits.',
  },
  'connect-timeout': {
    value: 'T',
    describe: 'Time to wait for a login (default: as configured for SSH, or 20)',
    more: 'It also bounds the wait for the first word of sqlsync there, which is `--timeout` otherwise. The time you take to type does not count.',
  },
  'max-time': {
    value: 'T',
    describe: 'Time after which it gives up; what has arrived is kept',
    more: 'The run is ended as by Ctrl-C, and fails with `TIMEOUT` (status 16).',
  },
  bwlimit: {
    value: 'RATE',
    describe:
      'At most so much each way per second, as with rsync: 500 is 500 KiB, 1.5m, 10MB, 0 for no limit',
  },
} as const;

export type CommonArguments = OptionValues<typeof CONNECTION_OPTIONS> & OutputArguments;

export const SYNC_OPTIONS = {
  'dry-run': { alias: 'n', describe: 'Compare only; write nothing' },
  overwrite: {
    describe: 'REPLICA may be a database that sqlsync did not make (its content is lost)',
    more: 'Needed once. It also restores an origin from its replica: `sqlsync copy.db app.db --overwrite`.',
  },
  replace: {
    describe: 'Replace a REPLICA of another page size',
    more: 'It is replaced as a whole, in one transaction.',
  },
  reflink: {
    describe: 'Let a new REPLICA share the blocks of ORIGIN, on btrfs, XFS and the like',
    more: 'See [reflinks](reliability.md#reflinks) for what that costs later. A REPLICA that exists is updated as usual.',
  },
  'follow-links': {
    describe: 'Write REPLICA also through a symbolic link, or under several hard links',
    more: 'A symbolic link stays, and the file that it leads to is written; a file with several names is changed under all of them. Without the option both are refused.',
  },
  retry: {
    value: 'N',
    default: '0',
    describe: 'Try again up to N times if the connection fails; what has arrived is not sent again',
  },
  'max-snapshot': {
    value: 'T',
    describe: 'Hold no snapshot of the origin for longer (30s, 5m); what takes longer is copied in rounds',
  },
  'max-wal-growth': {
    value: 'SIZE',
    describe: 'Begin a new round once the origin’s WAL has grown by so much (64M, 1G)',
    more: 'What is committed until that is noticed, some 50 ms, comes on top.',
  },
  'max-shrink': {
    value: 'N%',
    describe:
      'Refuse where the origin lost more than so many percent of its pages since the last copy (0 to 100)',
    more: 'The error is `ORIGIN_SHRUNK`. Without it there is a warning, also with `-q`, where the origin is empty or lost over 90 %.',
  },
  check: {
    describe: 'Have SQLite check REPLICA after the copy (integrity_check); status 1 where it finds damage',
    more: 'The copy is exact, so the damage is that of the origin.',
  },
  full: {
    describe: 'Compare all pages, also where nothing has touched either side since the last time',
    more: 'That finds what a disk lost by itself. See [The quick check](reliability.md#the-quick-check).',
  },
  'full-every': {
    value: 'T',
    default: '7d',
    describe: 'Time after which a run compares all pages again; 0 is every run',
  },
  compress: {
    choices: ['auto', 'zstd', 'none'],
    default: 'auto',
    describe: 'auto: what is faster, measured while it copies; zstd: always; none: never',
    more: '`auto` always compresses small changes and deltas. Of a large copy it stops compressing whole pages where the line is faster than zstd, and starts again where it is not.',
  },
  hash: {
    choices: ['nh-siphash', 'sha256', 'xxh64'],
    default: 'nh-siphash',
    describe:
      'How pages are compared: sha256 is longer and slower; xxh64 is for origins that no adversary writes',
    more: 'See [security.md](security.md).',
  },
  reader: {
    choices: ['file', 'dbpage'],
    default: 'file',
    describe: 'How pages are read: mostly from the file itself, or all by SQLite (slower)',
  },
} as const;

/** Options for cron and timers. */
export const JOB_OPTIONS = {
  'lock-wait': {
    value: 'T',
    describe: 'Do not overlap with another run of this job: wait up to T for it (30s, 10m, 0), then give up',
  },
  ping: { value: 'URL', describe: 'URL to tell of start, success and failure, as healthchecks.io has them' },
  'metrics-file': {
    value: 'FILE',
    describe: 'File for the metrics of the run, for Prometheus’ node exporter',
  },
} as const;

export type JobArguments = OptionValues<typeof JOB_OPTIONS>;
