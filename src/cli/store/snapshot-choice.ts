import { existsSync } from 'node:fs';
import { isDay } from '../../backup/prune/calendar-time.ts';
import { refuseSeveralDatabases, snapshotById } from '../../backup/snapshots/find-snapshot.ts';
import type { StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { formatLocalTime } from '../format.ts';

/** `STORE[#WHICH]`, taken apart. */
export interface SnapshotReference {
  readonly store: string;
  /** `latest`, how an id begins, or a time; what the text did not say is `latest`. */
  readonly which: string;
}

/** Which snapshots are meant. */
export interface FilterArguments {
  readonly host?: string | undefined;
  readonly path?: string | undefined;
  readonly tag?: string[] | undefined;
}

/**
 * Takes it apart at its last `#`. A folder that has a name like `STORE#latest` is that folder. Throws SqlsyncError USAGE where what
 * follows can name no snapshot of a store that is there.
 */
export function parseSnapshotReference(text: string): SnapshotReference {
  const at = text.lastIndexOf('#');
  if (at === -1 || existsSync(text)) return { store: text, which: 'latest' };
  const store = text.slice(0, at);
  const which = text.slice(at + 1);
  if (which === 'latest' || ID.test(which) || endOf(which) !== undefined) return { store, which };
  // A folder with a # in its name, which is not there: that is another mistake.
  if (store !== '' && !existsSync(store)) return { store: text, which: 'latest' };
  const what =
    which === '' ? 'Nothing follows the #' : `"${sanitizeText(which, 80)}" is neither an id nor a time`;
  throw new SqlsyncError('USAGE', `${sanitizeText(text, 400)}: ${what}; expected a snapshot of the store`, {
    hint: 'After the # comes an id, at least four digits of it, or a time: 2026-11-21, 2026-11-21T08:00, 2026-11-21T08:00:00Z; or latest.',
  });
}

/** At least so many digits. */
const ID = /^[0-9a-f]{4,64}$/i;

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

/** The tag '' stands for having none. */
function hasTag({ tags }: StoreSnapshot, tag: string): boolean {
  return tag === '' ? tags.length === 0 : tags.includes(tag);
}

/**
 * The snapshot that is meant, of `snapshots`, oldest first. An id says enough: `filter` is for `latest` and times. Throws SqlsyncError
 * SNAPSHOT_NOT_FOUND, and USAGE where `latest`, or a time, could mean several databases.
 */
export function chooseSnapshot(
  snapshots: readonly StoreSnapshot[],
  which: string,
  filter: FilterArguments = {},
): StoreSnapshot {
  if (ID.test(which)) return snapshotById(snapshots, which);
  const candidates = filterSnapshots(snapshots, filter);
  refuseSeveralDatabases(candidates);
  const until = which === 'latest' ? Infinity : endOf(which);
  if (until === undefined) throw new Error(`${which} names no snapshot`);
  const found = candidates.findLast(({ time }) => time.getTime() <= until);
  if (found !== undefined) return found;
  throw new SqlsyncError('SNAPSHOT_NOT_FOUND', describeNone(snapshots, candidates, which), {
    hint: '`sqlsync snapshots STORE` lists them.',
  });
}

function describeNone(
  snapshots: readonly StoreSnapshot[],
  [oldest]: readonly StoreSnapshot[],
  which: string,
): string {
  if (snapshots.length === 0) return 'The store has no snapshot yet';
  if (oldest === undefined) return 'The store has snapshots, but none of that --path and --host';
  const from = formatLocalTime(oldest.time);
  return `The store has no snapshot from before the end of ${sanitizeText(which, 80)}; the oldest that could be meant is of ${from}`;
}

const TIME =
  /^(\d{4}-\d\d-\d\d)(?:[T ]([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(?:\.\d{1,9})?)?(Z|[+-](?:0\d|1[0-4]):[0-5]\d)?)?$/;

/**
 * The last millisecond, since 1970, that a day, or a time without seconds, still means; on this machine's clock without a zone.
 * undefined for what is no time.
 */
function endOf(text: string): number | undefined {
  const [, day, hour, seconds] = TIME.exec(text) ?? [];
  if (day === undefined || !isDay(day)) return undefined;
  // Date takes a bare day for one in UTC.
  const date = new Date(hour === undefined ? `${day}T00:00` : text.replace(' ', 'T'));
  if (hour === undefined) return date.setDate(date.getDate() + 1) - 1;
  return date.getTime() + (seconds === undefined ? 59_999 : 999);
}
