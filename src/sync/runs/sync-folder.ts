import { existsSync, rmSync } from 'node:fs';
import { join, posix, resolve } from 'node:path';
import { message } from '../../../protocol/encode.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { besideReplica, filesBeside, readOwnMark } from '../../beside/mark.ts';
import { realPath } from '../../files/path-names.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import { FilterRules } from '../folder/filter-rules.ts';
import type { FilterOptions } from '../folder/filter-rules.ts';
import { folderPattern } from '../folder/folder-pattern.ts';
import { isPlainPath, listDatabases, MAX_SHOWN_PATH } from '../folder/list-databases.ts';
import type { FolderList, Omitted } from '../folder/list-databases.ts';
import { OrderedReports } from '../folder/ordered-reports.ts';
import { unpackStamps } from '../folder/stamp-list.ts';
import type { Connection } from '../link/connection.ts';
import type { SshLocation } from '../link/start-agent.ts';
import { DEFAULT_IDLE_TIMEOUT_MS } from './run-options.ts';
import { copyRequest } from '../request/copy-request.ts';
import { maySkip, unknownHere, unknownThere } from './recognize.ts';
import type { PlacedPair, Recognition } from './recognize.ts';
import { SharedLink } from './lanes.ts';
import type { Task } from './lanes.ts';
import { copyTask, syncHere } from './sync-many.ts';
import type { ManyListeners, ManyOptions, Pair } from './sync-many.ts';

export interface FolderOptions extends ManyOptions, FilterOptions {
  /** Folders: a path, or [user@]host:path; one of the two is local. The origin may end in a pattern such as `/srv/*.db`. */
  readonly origin: string;
  readonly replica: string;
  /** True to delete replicas that have no origin any more. The replicas have to be on this host. */
  readonly deletes?: boolean | undefined;
}

export interface FolderListeners extends ManyListeners {
  /** The databases that are copied from now on. */
  onListed(pairs: readonly Pair[]): void;
  onOmitted(omitted: Omitted): void;
  /** A replica that has no origin any more was deleted, or would be. */
  onDeleted(path: string): void;
}

