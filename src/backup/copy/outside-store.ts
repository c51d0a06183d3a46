import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { sanitizeText, SqlsyncError } from '../../errors.ts';
import { realPath } from '../../files/path-names.ts';
import type { Location } from '../../transport/location.ts';
import { isElsewhere } from '../backends/elsewhere.ts';

/**
 * Refuses a local path within the store's folder, even through links: a database written there could replace a file of
 * the store and destroy it. Throws SqlsyncError USAGE.
 */
export function refuseWithinStore(store: string, database: Location): void {
  if (database.kind !== 'local' || isElsewhere(store)) return;
  const folder = realPathOf(resolve(store));
  const path = realPathOf(resolve(database.path));
  if (path !== folder && !path.startsWith(folder.endsWith(sep) ? folder : folder + sep)) return;
  const inside = relative(folder, path);
  const what = inside === '' ? 'is the store itself' : `lies within the store ${sanitizeText(store, 400)}`;
  throw new SqlsyncError(
    'USAGE',
    `${sanitizeText(database.path, 400)} ${what}; expected a place outside of it`,
    {
      hint: 'Name a place elsewhere: the folder of a store may only hold the store.',
    },
  );
}

/** Resolves the links of the part of the path that exists. */
function realPathOf(path: string): string {
  try {
    return realPath(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPathOf(parent), basename(path));
  }
}
