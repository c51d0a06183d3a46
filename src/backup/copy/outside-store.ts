import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { realPath } from '../../files/path-names.ts';
import type { Location } from '../../transport/location.ts';

/**
 * A database has no place among the files of a store: written there it could take the place of one of them, which would
 * be the end of the store. Throws SqlsyncError USAGE for a local path within the store's folder, whatever links lead
 * there.
 */
export function refuseWithinStore(store: string, database: Location): void {
  if (database.kind !== 'local') return;
  const folder = realPathOf(resolve(store));
  const path = realPathOf(resolve(database.path));
  if (path !== folder && !path.startsWith(folder.endsWith(sep) ? folder : folder + sep)) return;
  const inside = relative(folder, path);
  const what = inside === '' ? 'is the store itself' : `lies within the store ${sanitizeText(store, 400)}`;
  throw new SqlsyncError(
    'USAGE',
    `${sanitizeText(database.path, 400)} ${what}; expected a place outside of it`,
    {
      hint: 'Nothing but the store may be in its folder: name a database elsewhere.',
    },
  );
}

/** With the links of as much of it as is there. */
function realPathOf(path: string): string {
  try {
    return realPath(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPathOf(parent), basename(path));
  }
}