export interface FolderTraffic {
  /** Bytes to and from the other host, of all connections. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/**
 * Copies all SQLite databases in a folder to the same places in another folder. All of one host go over one connection.
 * A database that fails does not keep the others from being copied.
 *
 * @throws {SqlsyncError} USAGE, BOTH_REMOTE, ORIGIN_* for the folder, and failures of the link and of this run.
 */
export async function syncFolder(options: FolderOptions, listeners: FolderListeners): Promise<FolderTraffic> {
  const { deletes, include: _include, exclude: _exclude, ...shared } = options;
  const { filters, ...folders } = foldersOf(options);
  check(folders, options);
  const rules = new FilterRules(filters);
  const { origin, replica } = folders;
  const recognition: Recognition = {
    request: copyRequest({ ...shared, compression: shared.compress }),
    origin,
    replica,
    onKnown: (pair, summary) => listeners.onDone(pair, summary),
    onWarning: (text) => shared.onWarning?.(text, 'news'),
  };
  const take = (list: FolderList): PlacedPair[] => {
    for (const each of list.omitted) listeners.onOmitted(each);
    const pairs = list.databases.map((path) => ({
      path,
      origin: within(origin, path),
      replica: within(replica, path),
    }));
    listeners.onListed(pairs);
    return pairs;
  };
  const reports = new OrderedReports();
  const tasksOf = (pairs: readonly Pair[]): Task[] =>
    pairs.map((pair, place) =>
      copyTask(pair, shared, {
        ...listeners,
        onDone: (copied, summary) => reports.add(place, () => listeners.onDone(copied, summary)),
        onFailed: (copied, failure) => reports.add(place, () => listeners.onFailed(copied, failure)),
      }),
    );
  const runTasks = async (far: SshLocation, tasks: Task[]): Promise<FolderTraffic> => {
    const link = new SharedLink(far, shared, listeners);
    try {
      await link.run(tasks);
    } finally {
      reports.flush();
    }
    return link.traffic;
  };
  const skips = maySkip(recognition.request);
  let list: FolderList;
  let traffic: FolderTraffic = { bytesSent: 0, bytesReceived: 0 };
  if (origin.kind === 'ssh') {
    const listed: { list?: FolderList } = {};
    const tasks = [
      listTask(origin, { ...shared, ...filters }, skips, async (found) => {
        listed.list = found;
        const pairs = take(found);
        tasks.push(...tasksOf(skips ? await unknownHere(pairs, recognition, found.stamps) : pairs));
      }),
    ];
    traffic = await runTasks(origin, tasks);
    list = listed.list as FolderList;
  } else {
    list = listDatabases(resolve(origin.path), rules);
    const pairs = take(list);
    if (replica.kind === 'ssh') {
      const tasks = skips
        ? [recognizeTask(pairs, recognition, (rest) => tasks.push(...tasksOf(rest)))]
        : tasksOf(pairs);
      traffic = await runTasks(replica, tasks);
    } else await syncHere(skips ? await unknownHere(pairs, recognition) : pairs, shared, listeners);
  }
  if (deletes === true) deleteOthers(resolve(replica.path), list, rules, options, listeners);
  return traffic;
}

/** The folders, and which names count. An origin with a wildcard that is no folder of this host is a pattern. */
function foldersOf({ origin: from, replica: to, include, exclude }: FolderOptions): {
  readonly origin: Location;
  readonly replica: Location;
  readonly filters: FilterOptions;
} {
  const [origin, replica] = [parseLocation(from), parseLocation(to)];
  const pattern = origin.kind === 'local' && existsSync(origin.path) ? undefined : folderPattern(origin.path);
  if (pattern === undefined) return { origin, replica, filters: { include, exclude } };
  if ((include ?? exclude) !== undefined)
    throw new SqlsyncError('USAGE', 'A pattern in ORIGIN and --include or --exclude exclude each other', {
      hint: 'Name the folder, and give the pattern with --include.',
    });
  return { origin: { ...origin, path: pattern.folder }, replica, filters: pattern.rules };
}

function check(
  { origin, replica }: { readonly origin: Location; readonly replica: Location },
  { deletes }: FolderOptions,
): void {
  if (origin.kind === 'ssh' && replica.kind === 'ssh')
    throw new SqlsyncError('BOTH_REMOTE', 'Both folders are on other hosts; one of them must be local', {
      hint: 'Run sqlsync on one of the two hosts.',
    });
  if (deletes === true && replica.kind === 'ssh')
    throw new SqlsyncError('USAGE', '--delete works only where the replicas are on this host', {
      hint: 'Run sqlsync on that host, and fetch from this one.',
    });
  if (origin.kind !== 'local' || replica.kind !== 'local') return;
  const [from, to] = [realOf(origin.path), realOf(replica.path)];
  if (`${to}/`.startsWith(from === '/' ? from : `${from}/`))
    throw new SqlsyncError('USAGE', 'The folder of the replicas lies in the folder of the databases', {
      hint: 'Each run would copy the copies. Name a folder elsewhere.',
    });
}

/** The real path of a folder, of which the last parts may be missing. */
function realOf(path: string): string {
  const whole = resolve(path);
  try {
    return realPath(whole);
  } catch {
    const folder = resolve(whole, '..');
    return folder === whole ? whole : join(realOf(folder), posix.basename(whole));
  }
}

function within(folder: Location, path: string): string {
  if (folder.kind === 'ssh') return formatLocation({ ...folder, path: posix.join(folder.path, path) });
  return join(resolve(folder.path), path);
}

/** Asks the other side for its databases. */
function listTask(
  { path }: Location,
  { include = [], exclude = [], idleTimeoutMs = DEFAULT_IDLE_TIMEOUT_MS }: ManyOptions & FilterOptions,
  stamps: boolean,
  onListed: (list: StampedList) => Promise<void>,
): Task {
  return {
    state: 'listing',
    async run(connection) {
      const { maxTimeMs } = connection;
      const patterns = { include: [...include], exclude: [...exclude] };
      connection.send(message('list', { path, ...patterns, stamps, idleTimeoutMs, maxTimeMs }));
      await onListed(await receiveList(connection, stamps));
    },
    // Without a list there is nothing to go on with.
    fail(failure) {
      throw failure;
    },
  };
}

/** Asks the other side which replicas it knows as exact copies; `onUnknown` gets the others. */
function recognizeTask(
  pairs: readonly PlacedPair[],
  recognition: Recognition,
  onUnknown: (pairs: readonly PlacedPair[]) => void,
): Task {
  return {
    state: 'recognizing',
    run: async (connection) => onUnknown(await unknownThere(connection, pairs, recognition)),
    // A peer that cannot answer this cannot copy either.
    fail(failure) {
      throw failure;
    },
  };
}

/** More than this from a peer is no list of databases. */
const MAX_LISTED = 1_000_000;

/** A list from another host. */
interface StampedList extends FolderList {
  /** By the path of the database. */
  readonly stamps: ReadonlyMap<string, Uint8Array>;
}

async function receiveList(connection: Connection, hasStamps: boolean): Promise<StampedList> {
  const stamps = new Map<string, Uint8Array>();
  const databases: string[] = [];
  const omitted: Omitted[] = [];
  for (let isLast = false; !isLast;) {
    const part = await connection.receiveOnly('listed');
    isLast = part.isLast;
    databases.push(...part.databases);
    const found = unpackStamps(part.stamps, hasStamps ? part.databases.length : 0);
    for (const [i, stamp] of found.entries()) stamps.set(part.databases[i] as string, stamp);
    omitted.push(...part.omitted.map(readOmitted));
    if (
      databases.length + omitted.length > MAX_LISTED ||
      (!isLast && part.databases.length + part.omitted.length === 0)
    )
      throw wrongList(`${databases.length} names`);
  }
  const wrong = databases.find((path) => !isPlainPath(path));
  if (wrong !== undefined) throw wrongList(`the name ${sanitizeText(JSON.stringify(wrong), 200)}`);
  return { databases: [...new Set(databases)], omitted, stamps };
}

function readOmitted(text: string): Omitted {
  const [why = '', ...path] = text.slice(1).split('\n');
  return {
    path: sanitizeText(path.join('\n'), MAX_SHOWN_PATH),
    why: sanitizeText(why, 200),
    mayHide: !text.startsWith('-'),
  };
}

function wrongList(what: string): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The other side listed ${what}, which no folder of databases has`, {
    hint: 'Nothing was copied. Check that host.',
  });
}

/** Deletes replicas that sqlsync made of databases that are not there any more. */
function deleteOthers(
  folder: string,
  { databases, omitted }: FolderList,
  rules: FilterRules,
  { dryRun = false, onWarning }: FolderOptions,
  listeners: FolderListeners,
): void {
  const hidden = omitted.find(({ mayHide, path }) => mayHide || path.length > MAX_SHOWN_PATH);
  const why =
    hidden !== undefined
      ? `${hidden.path} ${hidden.why}`
      : databases.length === 0
        ? 'there is no database'
        : undefined;
  if (why !== undefined)
    return onWarning?.(`Nothing was deleted: ${why}, so it is not known what is gone`, 'news');
  const kept = new Set(databases);
  // A link, or a file that lost its content, stands where a database was: that one is not gone.
  const inTheWay = new Set(omitted.map(({ path }) => path));
  for (const path of listDatabases(folder, rules).databases) {
    if (kept.has(path) || pathsTo(path).some((each) => inTheWay.has(each))) continue;
    const replica = join(folder, path);
    if (readOwnMark(replica)?.originPath.endsWith(`/${path}`) !== true) {
      onWarning?.(
        `${sanitizeText(replica)} was not deleted: it is no copy that sqlsync made of such a database`,
        'news',
      );
      continue;
    }
    if (!dryRun) deleteReplica(replica);
    listeners.onDeleted(replica);
  }
}

/** A path and the folders that it leads through, as they are shown. */
function pathsTo(path: string): string[] {
  const names = path.split('/');
  return names.map((_, i) => sanitizeText(names.slice(0, i + 1).join('/'), MAX_SHOWN_PATH));
}

/** A -wal that outlived its database would be in the way of a new one, so it goes first. */
function deleteReplica(path: string): void {
  for (const each of [...filesBeside(path), path, besideReplica(path, '')]) rmSync(each, { force: true });
}
