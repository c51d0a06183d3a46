import { copyOptionsOf, remoteOptionsOf } from '../../cli/options/common-options.ts';
import { camelCase, isSwitch } from '../../cli/options/command.ts';
import type { Options } from '../../cli/options/command.ts';
import { CONNECTION_OPTIONS, SYNC_OPTIONS } from '../../cli/options/options.ts';
import { parseDuration, parseWholeNumber } from '../../cli/options/quantities.ts';
import { parsePingUrl } from '../../cli/job/ping.ts';
import { KEEP_OPTIONS, policyOf } from '../../cli/store/keep-policy.ts';
import { parseSchedule } from './schedule.ts';
import type { Schedule } from './schedule.ts';
import { group, list, text, YES_OR_NO } from './shapes.ts';
import type { Shape } from './shapes.ts';

/** What a database says for all of its targets, and a target for itself. Times are in milliseconds. */
export interface RawShared {
  readonly schedule: Schedule | undefined;
  readonly verify: number | undefined;
  readonly 'late-after': number | undefined;
  readonly hooks: Hooks | undefined;
  readonly ping: URL | undefined;
  readonly 'ping-file': string | undefined;
}

export interface RawTarget extends RawShared {
  readonly replica: string | undefined;
  readonly store: string | undefined;
  readonly keep: Readonly<Record<string, string | readonly string[] | undefined>> | undefined;
  readonly prune: boolean | undefined;
  readonly 'password-file': string | undefined;
  readonly 'password-command': string | undefined;
  readonly options: Readonly<Record<string, OptionValue | undefined>> | undefined;
}

export interface RawDatabase extends RawShared {
  readonly path: string | undefined;
  readonly folder: string | undefined;
  readonly pattern: string | undefined;
  readonly targets: readonly RawTarget[] | undefined;
}

/** The file as it is written. */
export interface RawConfig {
  readonly databases: readonly RawDatabase[] | undefined;
  readonly concurrency: number | undefined;
  readonly spread: number | undefined;
  readonly scan: number | undefined;
  readonly state: string | undefined;
}

/** Shell commands around a copy. */
export interface Hooks {
  readonly before: string | undefined;
  readonly after: string | undefined;
  readonly failure: string | undefined;
  /** How long each may take. */
  readonly timeout: number | undefined;
}

export type OptionValue = boolean | string | readonly string[];

const TIME = { type: ['string', 'number'], examples: ['30s', '15m', '2h', '1d'] };

const NAME = text('a name', (given) => (given.trim() === '' ? undefined : given));
const PATH = text('a path', (given) => (given === '' ? undefined : given));
const COMMAND = text('a shell command', (given) => (given.trim() === '' ? undefined : given));

function time(expected: string, mayBeZero = false): Shape<number> {
  return text(expected, (given) => parseDuration('time', given, mayBeZero), TIME);
}

function whole(least: number, most: number): Shape<number> {
  const schema = { type: 'integer', minimum: least, maximum: most };
  return text(
    `a whole number from ${least} to ${most}`,
    (given) => parseWholeNumber('number', given, { least, most, hint: '' }),
    schema,
  );
}

const SCHEDULE: Shape<Schedule> = text(
  'a time such as 15m, of at least a second; a cron expression such as "0 3 * * *"; or follow',
  parseSchedule,
  { type: ['string', 'number'], examples: ['15m', '0 3 * * *', '@daily', 'follow'] },
);

/** How often a copy is restored and checked; longer than other times. */
const VERIFY_MS: Readonly<Record<string, number>> = {
  daily: 86_400_000,
  weekly: 7 * 86_400_000,
  monthly: 30 * 86_400_000,
};

const VERIFY = text(
  'daily, weekly, monthly, or a time such as 12h',
  (given) => VERIFY_MS[given] ?? parseDuration('verify', given),
  { type: ['string', 'number'], examples: Object.keys(VERIFY_MS) },
);

const PING: Shape<URL> = text('a URL that begins with http:// or https://', (given) => parsePingUrl(given), {
  type: 'string',
  format: 'uri',
});

