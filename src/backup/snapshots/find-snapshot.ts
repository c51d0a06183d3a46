import { sanitizeText, SqlsyncError } from '../../errors.ts';
import type { StoreSnapshot } from '../types.ts';

/** An id or its beginning: a user has to give at least these digits. */
const ID_START = /^[0-9a-f]{4,64}$/i;

/**
 * The one snapshot whose id begins with `prefix`, or the newest for `latest`. `snapshots` are in order, oldest first.
 * Throws SqlsyncError SNAPSHOT_NOT_FOUND, and USAGE if `latest` could mean several databases.
 */
export function findSnapshot(
  snapshots: readonly StoreSnapshot[],
  prefix: string,
  store: string,
): StoreSnapshot {
  if (prefix !== 'latest') return snapshotById(snapshots, prefix);
  refuseSeveralDatabases(snapshots);
  const newest = snapshots.at(-1);
  if (newest !== undefined) return newest;
  throw notFound(`The store ${store} has no snapshots`);
}

/** The one snapshot whose id begins with `prefix`. Throws SqlsyncError SNAPSHOT_NOT_FOUND. */
export function snapshotById(snapshots: readonly StoreSnapshot[], prefix: string): StoreSnapshot {
  const found = ID_START.test(prefix)
    ? snapshots.filter(({ id }) => id.startsWith(prefix.toLowerCase()))
    : [];
  const [only] = found;
  if (found.length === 1 && only !== undefined) return only;
  const shown = sanitizeText(prefix, 80);
  throw notFound(
    found.length === 0
      ? `No snapshot in the store has an id that begins with ${shown}`
      : `${found.length} snapshots in the store have ids that begin with ${shown}`,
    ID_START.test(prefix) ? 'give the first digits of one of them, at least four.' : undefined,
  );
}

/**
 * `latest` and times need a single database, so that users do not restore another one than they think. `snapshots` are
 * in order. Throws SqlsyncError USAGE.
 */
export function refuseSeveralDatabases(snapshots: readonly StoreSnapshot[]): void {
  const databases = new Set(snapshots.map(({ host, path }) => `${host}:${path}`));
  if (databases.size <= 1) return;
  const hosts = [...new Set(snapshots.map(({ host }) => host))];
  const [path, ...otherPaths] = new Set(snapshots.map((snapshot) => snapshot.path));
  if (path !== undefined && otherPaths.length === 0) throw severalHosts(path, hosts, snapshots.at(-1));
  const named = [...databases].slice(0, 5).map((name) => sanitizeText(name, 200));
  throw new SqlsyncError(
    'USAGE',
    `The store has snapshots of ${databases.size} databases: ${named.join(', ')}${databases.size > 5 ? ', …' : ''}`,
    { hint: 'Choose one with --path (and --host), or give the id of a snapshot.' },
  );
}

function severalHosts(
  path: string,
  hosts: readonly string[],
  newest: StoreSnapshot | undefined,
): SqlsyncError {
  const named = hosts.slice(-5).map((host) => sanitizeText(host, 200));
  const shown = `${hosts.length > 5 ? '…, ' : ''}${named.join(', ')}`;
  return new SqlsyncError(
    'USAGE',
    `The store has snapshots of ${sanitizeText(path, 200)} from ${hosts.length} hosts: ${shown}`,
    {
      hint: `Choose one with --host, or give the id of a snapshot: the newest of all is ${newest?.id.slice(0, 8)}, of ${sanitizeText(newest?.host ?? '', 200)}. If a host has another name each time, back it up with --host NAME.`,
    },
  );
}

function notFound(
  text: string,
  advice = 'give `latest`, or the first digits of an id, at least four.',
): SqlsyncError {
  return new SqlsyncError('SNAPSHOT_NOT_FOUND', text, {
    hint: `\`sqlsync snapshots STORE\` lists them; ${advice}`,
  });
}
