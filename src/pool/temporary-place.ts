import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { SqlsyncError, systemErrorCode } from '../errors.ts';
import { processSpace } from '../files/machine.ts';
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

/** The parents in which this process has looked for the folders of killed ones. */
const swept = new Set<string>();

/**
 * A place for a database of this process alone, in a folder of its own below the system's temporary folder. SQLite's own
 * databases in memory have no WAL and no second connection, so that readers would wait, and threads and `sync()` would
 * not find it. `remove` removes the folder, as does the end of the process; after a kill, the next process does.
 * Throws DATABASE_UNUSABLE.
 */
export function temporaryPlace(): { readonly path: string; remove(): void } {
  const parent = resolve(tmpdir());
  // A process id says something only where the same kernel counts them.
  const prefix = `sqlsync-memory-${createHash('sha256').update(processSpace()).digest('hex').slice(0, 12)}-`;
  if (!swept.has(parent)) removeAbandoned(parent, prefix);
  swept.add(parent);
  const folder = makeFolder(parent, `${prefix}${process.pid}-`);
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

function makeFolder(parent: string, prefix: string): string {
  try {
    return mkdtempSync(join(parent, prefix));
  } catch (error) {
    throw new SqlsyncError('DATABASE_UNUSABLE', `${MEMORY}: no folder can be made in ${parent}`, {
      hint: 'Set TMPDIR to a folder that this user can write.',
      cause: error,
    });
  }
}

/** Removes the folders of processes that were killed. */
function removeAbandoned(parent: string, prefix: string): void {
  for (const name of namesIn(parent)) {
    const pid = name.startsWith(prefix) ? /^(\d+)-/.exec(name.slice(prefix.length))?.[1] : undefined;
    if (pid === undefined || isAlive(Number(pid))) continue;
    try {
      rmSync(join(parent, name), { recursive: true, force: true });
    } catch {
      // It belongs to another user.
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return systemErrorCode(error) !== 'ESRCH';
  }
}