const HOOKS = group(
  { before: COMMAND, after: COMMAND, failure: COMMAND, timeout: time('a time such as 10m') },
  {
    timeout: 'How long a hook may take until it is ended (1h); that of a failure a minute at most',
    before: 'Shell command before each copy; if it fails, no copy is made, and the run has failed',
    after: 'Shell command after each copy that succeeded',
    failure: 'Shell command after each run that failed',
  },
);

const counts = text('a whole number, or unlimited', (given) =>
  policyOf({ keepLast: given }) === undefined ? undefined : given,
);
const span = text('a span such as 1y5m7d2h', (given) =>
  policyOf({ keepWithin: given }) === undefined ? undefined : given,
);

/** `keep-daily` is `daily`. */
const KEEP_FIELDS = Object.fromEntries(
  Object.entries(KEEP_OPTIONS)
    .filter(([name]) => name !== 'group-by')
    .map(([name, option]) => [
      name.slice('keep-'.length),
      'array' in option
        ? list('a list of tags', NAME, { single: true })
        : option.value === 'N'
          ? counts
          : span,
    ]),
) as Readonly<Record<string, Shape<string | readonly string[]>>>;

const KEEP = group(
  KEEP_FIELDS,
  Object.fromEntries(
    Object.keys(KEEP_FIELDS).map((name) => [
      name,
      KEEP_OPTIONS[`keep-${name}` as keyof typeof KEEP_OPTIONS].describe,
    ]),
  ),
);

const { 'dry-run': _dryRun, ...COPYING } = SYNC_OPTIONS;
const { 'max-time': maxTime, ...CONNECTION } = CONNECTION_OPTIONS;
const {
  overwrite,
  'follow-links': followLinks,
  'max-shrink': maxShrink,
  compress,
  hash,
  reader,
} = SYNC_OPTIONS;

/** The options that each kind of target may have, as on the command line. */
export const TARGET_OPTIONS: Readonly<Record<'replica' | 'follow' | 'store', Options>> = {
  replica: { ...COPYING, ...CONNECTION, 'max-time': maxTime },
  follow: {
    interval: { value: 'T', describe: 'How often to look for changes' },
    'full-every': SYNC_OPTIONS['full-every'],
    overwrite,
    'follow-links': followLinks,
    'max-shrink': maxShrink,
    compress,
    hash,
    reader,
    ...CONNECTION,
  },
  store: {
    tag: { array: true, value: 'TAG', describe: 'Tags of the new snapshots' },
    host: { value: 'NAME', describe: 'Host that the snapshots are said to be of' },
    'no-cache': { describe: 'Keep nothing in the cache folder' },
    'skip-if-unchanged': { describe: 'Make no snapshot of a database that has not changed' },
    'max-shrink': maxShrink,
    'copy-to': { array: true, value: 'STORE', describe: 'Copy the new snapshots to these stores, too' },
    compress,
    hash,
    'accept-new-store': { describe: 'Accept another store than the encrypted one that was here' },
    ...CONNECTION,
    'max-time': maxTime,
  },
};

const ALL_OPTIONS: Options = { ...TARGET_OPTIONS.store, ...TARGET_OPTIONS.follow, ...TARGET_OPTIONS.replica };

const OPTIONS = group(
  Object.fromEntries(Object.entries(ALL_OPTIONS).map(([name, option]) => [name, optionShape(name, option)])),
  Object.fromEntries(Object.entries(ALL_OPTIONS).map(([name, { describe }]) => [name, describe])),
);

function optionShape(name: string, option: Options[string]): Shape<OptionValue> {
  if (isSwitch(option)) return YES_OR_NO;
  const expected =
    option.choices === undefined ? `${option.value} as for --${name}` : option.choices.join(', ');
  const one = text(expected, (given) => (isOptionValue(name, option, given) ? given : undefined));
  return option.array === true ? list(`a list of ${expected}`, one, { single: true }) : one;
}

