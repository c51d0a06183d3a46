/**
 * The folders that each folder of the sources may import, types counted; `npm run check:lint` compares. A
 * folder may import only the folders in its list. Imports go from the bottom of the table to its top, so that
 * there is no circle.
 */
import { existsSync, readdirSync, readFileSync, realpathSync } from 'node:fs';
import { basename, dirname, join, posix, sep } from 'node:path';

/** Beside its own modules each folder may import `src/errors.ts`. */
export const LAYERS: Readonly<Record<string, readonly string[]>> = {
  // Pure: it turns bytes into messages.
  protocol: [],
  // Facts about files from the system: names, owners, mounts, hosts.
  'src/files': [],

  // SQLite.
  'src/sqlite': ['src/files'],
  'src/sqlite/locks': ['src/sqlite', 'src/files'],
  'src/sqlite/writer': ['src/sqlite'],
  'src/sqlite/dump': ['src/sqlite'],
  'src/sqlite/integrity': ['src/sqlite', 'src/sqlite/dump'],

  // Pages: arithmetic, hashes, deltas, reading. Not who copies them, or how.
  'src/pages': ['src/sqlite', 'src/sqlite/locks', 'src/files', 'protocol'],
  // The files beside a database: marks, leftovers, locks.
  'src/beside': ['src/pages', 'src/sqlite', 'src/sqlite/locks', 'src/files'],
  'src/origin': ['src/beside', 'src/pages', 'src/sqlite', 'src/sqlite/locks', 'src/files', 'protocol'],
  'src/replica/spool': ['src/beside', 'src/pages', 'src/sqlite/locks', 'src/files'],
  'src/replica/existing': [
    'src/replica/spool',
    'src/beside',
    'src/pages',
    'src/sqlite',
    'src/sqlite/locks',
    'src/sqlite/writer',
  ],
  'src/replica/new': ['src/beside', 'src/pages', 'src/sqlite', 'src/sqlite/locks', 'src/files'],
  'src/replica': [
    'src/replica/new',
    'src/replica/existing',
    'src/beside',
    'src/pages',
    'src/sqlite',
    'src/sqlite/locks',
    'src/sqlite/writer',
    'src/files',
  ],

  // The queue of processes that write, which also tells what they do.
  'src/pool/admission': ['src/sqlite/locks', 'src/files'],

  // What `sqlsync doctor` finds: facts as plain data, who collects them, and who judges them.
  'src/doctor': [],
  'src/doctor/watch': [],
  'src/doctor/collect': [
    'src/doctor',
    'src/doctor/watch',
    'src/pool/admission',
    'src/origin',
    'src/pages',
    'src/sqlite/integrity',
    'src/sqlite/locks',
    'src/files',
  ],
  'src/doctor/judge': ['src/doctor'],

  // Carries bytes from one side to the other: knows neither pages nor databases, nor who syncs.
  'src/transport': ['src/files'],
  'src/transport/ssh': ['src/transport'],

  'src/sync': [],
  // One connection: frames, signs of life, how the far agent is started.
  'src/sync/link': ['src/sync', 'src/transport', 'src/transport/ssh', 'protocol'],
  // What a copy is asked to do, what it may do, and what its user hears of it.
  'src/sync/request': ['src/pages', 'src/files', 'protocol'],
  // What sqlsync remembers of both sides of a copy.
  'src/sync/quick': ['src/pages', 'src/files', 'protocol'],
  // A folder of databases: which of its files count, and which are as an earlier run left them.
  'src/sync/folder': [
    'src/sync/quick',
    'src/beside',
    'src/pages',
    'src/sqlite',
    'src/sqlite/locks',
    'src/files',
  ],
  'src/sync/agents': [
    'src/sync/folder',
    'src/sync/request',
    'src/sync/quick',
    'src/sync/link',
    'src/doctor',
    'src/doctor/collect',
    'src/pool/admission',
    'src/replica',
    'src/replica/existing',
    'src/replica/spool',
    'src/origin',
    'src/beside',
    'src/pages',
    'src/sqlite/integrity',
    'src/sqlite/locks',
    'src/transport',
    'src/files',
    'protocol',
  ],
  // A copy without a second agent.
  'src/sync/local': [
    'src/sync/request',
    'src/sync/agents',
    'src/replica',
    'src/replica/spool',
    'src/pages',
    'protocol',
  ],
  // A copy that goes into a stream.
  'src/sync/stream': ['src/sync/local', 'src/sync/agents', 'src/pages', 'protocol'],
  // Runs, from start to result.
  'src/sync/runs': [
    'src/sync/folder',
    'src/sync/request',
    'src/sync/local',
    'src/sync/stream',
    'src/sync/agents',
    'src/sync/quick',
    'src/sync/link',
    'src/beside',
    'src/doctor',
    'src/doctor/collect',
    'src/doctor/watch',
    'src/pages',
    'src/transport',
    'src/files',
    'protocol',
  ],
  // sqlsync itself on another host: brought there, brought up to date, removed.
  'src/sync/install': ['src/sync', 'src/sync/request', 'src/sync/runs', 'src/sync/link', 'src/transport'],

  // A run that does not end: one sync after another on one connection.
  'src/sync/follow': ['src/sync/runs', 'src/sync/agents', 'src/sync/quick', 'src/sync/link', 'protocol'],

  // The backup store, from its bytes to the commands on it.
  'src/backup/backends': ['src/beside', 'src/transport', 'src/files'],
  // Stores elsewhere: reading ahead in a thread, connections.
  'src/backup/backends/remote': ['src/backup/backends', 'src/sqlite'],
  'src/backup/backends/s3': ['src/backup/backends', 'src/backup/backends/remote'],
  'src/backup/backends/sftp': [
    'src/backup/backends',
    'src/backup/backends/remote',
    'src/transport',
    'src/transport/ssh',
  ],
  // A sqlsync on the host of the store, from both ends.
  'src/backup/backends/agent': [
    'src/backup/backends',
    'src/backup/backends/remote',
    'src/sync/link',
    'src/sync/request',
    'src/transport',
    'protocol',
  ],
  'src/backup/packs': ['src/pages', 'protocol'],
  'src/backup/sealed': [],
  // Passwords, the master key behind them, and what this host remembers of stores.
  'src/backup/keys': [
    'src/backup/sealed',
    'src/backup/packs',
    'src/backup/backends',
    'src/sqlite/locks',
    'src/files',
  ],
  'src/backup/objects': [
    'src/backup/sealed',
    'src/backup/packs',
    'src/backup/backends',
    'src/pages',
    'src/sqlite',
    'protocol',
  ],
  'src/backup/files': [
    'src/backup/keys',
    'src/backup/sealed',
    'src/backup/objects',
    'src/backup/packs',
    'src/backup/backends',
    'src/pages',
  ],
  'src/backup/snapshots': [
    'src/backup/files',
    'src/backup/objects',
    'src/backup/packs',
    'src/sync/agents',
    'src/beside',
    'src/pages',
    'src/sqlite',
  ],
  // The states between two snapshots that a follower adds.
  'src/backup/steps': [
    'src/backup/sealed',
    'src/backup/snapshots',
    'src/backup/files',
    'src/backup/objects',
    'src/backup/packs',
    'src/backup/backends',
    'src/pages',
  ],
  'src/backup/prune': [
    'src/backup/steps',
    'src/backup/snapshots',
    'src/backup/files',
    'src/backup/objects',
    'src/backup/packs',
    'src/backup/backends',
  ],
  'src/backup/check': [
    'src/backup/steps',
    'src/backup/prune',
    'src/backup/snapshots',
    'src/backup/files',
    'src/backup/objects',
    'src/backup/packs',
    'src/backup/backends',
  ],
  'src/backup/copy': [
    'src/backup/sealed',
    'src/backup/backends',
    'src/sync/request',
    'src/backup/prune',
    'src/backup/snapshots',
    'src/backup/files',
    'src/backup/objects',
    'src/backup/packs',
    'src/sync',
    'src/sync/runs',
    'src/sync/agents',
    'src/sync/link',
    'src/pages',
    'src/sqlite/integrity',
    'src/transport',
    'src/files',
    'protocol',
  ],
  'src/backup/restore': [
    'src/backup/steps',
    'src/sync/stream',
    'src/sync/request',
    'src/backup/check',
    'src/backup/copy',
    'src/backup/snapshots',
    'src/backup/files',
    'src/sync/runs',
    'src/sync/local',
    'src/sync/agents',
    'src/sync/link',
    'src/replica',
    'src/replica/new',
    'src/beside',
    'src/pages',
    'src/sqlite',
    'src/transport',
    'src/files',
    'protocol',
  ],
  'src/backup/repair': [
    'src/backup/keys',
    'src/backup/sealed',
    'src/backup/check',
    'src/backup/copy',
    'src/backup/prune',
    'src/backup/snapshots',
    'src/backup/files',
    'src/backup/objects',
    'src/backup/packs',
    'src/backup/backends',
  ],
  // A run that does not end, into a store.
  'src/backup/follow': [
    'src/backup/steps',
    'src/backup/copy',
    'src/backup/files',
    'src/backup/packs',
    'src/sync/follow',
    'src/sync/runs',
    'src/sync/agents',
    'src/sync/quick',
    'src/sync/request',
    'src/sync/link',
    'src/pages',
    'src/transport',
    'protocol',
  ],
  'src/backup': [
    'src/backup/steps',
    'src/backup/keys',
    'src/backup/backends/agent',
    'src/backup/backends/sftp',
    'src/backup/check',
    'src/backup/copy',
    'src/backup/repair',
    'src/backup/prune',
    'src/backup/snapshots',
    'src/backup/files',
    'src/backup/backends',
    'src/backup/backends/s3',
    'src/sync/runs',
    'src/files',
    'protocol',
  ],

  // The pools stand alone on SQLite.
  'src/pool/sql': ['src/sqlite'],
  'src/pool/bulk': ['src/pool/sql'],
  'src/pool/read': ['src/pool/sql', 'src/sqlite'],
  'src/pool/write': ['src/pool/sql', 'src/pool/admission', 'src/pool/bulk', 'src/sqlite', 'src/sqlite/locks'],
  'src/pool': [
    'src/doctor',
    'src/sync',
    'src/transport',
    'src/pool/sql',
    'src/pool/read',
    'src/pool/write',
    'src/pool/admission',
    'src/sqlite',
    'src/sqlite/locks',
    'src/files',
  ],

  // The users of the pools.
  'src/library': [
    'src/backup/keys',
    'src/backup/backends',
    'src/sync/request',
    'src/backup',
    'src/backup/copy',
    'src/backup/follow',
    'src/backup/restore',
    'src/sync',
    'src/sync/runs',
    'src/sync/follow',
    'src/sync/agents',
    'src/transport',
  ],

  // The command, from its output to its runs; src/cli itself starts them.
  'src/cli/terminal': ['src/sync/request', 'src/sync/agents'],
  'src/cli/options': ['src/sync/request', 'src/cli/terminal', 'src/sync/link'],
  'src/cli/job': [
    'src/sync/stream',
    'src/cli/options',
    'src/cli/terminal',
    'src/sqlite/locks',
    'src/sync',
    'src/transport',
    'src/files',
  ],
  'src/cli/store': [
    'src/backup/keys',
    'src/backup/backends/sftp',
    'src/backup/backends/remote',
    'src/backup/backends',
    'src/cli/job',
    'src/cli/options',
    'src/cli/terminal',
    'src/backup',
    'src/backup/backends/s3',
    'src/backup/files',
    'src/backup/prune',
    'src/backup/snapshots',
    'src/files',
    'src/transport',
  ],
  'src/cli/folder': ['src/cli/job', 'src/cli/options', 'src/cli/terminal', 'src/sync/runs'],
  'src/cli/doctor': [
    'src/doctor',
    'src/doctor/judge',
    'src/doctor/watch',
    'src/sync/runs',
    'src/cli/terminal',
  ],
  // What a database looked like at each snapshot, as pages for people; collect/ reads it.
  'src/report': ['src/cli/terminal'],
  'src/report/collect': [
    'src/report',
    'src/backup/backends',
    'src/cli/terminal',
    'src/origin',
    'src/sqlite',
    'src/sync/runs',
    'src/transport',
  ],
  'src/cli/setup': ['src/cli/terminal', 'src/sync/install', 'src/sync/request', 'src/transport'],
  // One service for many copies: its file, its jobs, what it remembers, and the process itself.
  'src/service/state': ['src/files'],
  'src/service/config': [
    'src/service/state',
    'src/cli/store',
    'src/cli/job',
    'src/cli/options',
    'src/backup/backends',
    'src/transport',
  ],
  'src/service/jobs': [
    'src/service/config',
    'src/service/state',
    'src/cli/store',
    'src/cli/options',
    'src/cli/terminal',
    'src/sqlite/integrity',
    'src/sync',
    'src/transport',
    'src/files',
  ],
  'src/service/http': ['src/report', 'src/service/state', 'src/cli/terminal', 'src/transport'],
  'src/service/run': [
    'src/report',
    'src/pages',
    'src/transport',
    'src/service/jobs',
    'src/service/config',
    'src/service/state',
    'src/library',
    'src/cli/job',
    'src/cli/options',
    'src/sync/follow',
    'src/sqlite/locks',
    'src/files',
  ],
  'src/cli/commands': [
    'src/report',
    'src/report/collect',
    'src/service/run',
    'src/service/http',
    'src/service/jobs',
    'src/service/config',
    'src/service/state',
    'src/cli/doctor',
    'src/cli/folder',
    'src/cli/setup',
    'src/doctor/judge',
    'src/backup/backends',
    'src/backup/backends/agent',
    'src/backup/keys',
    'src/backup/files',
    'src/sync/request',
    'src/sync/follow',
    'src/cli/store',
    'src/cli/job',
    'src/cli/options',
    'src/cli/terminal',
    'src/backup',
    'src/backup/copy',
    'src/backup/follow',
    'src/backup/prune',
    'src/backup/restore',
    'src/backup/snapshots',
    'src/sqlite',
    'src/sqlite/dump',
    'src/sync/agents',
    'src/sync/link',
    'src/sync/runs',
    'src/transport',
  ],
};

