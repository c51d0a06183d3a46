import { existsSync } from 'node:fs';
import type { StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';

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

const WHICH = /^(latest|[0-9a-f]{4,64}|\d{4}-\d\d-\d\d.*)$/i;

/** A folder that has a name like `STORE#latest` is that folder. */
export function parseSnapshotReference(text: string): SnapshotReference {
  const at = text.lastIndexOf('#');
  const which = text.slice(at + 1);
  if (at === -1 || !WHICH.test(which) || existsSync(text)) return { store: text, which: 'latest' };
  return { store: text.slice(0, at), which };
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

/** The tag '' stands for having none. */
function hasTag({ tags }: StoreSnapshot, tag: string): boolean {
  return tag === '' ? tags.length === 0 : tags.includes(tag);
}

/**
 * The snapshot that is meant, of `snapshots`, oldest first. `latest` and times mean one database, so that nobody restores
 * another one than they think. Throws SqlsyncError USAGE, SNAPSHOT_NOT_FOUND.
 */
export function chooseSnapshot(
  snapshots: readonly StoreSnapshot[],
  which: string,
  filter: FilterArguments = {},
): StoreSnapshot {
  const candidates = filterSnapshots(snapshots, filter);
  if (/^[0-9a-f]+$/i.test(which)) return byId(candidates, which.toLowerCase());
  refuseSeveralDatabases(candidates);
  if (which === 'latest') return candidates.at(-1) ?? fail('There is no such snapshot in the store');
  const until = endOf(which);
  const found = candidates.findLast(({ time }) => time.getTime() <= until);
  return found ?? fail(`The store has no snapshot from before ${sanitizeText(which, 80)}`);
}

function byId(candidates: readonly StoreSnapshot[], prefix: string): StoreSnapshot {
  const found = candidates.filter(({ id }) => id.startsWith(prefix));
  const [only] = found;
  if (found.length === 1 && only !== undefined) return only;
  return fail(
    found.length === 0
      ? `No snapshot in the store has an id that begins with ${prefix}`
      : `${found.length} snapshots in the store have ids that begin with ${prefix}`,
  );
}

function refuseSeveralDatabases(candidates: readonly StoreSnapshot[]): void {
  const databases = new Set(candidates.map(({ host, path }) => `${host}:${path}`));
  if (databases.size <= 1) return;
  const named = [...databases].slice(0, 5).map((name) => sanitizeText(name, 200));
  throw new SqlsyncError(
    'USAGE',
    `The store has snapshots of ${databases.size} databases: ${named.join(', ')}${databases.size > 5 ? ', …' : ''}`,
    { hint: 'Say which by --path (and --host), or give the id of a snapshot.' },
  );
}

/** The last millisecond that a time without seconds, or a day, still means; on this machine's clock without a zone. */
function endOf(text: string): number {
  const isDay = /^\d{4}-\d\d-\d\d$/.test(text);
  const isMinute = /T\d\d:\d\d(Z|[+-]\d\d:\d\d)?$/.test(text);
  // Date takes a bare day for one in UTC.
  const date = new Date(isDay ? `${text}T00:00` : text);
  if (Number.isNaN(date.getTime())) {
    throw new SqlsyncError('USAGE', `"${sanitizeText(text, 80)}" is neither an id nor a time`, {
      hint: 'Write a time as 2026-11-21, 2026-11-21T08:00 or 2026-11-21T08:00:00Z.',
    });
  }
  if (isDay) return date.setDate(date.getDate() + 1) - 1;
  return date.getTime() + (isMinute ? 59_999 : 999);
}

function fail(text: string): never {
  throw new SqlsyncError('SNAPSHOT_NOT_FOUND', text, { hint: '`sqlsync snapshots STORE` lists them.' });
}