/** As the command itself reads it. */
function isOptionValue(name: string, option: Options[string], given: string): boolean {
  if (option.choices !== undefined) return option.choices.includes(given);
  if (given === '') return false;
  const value = { [camelCase(name)]: option.array === true ? [given] : given };
  if (name === 'interval') parseDuration('interval', given);
  if (name === 'retry') parseWholeNumber('retry', given, { least: 0, most: 1_000_000, hint: '' });
  if (Object.hasOwn(CONNECTION_OPTIONS, name))
    remoteOptionsOf({ ...REMOTE_DEFAULTS, ...value } as unknown as Parameters<typeof remoteOptionsOf>[0]);
  else copyOptionsOf(value);
  return true;
}

/** What the parsers of the command line expect to be there. */
export const REMOTE_DEFAULTS: Readonly<Record<'busyTimeout' | 'timeout' | 'remoteExe', string>> = {
  busyTimeout: '10',
  timeout: '30',
  remoteExe: 'sqlsync',
};

const SHARED = {
  schedule: SCHEDULE,
  verify: VERIFY,
  'late-after': time('a time such as 5m'),
  hooks: HOOKS,
  ping: PING,
  'ping-file': PATH,
} as const;

const SHARED_DESCRIBED = {
  schedule: 'How often: a time between two copies, a cron expression, or follow (replicas only)',
  verify: 'How often the newest copy is restored to a temporary file and checked by SQLite',
  'late-after': 'How long after its moment a copy that is not there counts as late',
  hooks: 'Commands around each copy',
  ping: 'URL to tell of start, success and failure, as healthchecks.io has them',
  'ping-file': 'File whose one line is that URL, which is a secret',
} as const;

const TARGET: Shape<RawTarget> = group(
  {
    replica: text('a path or [user@]host:path', (given) => given || undefined),
    store: text('the folder of a store, [user@]host:path, s3:… or sftp:…', (given) => given || undefined),
    ...SHARED,
    keep: KEEP,
    prune: YES_OR_NO,
    'password-file': PATH,
    'password-command': COMMAND,
    options: OPTIONS,
  },
  {
    replica: 'Database that becomes a copy; {name} is the name of the origin’s file',
    store: 'Backup store that gets a snapshot',
    ...SHARED_DESCRIBED,
    keep: 'Which snapshots are kept; the others are forgotten after each backup',
    prune: 'Then remove from the store what no snapshot needs',
    'password-file': 'File with the password of the encrypted store',
    'password-command': 'Shell command that prints the password of the encrypted store',
    options: 'Further options, as on the command line and without dashes',
  },
);

const DATABASE: Shape<RawDatabase> = group(
  {
    path: text('a path, a pattern or [user@]host:path', (given) => given || undefined),
    folder: PATH,
    pattern: NAME,
    ...SHARED,
    targets: list('a list of targets, each with a replica or a store', TARGET),
  },
  {
    path: 'The database: a path, [user@]host:path, or a pattern for several of this host',
    folder: 'A folder that is watched: each database in it, also one that appears later',
    pattern: 'Which files of the folder; all databases without it',
    ...SHARED_DESCRIBED,
    targets: 'Where it is copied to',
  },
  ['targets'],
);

/** `sqlsync status` looks for it in another environment than that of the service. */
export const STATE: Shape<string> = text(
  'a path, without variables',
  (given) => given || undefined,
  { type: 'string' },
  { hasVariables: false },
);

export const CONFIG: Shape<RawConfig> = group(
  {
    databases: list('a list of databases', DATABASE),
    concurrency: whole(1, 64),
    spread: time('a time such as 1m, or 0', true),
    scan: time('a time such as 10s'),
    state: STATE,
  },
  {
    databases: 'What is copied',
    concurrency: 'How many copies run at a time (2); those that follow are not counted',
    spread: 'Over how long copies of one moment of a cron expression are spread (1m)',
    scan: 'How often patterns and watched folders are looked through (10s)',
    state: 'Folder for what the service remembers; one for each file in the user’s state folder without it',
  },
  ['databases'],
);

/** For editors: the JSON Schema of the file. */
export function jsonSchema(): object {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'The configuration of sqlsync run',
    ...CONFIG.schema,
  };
}
