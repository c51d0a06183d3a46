import { SqlsyncError } from '../../../errors.ts';
import { parseLocation } from '../../../transport/location.ts';
import type { RemoteLocation } from '../elsewhere.ts';

/** Reads `[user@]host:path` and `ssh://…`, as for a database. Throws SqlsyncError USAGE. */
export function parseAgentAddress(text: string): RemoteLocation {
  const location = parseLocation(text);
  if (location.kind === 'ssh') return location;
  throw new SqlsyncError('USAGE', 'The store is in a folder of this host');
}
