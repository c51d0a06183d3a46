import { rmSync, statSync } from 'node:fs';
import type { RawDatabase } from './binding.ts';
import { openRaw } from './binding.ts';
import { isBusy } from './busy.ts';
import { databaseUri } from './database-uri.ts';

/** A lock between processes that dies with its holder: a small database held by BEGIN EXCLUSIVE. */
export interface ExclusiveLock {
  release(): void;
}

/** Takes the lock at `path` (absolute), or returns undefined where another process has it. */
export function tryExclusiveLock(path: string): ExclusiveLock | undefined {
  for (;;) {
    const database = openRaw(databaseUri(path, { mode: 'rwc' }), { timeout: 0 });
    try {
      const opened = inodeOf(path);
      database.exec('BEGIN EXCLUSIVE');
      // The holder before us deletes the file as it leaves. Whoever waited then has a lock on a file without a
      // name, which guards nothing: take the one that has the name.
      if (opened !== undefined && opened === inodeOf(path)) return { release: () => release(database, path) };
      database.close();
    } catch (error) {
      database.close();
      if (isBusy(error)) return undefined;
      throw error;
    }
  }
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

function release(database: RawDatabase, path: string): void {
  rmSync(path, { force: true });
  database.close();
}
