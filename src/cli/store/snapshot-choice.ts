import { existsSync } from 'node:fs';
import { isElsewhere, isOnAnotherHost } from '../../backup/backends/elsewhere.ts';
import { refuseSeveralDatabases, snapshotById } from '../../backup/snapshots/find-snapshot.ts';
import { clockWarning, dateSnapshots } from '../../backup/snapshots/snapshot-clock.ts';
import { lastMomentOf } from '../../backup/snapshots/time-limit.ts';
import type { Store, StoreMoment, StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import type { OptionValues } from '../options/command.ts';
import { formatClock } from '../../backup/snapshots/calendar-time.ts';

/** The parts of `STORE[#WHICH]`. */
export interface SnapshotReference {
  readonly store: string;
  /** `latest`, the beginning of an id, or a time; a text without it means `latest`. */
  readonly which: string;
}

/** The options that choose the database of a snapshot. */
export const DATABASE_OPTIONS = {
  host: { value: 'NAME', describe: 'Only snapshots of this host' },
  path: { value: 'PATH', describe: 'Only snapshots of this database: its path, or how that ends' },
} as const;

export const TAG_OPTIONS = {
  tag: { array: true, value: 'TAG', describe: 'Only snapshots with this tag, or all of tag,tag' },
} as const;

/** The options that choose snapshots. */
export type FilterArguments = Partial<
  OptionValues<typeof DATABASE_OPTIONS> & OptionValues<typeof TAG_OPTIONS>
>;

/**
 * Splits the text at its last `#`. A folder that has a name like `STORE#latest` is that folder. Throws SqlsyncError
 * USAGE if the part after the # can name no snapshot and the store exists.
 */
export function parseSnapshotReference(text: string): SnapshotReference {
  const at = text.lastIndexOf('#');
  if (at === -1 || existsSync(text)) return { store: text, which: 'latest' };
  const store = text.slice(0, at);
  const which = text.slice(at + 1);
  if (namesSnapshot(which)) return { store, which };
  // A folder with a # in its name that does not exist: opening it reports that.
  if (store !== '' && !existsSync(store) && !isElsewhere(store)) return { store: text, which: 'latest' };
  const what =
    which === '' ? 'Nothing follows the #' : `"${sanitizeText(which, 80)}" is neither an id nor a time`;
  throw new SqlsyncError('USAGE', `${sanitizeText(text, 400)}: ${what}; expected a snapshot of the store`, {
    hint: 'After the # write an id, at least four digits of it, or a time: 2026-11-21, 2026-11-21T08:00, 2026-11-21T08:00:00Z; or latest.',
  });
}

/** True for `[user@]host:path#WHICH`: without the `#` that may be a database. */
export function isSnapshotOnAnotherHost(text: string): boolean {
  const at = text.lastIndexOf('#');
  return at > 0 && isOnAnotherHost(text.slice(0, at)) && namesSnapshot(text.slice(at + 1));
}

function namesSnapshot(which: string): boolean {
  return which === 'latest' || namesById(which) || lastMomentOf(which) !== undefined;
}

/** At least this many digits. */
const ID = /^[0-9a-f]{4,64}$/i;

/** True if `which` is an id, or the beginning of one. */
export function namesById(which: string): boolean {
  return ID.test(which);
}

export function filterSnapshots(
  snapshots: readonly StoreSnapshot[],
  { host, path, tag }: FilterArguments,
): StoreSnapshot[] {
  const lists = tag?.map((list) => list.split(','));
  return snapshots.filter(
    (snapshot) =>
      (host === undefined || snapshot.host === host) &&
      (path === undefined ||
        snapshot.path === path ||
        snapshot.path.endsWith(`/${path.replace(/^\//, '')}`)) &&
      (lists === undefined || lists.some((list) => list.every((each) => hasTag(snapshot, each)))),
  );
}

/** The tag '' means "no tags". */
function hasTag({ tags }: StoreSnapshot, tag: string): boolean {
  return tag === '' ? tags.length === 0 : tags.includes(tag);
}

/**
 * The chosen snapshot among `snapshots`, which are in order. An id is enough; `filter` is for `latest` and times.
 * `onWarning` is called if a wrong clock puts in doubt which one these mean. Throws SqlsyncError SNAPSHOT_NOT_FOUND,
 * and USAGE if `latest`, or a time, could mean several databases.
 */
export function chooseSnapshot(
  snapshots: readonly StoreSnapshot[],
  which: string,
  filter: FilterArguments = {},
  onWarning?: (warning: string) => void,
): StoreSnapshot {
  if (namesById(which)) return snapshotById(snapshots, which);
  const candidates = filterSnapshots(snapshots, filter);
  refuseSeveralDatabases(candidates);
  const until = which === 'latest' ? Infinity : lastMomentOf(which);
  if (until === undefined) throw new Error(`${which} names no snapshot`);
  const datings = dateSnapshots(snapshots);
  const found = candidates.findLast(({ id }) => (datings.get(id)?.ms ?? 0) <= until);
  const warning = found === undefined ? undefined : clockWarning(candidates, found, datings, until);
  if (warning !== undefined) onWarning?.(warning);
  if (found !== undefined) return found;
  throw new SqlsyncError('SNAPSHOT_NOT_FOUND', describeNone(snapshots, candidates, which), {
    hint: '`sqlsync snapshots STORE` lists them.',
  });
}

/**
 * Two snapshots by their references. If one of them is named by its id, the other one is of the same database, unless the filter or its own id says
 * otherwise.
 */
export function choosePair(
  all: readonly StoreSnapshot[],
  [first, second]: readonly [string, string],
  filter: FilterArguments,
  onWarning: (warning: string) => void,
): [StoreSnapshot, StoreSnapshot] {
  const choose = (which: string, other: StoreSnapshot | undefined): StoreSnapshot => {
    const isFiltered = other === undefined || filter.host !== undefined || filter.path !== undefined;
    const candidates =
      isFiltered || namesById(which)
        ? all
        : all.filter(({ host, path }) => host === other.host && path === other.path);
    return chooseSnapshot(candidates, which, filter, onWarning);
  };
  if (namesById(first)) {
    const a = choose(first, undefined);
    return [a, choose(second, a)];
  }
  const b = choose(second, undefined);
  return [choose(first, namesById(second) ? b : undefined), b];
}

/**
 * The state after the chosen snapshot that a time, or `latest`, means; undefined if it means the snapshot itself. Throws
 * SqlsyncError STORE_*.
 */
export async function chooseMoment(
  store: Store,
  chosen: StoreSnapshot,
  which: string,
): Promise<StoreMoment | undefined> {
  if (namesById(which)) return undefined;
  return store.momentAfter(chosen, which === 'latest' ? Infinity : lastMomentOf(which));
}

function describeNone(
  snapshots: readonly StoreSnapshot[],
  [oldest]: readonly StoreSnapshot[],
  which: string,
): string {
  if (snapshots.length === 0) return 'The store has no snapshot yet';
  if (oldest === undefined) return 'The store has snapshots, but none of that --path and --host';
  const from = formatClock(oldest.time);
  return `The store has no snapshot from before the end of ${sanitizeText(which, 80)}; the oldest that could be meant is of ${from}`;
}