/**
 * Modules beside the rooms of a folder that the rooms import, though the folder imports its rooms: types and errors,
 * which import none of them.
 */
export const SHARED: readonly string[] = [
  'src/backup/open-store.ts',
  'src/backup/options.ts',
  'src/backup/store-error.ts',
  'src/backup/types.ts',
  'src/pool/call-options.ts',
  'src/pool/event-loop.ts',
  'src/pool/failure-counts.ts',
  'src/pool/pool-errors.ts',
  'src/pool/retry.ts',
  'src/pool/settings.ts',
  'src/pool/stats.ts',
  'src/pool/types.ts',
  'src/pool/wal-care.ts',
  'src/replica/free-space.ts',
  'src/replica/replica-error.ts',
  'src/replica/replica-links.ts',
];

/**
 * The modules that use all the rest, and that none of it imports: the entries of the library, the command,
 * the release. Each may import those before it.
 */
const TOPS = ['src', 'src/cli', 'src/release'];

/** Every breach of the table in the sources below `root`, a sentence each. Pure but for reading. */
export function findViolations(root: string): string[] {
  const files = ['src', 'protocol'].flatMap((top) => sourcesOf(root, top));
  return [...files.flatMap((file) => violationsOf(root, file)), ...circlesOf()];
}

function sourcesOf(root: string, top: string): string[] {
  if (!existsSync(join(root, top))) return [];
  return readdirSync(join(root, top), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => [top, ...name.split(sep)].join('/'));
}

