import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The version in our package.json, which stands above src/ in a checkout and above dist/src/ when published. */
export const VERSION: string = readVersion(import.meta.dirname);

/** The name of this program for a peer. */
export const PROGRAM: string = `sqlsync ${VERSION}`;

/** bin/sqlsync.js of this installation: above src/ in a checkout, above dist/src/ when published. */
export function commandPath(folder: string = import.meta.dirname): string {
  const candidate = join(folder, 'bin', 'sqlsync.js');
  return existsSync(candidate) || dirname(folder) === folder ? candidate : commandPath(dirname(folder));
}

function readVersion(folder: string): string {
  try {
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as {
      name?: string;
      version?: string;
    };
    if (manifest.name === 'sqlsync-db' && manifest.version !== undefined) return manifest.version;
  } catch {
    // No package.json of ours in this folder: look above it.
  }
  const parent = dirname(folder);
  return parent === folder ? 'unknown' : readVersion(parent);
}
