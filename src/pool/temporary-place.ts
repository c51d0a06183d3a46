import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { PoolSettings } from './settings.ts';

/** The name that asks for a database of this process alone, as SQLite has it. */
export const MEMORY = ':memory:';

/** The settings of such a database: nobody else opens it. */
export const MEMORY_SETTINGS: Pick<PoolSettings, 'create' | 'admission' | 'allowNetworkFileSystem'> = {
  create: true,
  admission: 'none',
  allowNetworkFileSystem: true,
};

/** The folders of those that are open, for the end of the process. */
const folders = new Set<string>();

/**
 * A place for a database of this process alone, in a folder of its own below the system's temporary folder. SQLite's own
 * databases in memory have no WAL and no second connection, so that readers would wait, and threads and `sync()` would
 * not find it. `remove` removes the folder, as does the end of the process.
 */
export function temporaryPlace(): { readonly path: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-memory-'));
  if (folders.size === 0) process.on('exit', removeAll);
  folders.add(folder);
  return {
    path: join(folder, 'memory.db'),
    remove() {
      rmSync(folder, { recursive: true, force: true });
      folders.delete(folder);
      if (folders.size === 0) process.removeListener('exit', removeAll);
    },
  };
}

function removeAll(): void {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
