import { sanitizeText, SqlsyncError } from '../errors.ts';
import type { StoreSnapshot } from './types.ts';

/** Digits of an id that a user has to give. */
const MIN_PREFIX_LENGTH = 4;

/**
 * The one snapshot whose id begins with `prefix`, or the newest for `latest`. `snapshots` are oldest first. Throws SqlsyncError
 * SNAPSHOT_NOT_FOUND.
 */
export function findSnapshot(
  snapshots: readonly StoreSnapshot[],
  prefix: string,
  store: string,
): StoreSnapshot {
  if (prefix === 'latest') {
    const newest = snapshots.at(-1);
    if (newest !== undefined) return newest;
    throw notFound(`There are no snapshots in the store ${store}`);
  }
  const isPrefix = prefix.length >= MIN_PREFIX_LENGTH && /^[0-9a-f]+$/i.test(prefix);
  const found = isPrefix ? snapshots.filter(({ id }) => id.startsWith(prefix.toLowerCase())) : [];
  if (found.length === 1) return found[0] as StoreSnapshot;
  const shown = sanitizeText(prefix, 80);
  throw notFound(
    found.length === 0
      ? `No snapshot in the store ${store} has an id that begins with ${shown}`
      : `${found.length} snapshots in the store ${store} have ids that begin with ${shown}`,
  );
}

function notFound(text: string): SqlsyncError {
  return new SqlsyncError('SNAPSHOT_NOT_FOUND', text, {
    hint: '`sqlsync snapshots STORE` lists them; give `latest`, or the first digits of an id, at least four.',
  });
}
