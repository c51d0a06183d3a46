/** A configuration that is wrong: its text, and for each fault the line, the column, what was found and what is expected. */
export interface WrongConfig {
  readonly what: string;
  readonly text: string;
  readonly faults: readonly (readonly [line: number, column: number, found: RegExp, expected: RegExp])[];
}

const HEAD = 'databases:\n  - path: /srv/a.db\n    schedule: 15m\n    targets:\n';
const TARGET = `${HEAD}      - replica: /copy/a.db\n`;
const STORE = `${HEAD}      - store: /srv/store\n`;

/** One field more of the target, in line 6. */
function replica(field: string): string {
  return `${TARGET}        ${field}\n`;
}

function store(field: string): string {
  return `${STORE}        ${field}\n`;
}

function one(
  what: string,
  text: string,
  line: number,
  column: number,
  found: RegExp,
  expected: RegExp,
): WrongConfig {
  return { what, text, faults: [[line, column, found, expected]] };
}

const TIME = /a time such as 15m.*cron expression.*follow/;

export const WRONG_CONFIGS: readonly WrongConfig[] = [
  one('an empty file', '', 1, 1, /nothing/, /a group of databases/),
  one('a list in the place of the file', '- a\n', 1, 1, /a list/, /a group of databases/),
  one('no databases', 'concurrency: 2\n', 1, 1, /no databases/, /a list of databases/),
  one('an empty list of databases', 'databases: []\n', 1, 12, /an empty list/, /a list of databases/),
  one('databases that are no list', 'databases: /srv/a.db\n', 1, 12, /"\/srv\/a\.db"/, /a list of databases/),
  one(
    'a database that is no group',
    'databases:\n  - /srv/a.db\n',
    2,
    5,
    /"\/srv\/a\.db"/,
    /a group of fields/,
  ),
  one('a database without targets', 'databases:\n  - path: /a.db\n', 2, 5, /no targets/, /a list of targets/),
  one('an empty list of targets', `${HEAD.trimEnd()} []\n`, 4, 14, /an empty list/, /a list of targets/),
  one('an unknown field', `${TARGET}concurency: 2\n`, 6, 1, /"concurency"/, /one of databases, concurrency/),
  one(
    'an unknown field of a target',
    replica('shedule: 15m'),
    6,
    9,
    /"shedule"/,
    /one of replica, store, schedule/,
  ),
  one(
    'a password in the file',
    store('password: hunter2'),
    6,
    9,
    /"password"/,
    /a secret in a file or from a command/,
  ),
  one('a field twice', `${TARGET}concurrency: 2\nconcurrency: 3\n`, 7, 1, /unique/, /YAML/),
  one('a tab as indentation', 'databases:\n\t- path: /a.db\n', 2, 1, /[Tt]ab/, /YAML/),
  one('a bracket that is not closed', 'databases: [\n', 2, 1, /flow|end/i, /YAML/),
  one('a quote that is not closed', 'databases: "a\n', 2, 1, /quote/, /YAML/),
  one('two documents', `${TARGET}---\na: 1\n`, 6, 1, /multiple documents/i, /YAML/),
  one('an unknown tag', 'databases: !set x\n', 1, 12, /!set/, /YAML/),
  one(
    'a state folder with a variable',
    `${TARGET}state: \${HOME}/state\n`,
    6,
    8,
    /HOME/,
    /a path, without variables/,
  ),
  one(
    'a replica in the folder of its databases',
    'databases:\n  - path: /srv/*.db\n    schedule: 15m\n    targets:\n      - replica: /srv/copy-{name}\n',
    5,
    18,
    /copy-/,
    /in another folder than its database/,
  ),
  one(
    'no path',
    'databases:\n  - schedule: 15m\n    targets: [{ replica: /c.db }]\n',
    2,
    5,
    /neither path nor folder/,
    /one of path and folder/,
  ),
  one('path and folder', `${TARGET}    folder: /srv\n`, 6, 13, /path and folder/, /one of path and folder/),
  one(
    'a pattern without a folder',
    `${TARGET}    pattern: '*.db'\n`,
    6,
    14,
    /"\*\.db"/,
    /only beside a folder/,
  ),
  one(
    'a pattern with a slash',
    "databases:\n  - folder: /srv\n    pattern: 'a/*.db'\n    schedule: 15m\n    targets: [{ replica: '/c/{name}' }]\n",
    3,
    14,
    /"a\/\*\.db"/,
    /without a slash/,
  ),
  one(
    'a pattern on another host',
    TARGET.replace('/srv/a.db', "'db1:/srv/*.db'"),
    2,
    11,
    /"db1:\/srv\/\*\.db"/,
    /databases of this host/,
  ),
  one(
    'a target with nothing',
    `${HEAD}      - hooks: {}\n`,
    5,
    9,
    /neither replica nor store/,
    /one of replica and store/,
  ),
  one(
    'a target with both',
    replica('store: /srv/store'),
    6,
    16,
    /replica and store/,
    /one of replica and store/,
  ),
  one(
    'no schedule',
    TARGET.replace('    schedule: 15m\n', ''),
    4,
    9,
    /no schedule/,
    /a schedule of the target or of its database/,
  ),
  one('a schedule that is no time', TARGET.replace('15m', '15 minits'), 3, 15, /"15 minits"/, TIME),
  one('a schedule of less than a second', TARGET.replace('15m', '500ms'), 3, 15, /"500ms"/, TIME),
  one('a schedule of more than a week', TARGET.replace('15m', '8d'), 3, 15, /"8d"/, TIME),
  one(
    'a cron expression with an hour that is none',
    TARGET.replace('15m', "'0 25 * * *'"),
    3,
    15,
    /"0 25 \* \* \*"/,
    TIME,
  ),
  one(
    'a cron expression that never comes',
    TARGET.replace('15m', "'0 0 31 2 *'"),
    3,
    15,
    /"0 0 31 2 \*"/,
    TIME,
  ),
  one('a cron expression with four fields', TARGET.replace('15m', "'0 3 * *'"), 3, 15, /"0 3 \* \*"/, TIME),
  one('a schedule that is a list', TARGET.replace('15m', '[15m]'), 3, 15, /a list/, TIME),
  one('a store that follows', STORE.replace('15m', 'follow'), 5, 9, /follow/, /only a replica follows/),
  one('keep of a replica', replica('keep: { daily: 7 }'), 6, 15, /keep of a replica/, /only for a store/),
  one('an empty policy', store('keep: {}'), 6, 15, /an empty policy/, /what to keep/),
  one(
    'a policy with a word',
    store('keep: { daily: many }'),
    6,
    24,
    /"many"/,
    /a whole number, or unlimited/,
  ),
  one('a policy that keeps none', store('keep: { last: 0 }'), 6, 23, /0/, /a whole number, or unlimited/),
  one('prune that is a word', store('prune: sometimes'), 6, 16, /"sometimes"/, /true or false/),
  one(
    'verify that is a word',
    replica('verify: fortnightly'),
    6,
    17,
    /"fortnightly"/,
    /daily, weekly, monthly/,
  ),
  one(
    'two passwords',
    store('password-file: /p\n        password-command: pass'),
    7,
    27,
    /password-file and password-command/,
    /one of them/,
  ),
  one('an option that there is not', replica('options: { fast: true }'), 6, 20, /"fast"/, /one of .*bwlimit/),
  one('an option of another kind', replica('options: { tag: x }'), 6, 25, /tag/, /an option of a replica/),
  one('an option with a wrong value', replica('options: { port: 99999 }'), 6, 26, /99999/, /N as for --port/),
  one(
    'an option with a wrong choice',
    replica('options: { compress: gzip }'),
    6,
    30,
    /"gzip"/,
    /auto, zstd, none/,
  ),
  one(
    'a replica without {name}',
    TARGET.replace('/srv/a.db', "'/srv/*.db'"),
    5,
    18,
    /"\/copy\/a\.db"/,
    /\{name\}/,
  ),
  one(
    'a replica of another host for a database of another host',
    TARGET.replace('/srv/a.db', 'db1:/a.db').replace('/copy/a.db', 'db2:/a.db'),
    5,
    18,
    /"db2:\/a\.db"/,
    /a path of this host/,
  ),
  one(
    'a replica that is its database',
    TARGET.replace('/copy/a.db', '/srv/a.db'),
    5,
    18,
    /"\/srv\/a\.db"/,
    /another place/,
  ),
  one(
    'a replica twice',
    `${TARGET}      - replica: /copy/a.db\n`,
    6,
    18,
    /"\/copy\/a\.db"/,
    /no other target/,
  ),
  one(
    'a store at an address that means nothing',
    STORE.replace('/srv/store', 'ftp://db1/store'),
    5,
    16,
    /"ftp:\/\/db1\/store"/,
    /\[user@\]host:path, s3:… or sftp:…/,
  ),
  one(
    'a ping that is no URL',
    replica('ping: hc-ping.com/abc'),
    6,
    15,
    /"hc-ping\.com\/abc"/,
    /http:\/\/ or https:\/\//,
  ),
  one(
    'a file of a ping that is not there',
    replica('ping-file: /no/such/file'),
    6,
    20,
    /"\/no\/such\/file"/,
    /a file that can be read/,
  ),
  one('a hook that there is not', replica('hooks: { later: x }'), 6, 18, /"later"/, /before, after, failure/),
  one('a hook that is empty', replica("hooks: { before: '' }"), 6, 26, /""/, /a shell command/),
  one('too many at a time', `${TARGET}concurrency: 1000\n`, 6, 14, /1000/, /a whole number from 1 to 64/),
  one(
    'a variable that is not set',
    TARGET.replace('/copy/a.db', '${SQLSYNC_TEST_UNSET}/a.db'),
    5,
    18,
    /\$\{SQLSYNC_TEST_UNSET\}/,
    /a variable that is set/,
  ),
  one(
    'a variable without a name',
    TARGET.replace('/copy/a.db', "'${}/a.db'"),
    5,
    18,
    /\$\{\}/,
    /the name of a variable/,
  ),
  {
    what: 'three faults at once',
    text: `${TARGET.replace('15m', 'never')}concurrency: 0\nspread: wide\n`,
    faults: [
      [3, 15, /"never"/, TIME],
      [6, 14, /0/, /a whole number from 1 to 64/],
      [7, 9, /"wide"/, /a time such as 1m/],
    ],
  },
];
