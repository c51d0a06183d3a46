import { closeSync, fsyncSync, linkSync, openSync, renameSync, rmSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { NO_HARD_LINKS } from './hard-links.ts';

/** Makes new and removed names in the folder of `path` durable. Throws the system's errors. */
export function syncFolder(path: string): void {
  const descriptor = openSync(dirname(path), 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Gives the file at `from` the name `to`. Without hard links a placeholder reserves the name. Throws the system's
 * errors: EEXIST if the name is taken.
 */
export function publishWithoutReplacing(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch (error) {
    if (!NO_HARD_LINKS.has(systemErrorCode(error))) throw error;
    closeSync(openSync(to, 'wx', 0o600));
    try {
      renameSync(from, to);
    } catch (failure) {
      removePlaceholder(to);
      throw failure;
    }
  }
}

/** A reader of the new file would take a file of 0 bytes for an empty database. */
function removePlaceholder(path: string): void {
  try {
    if (statSync(path, { throwIfNoEntry: false })?.size === 0) rmSync(path, { force: true });
  } catch {
    // The error that prevented the rename is the one to report.
  }
}