function violationsOf(root: string, file: string): string[] {
  const folder = dirname(file);
  const code = readFileSync(join(root, file), 'utf8');
  const names = code.matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)'(\.[^']+)'/g);
  return [...names].flatMap(([, name]) => {
    const target = posix.normalize(posix.join(folder, name as string));
    const to = dirname(target);
    if (to === folder || target === 'src/errors.ts' || SHARED.includes(target)) return [];
    if (topOf(folder) !== -1 && topOf(to) <= topOf(folder)) return [];
    if (LAYERS[folder]?.includes(to) === true) return [];
    return [`${file} imports ${target}: ${folder}/ may not import ${to}/ (test/layers.ts)`];
  });
}

/** The place in TOPS of a folder that is missing from the table, or of its parent; -1 for all others. */
function topOf(folder: string): number {
  if (Object.hasOwn(LAYERS, folder)) return -1;
  return TOPS.findLastIndex((top) => folder === top || (top !== 'src' && folder.startsWith(`${top}/`)));
}

/** The table itself must have no circle: each folder stands below those that import it. */
function circlesOf(): string[] {
  const folders = Object.keys(LAYERS);
  return folders.flatMap((folder, place) =>
    (LAYERS[folder] ?? [])
      .filter((other) => folders.indexOf(other) >= place || !folders.includes(other))
      .map((other) => `test/layers.ts: ${folder} stands above ${other}, which it imports`),
  );
}

const [, program] = process.argv;
if (program !== undefined && realpathSync(program) === import.meta.filename) {
  const found = findViolations(join(import.meta.dirname, '..'));
  for (const line of found) console.error(line);
  if (found.length > 0) process.exitCode = 1;
  else console.log(`${basename(program)}: imports go one way`);
}
